"""Returns that a policy gradient is weighted with: three formulas with one signature.

    advantage A_k = G_k - V_k, with G from one of

    monte-carlo   G_k = r_k + d_k G_{k+1}                      no value is used; what a cut leaves out is lost
    n-step        G_k = r_k + d_k (... + d v_{k+n})            the value stands in after n rewards
    gae           G_k = r_k + d_k ((1-l) v_{k+1} + l G_{k+1})  a mixture of all of them; l = 0 one step, 1 all

Schulman et al. 2016, arXiv:1506.02438, eq. 16: GAE is the lambda-return less the value.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from turnwise.losses.returns import discounted_returns, lambda_returns, n_step_returns

Estimator = Literal["monte-carlo", "n-step", "gae"]


def estimated_returns(
    estimator: Estimator,
    rewards: Float[Tensor, "B A"],
    discounts: Float[Tensor, "B A"],
    values: Float[Tensor, "B A1"],
    mask: Bool[Tensor, "B A"],
    *,
    n: int,
    lam: float,
) -> Float[Tensor, "B A"]:
    """G [B, A] by the formula of that name; `n` is for n-step alone, `lam` for gae alone."""
    if estimator == "monte-carlo":
        return discounted_returns(rewards, discounts, mask)
    if estimator == "n-step":
        return n_step_returns(rewards, discounts, values[:, 1:], mask, n)
    return lambda_returns(rewards, discounts, values[:, 1:], mask, torch.full_like(rewards, lam))


def standardised(x: Float[Tensor, "B A"], mask: Bool[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """(x - mean) / deviation over the counted entries; where all are equal, 0."""
    counted = x[mask]
    spread = counted.std(correction=0)
    return (x - counted.mean()) / torch.where(spread > 0, spread, 1.0)
