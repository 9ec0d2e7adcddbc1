"""Advantages of replies, each compared with the others to its prompt: [P, G], P prompts with G replies each.

All three raise ValueError if G is 1: a reply that stands alone has nothing to be compared with.
"""

from jaxtyping import Float
from torch import Tensor


def leave_one_out(rewards: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """The reward minus the mean of the other G - 1: a baseline that does not depend on reply i, so no bias.

        A_i = r_i - sum_{j != i} r_j / (G - 1)
            = G / (G - 1) (r_i - mean of all G)

    Kool, van Hoof & Welling 2019; Ahmadian et al. 2024, arXiv:2402.14740, eq. 8. With G = 2 it is the
    difference of the two rewards.
    """
    G = rewards.shape[1]
    return group_centred(rewards) * (G / (G - 1))


def group_centred(rewards: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """The reward minus the mean of all G: (G - 1) / G of `leave_one_out`, so its direction is unbiased.

    Liu et al. 2025, arXiv:2503.20783 (Dr. GRPO).
    """
    if rewards.shape[1] < 2:
        raise ValueError(f"groups of {rewards.shape[1]}; expected at least 2 replies to a prompt")
    return rewards - rewards.mean(1, keepdim=True)


def group_standardised(rewards: Float[Tensor, "P G"], floor: float = 1e-4) -> Float[Tensor, "P G"]:
    """(r_i - mean) / (std + floor), with the standard deviation of a sample (over G - 1): GRPO's.

    Shao et al. 2024, arXiv:2402.03300, section 4.1.2. It is biased: the deviation depends on reply i, and a
    prompt whose replies differ little weighs as much as one whose replies differ a lot. With G = 2 only the
    sign of the difference is left. `floor`, in units of reward, is there because groups of equal rewards are
    common (all right, or all wrong): their advantages are 0 and not 0 / 0.
    """
    return group_centred(rewards) / (rewards.std(1, keepdim=True) + floor)
