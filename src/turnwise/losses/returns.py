"""Returns on the decision axis. All tensors are [B, A] and carry their own discounts; time never shifts here."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def td_targets(
    rewards: Float[Tensor, "B A"], discounts: Float[Tensor, "B A"], next_values: Float[Tensor, "B A"]
) -> Float[Tensor, "B A"]:
    """r_k + d_k v_{k+1}: one-step bootstrap; d = 0 after a termination, never after a truncation.

    Sutton & Barto (2018), eq. 6.2, with the discount per decision.
    """
    return rewards + discounts * next_values


def discounted_returns(
    rewards: Float[Tensor, "B A"], discounts: Float[Tensor, "B A"], mask: Bool[Tensor, "B A"]
) -> Float[Tensor, "B A"]:
    """G_k = m_k (r_k + d_k G_{k+1}), with G = 0 beyond the last decision.

    Sutton & Barto (2018), eq. 3.9. A truncated row counts what was seen and nothing after it.
    """
    returns = torch.zeros_like(rewards)
    after = torch.zeros_like(rewards[:, 0])
    for k in range(rewards.shape[1] - 1, -1, -1):
        after = mask[:, k] * (rewards[:, k] + discounts[:, k] * after)
        returns[:, k] = after
    return returns
