"""Returns for policy gradients: three formulas with one signature, chosen by name.

The advantage of decision k is A_k = G_k - V_k, with G from one of

    monte-carlo   G_k = r_k + d_k G_{k+1}                       no value: what a cut left out is lost
    n-step        G_k = r_k + ... + d_k ... d_{k+n-1} v_{k+n}   n rewards, then the value
    gae           G_k = r_k + d_k ((1-l) v_{k+1} + l G_{k+1})   a mixture; l = 0 one step, l = 1 all steps

Less bootstrapping means less bias (V is wrong at first) and more variance. GAE is the lambda-return minus the
value: Schulman et al. 2016, arXiv:1506.02438, eq. 16.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from turnwise.losses.names import Estimator
from turnwise.losses.returns import discounted_returns, lambda_returns, n_step_returns


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
    """G [B, A] by the formula of that name; `n` has an effect on n-step alone, `lam` on gae alone.

    `values` [B, A+1] hold the final state's, which bootstraps rows that were cut.
    """
    if estimator == "monte-carlo":
        return discounted_returns(rewards, discounts, mask)
    if estimator == "n-step":
        return n_step_returns(rewards, discounts, values[:, 1:], mask, n)
    return lambda_returns(rewards, discounts, values[:, 1:], mask, lam)


def standardised(x: Float[Tensor, "B A"], mask: Bool[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """(x - mean) / standard deviation, both over the entries where `mask` is True; 0 if all are equal."""
    counted = x[mask]
    spread = counted.std(correction=0)
    # Equal entries are divided by 1 and not by 0 + epsilon: others are then standardised exactly.
    return (x - counted.mean()) / torch.where(spread > 0, spread, 1.0)
