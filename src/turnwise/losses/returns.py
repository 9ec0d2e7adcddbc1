"""Returns on the decision axis: tensors are [B, A] and carry their discounts; time never shifts here."""

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


def lambda_returns(
    rewards: Float[Tensor, "B A"],
    discounts: Float[Tensor, "B A"],
    next_values: Float[Tensor, "B A"],
    mask: Bool[Tensor, "B A"],
    lam: Float[Tensor, "B A"],
) -> Float[Tensor, "B A"]:
    """G_k = m_k (r_k + d_k ((1 - lambda_k) v_{k+1} + lambda_k G_{k+1})), with lambda_k = 0 where m_{k+1} is.

    Sutton & Barto (2018), eq. 12.18. lambda = 0 is the one-step target; lambda = 1 the return as logged, with
    the final state's value where the row was cut. On logs of another policy, lambda > 0 leans towards what
    that policy did (no correction, as in Peng's Q(lambda)). `mask` is of decisions that have a target: an
    action whose next state nobody knows has none, and no trace runs through it.
    """
    returns = torch.zeros_like(rewards)
    after, trace = next_values[:, -1], torch.zeros_like(lam[:, -1])
    for k in range(rewards.shape[1] - 1, -1, -1):
        after = mask[:, k] * (rewards[:, k] + discounts[:, k] * torch.lerp(next_values[:, k], after, trace))
        returns[:, k] = after
        trace = mask[:, k] * lam[:, k - 1]
    return returns


def n_step_returns(
    rewards: Float[Tensor, "B A"],
    discounts: Float[Tensor, "B A"],
    next_values: Float[Tensor, "B A"],
    mask: Bool[Tensor, "B A"],
    n: int,
) -> Float[Tensor, "B A"]:
    """G^n_k = m_k (r_k + d_k G^{n-1}_{k+1}), G^0_k = v_k: n rewards and the value of where they lead.

    Sutton & Barto (2018), eq. 7.1. Where a row ends within n steps, the value of its final state stands in.
    """
    if n < 1:
        raise ValueError(f"n is {n}; expected 1 or more")
    goes_on = torch.nn.functional.pad(mask[:, 1:], (0, 1))
    returns = rewards + discounts * next_values
    for _ in range(n - 1):
        after = torch.where(goes_on, torch.nn.functional.pad(returns[:, 1:], (0, 1)), next_values)
        returns = rewards + discounts * after
    return returns.masked_fill(~mask, 0.0)
