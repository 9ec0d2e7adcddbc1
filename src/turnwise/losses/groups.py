"""Advantages of replies beside the others to the same prompt: [P, G], P prompts with G replies each.

ValueError where G is 1: a reply that stands alone has nothing to be compared with.
"""

from jaxtyping import Float
from torch import Tensor


def leave_one_out(rewards: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """r_i - mean of the other G - 1: a baseline that does not depend on reply i, so no bias.

    Kool, van Hoof & Welling 2019; Ahmadian et al. 2024, arXiv:2402.14740, eq. 8.
    """
    G = rewards.shape[1]
    return group_centred(rewards) * (G / (G - 1))


def group_centred(rewards: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """r_i - mean of all G: (G - 1) / G of `leave_one_out`. Liu et al. 2025, arXiv:2503.20783 (Dr. GRPO)."""
    if rewards.shape[1] < 2:
        raise ValueError(f"groups of {rewards.shape[1]}; expected at least 2 replies to a prompt")
    return rewards - rewards.mean(1, keepdim=True)


def group_standardised(rewards: Float[Tensor, "P G"], floor: float = 1e-4) -> Float[Tensor, "P G"]:
    """(r_i - mean) / (std + floor), std over G - 1: GRPO's.

    Shao et al. 2024, arXiv:2402.03300, section 4.1.2. The deviation depends on reply i, and prompts whose
    replies differ little weigh as much as others: a bias. With G = 2 only the sign of the difference is left.
    """
    return group_centred(rewards) / (rewards.std(1, keepdim=True) + floor)
