"""Advantages of what is compared with others: replies with those to the same prompt, acts with those chosen
at an equal state.

Of replies they are [P, G], P prompts with G replies each, and raise ValueError if G is 1: a reply that stands
alone has nothing to be compared with.
"""

import torch
from jaxtyping import Bool, Float, Int
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


def anchored_baselines(
    returns: Float[Tensor, "n"], anchors: Int[Tensor, "n"], owners: Int[Tensor, "n"]
) -> tuple[Float[Tensor, "n"], Bool[Tensor, "n"]]:
    """For each decision the mean return-to-go of other episodes at an equal state, and whether there is one.

        b_k = mean of G_j over decisions j with anchors_j = anchors_k and owners_j != owners_k

    `anchors` are numbers of states (or of what stands for one), `owners` those of episodes. Without another
    episode there it is 0 and False. Feng et al. 2025, arXiv:2505.10978 (GiGPO), compare with the mean of all
    at an equal state, which an episode's own return is part of. Here it is not: what others earned does not
    depend on what is chosen at k, so that it is a baseline, whatever stands for a state.
    """
    # An episode may come by a state several times: all of these are its own.
    own = torch.unique(torch.stack([anchors, owners]), dim=1, return_inverse=True)[1]
    all_at, own_at = _totals(returns, anchors), _totals(returns, own)
    count, total = all_at[0] - own_at[0], all_at[1] - own_at[1]
    found = count > 0
    return torch.where(found, total / count.clamp(min=1), 0.0), found


def _totals(x: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """For each entry, how many its group has, and their sum."""
    size = int(groups.max()) + 1
    counts = x.new_zeros(size).index_add(0, groups, torch.ones_like(x))
    return counts[groups], x.new_zeros(size).index_add(0, groups, x)[groups]
