"""Losses of value functions, per decision; the algorithm reduces them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def squared_error(values: Float[Tensor, "*E B A"], targets: Float[Tensor, "B A"]) -> Float[Tensor, "*E B A"]:
    """(target - value)^2; the caller detaches the target."""
    return (targets - values) ** 2


def clipped_value_loss(
    values: Float[Tensor, "B A"], old_values: Float[Tensor, "B A"], targets: Float[Tensor, "B A"], clip: float
) -> Float[Tensor, "B A"]:
    """max((v - G)^2, (v_old + clamp(v - v_old, -clip, clip) - G)^2): no gain from a move beyond `clip`.

    PPO's implementation (Huang et al. 2022, "The 37 implementation details", detail 9); units of return.
    """
    near = old_values + (values - old_values).clamp(-clip, clip)
    return ((values - targets) ** 2).maximum((near - targets) ** 2)


def expectile_loss(
    values: Float[Tensor, "B A"], targets: Float[Tensor, "B A"], tau: float | Float[Tensor, "B A"]
) -> Float[Tensor, "B A"]:
    """|tau - 1(u < 0)| u^2 with u = target - value: tau > 1/2 pulls the value towards the best targets.

    One tau for all, or one for each decision. Implicit Q-learning, Kostrikov et al. 2021, arXiv:2110.06169,
    section 4.1. tau = 1/2 is half the squared error.
    """
    u = targets - values
    return torch.where(u < 0, (1 - tau) * u**2, tau * u**2)  # weights in the precision of u


def cql_loss(q: Float[Tensor, "*E B A V"], actions: Int[Tensor, "B A"]) -> Float[Tensor, "*E B A"]:
    """log sum_a' exp Q(a') - Q(a): the negative log-likelihood of the data with Q as logits.

    Conservative Q-learning, Kumar et al. 2020, arXiv:2006.04779, the CQL(H) regulariser, as ILQL uses it
    per token (Snell et al. 2022, arXiv:2206.11871).
    """
    index = actions.expand(q.shape[:-1]).unsqueeze(-1)
    return q.logsumexp(-1) - q.gather(-1, index).squeeze(-1)


def soft_values(
    q: Float[Tensor, "*N V"], logits: Float[Tensor, "*N V"], temperature: float | Float[Tensor, ""]
) -> Float[Tensor, "*N"]:
    """sum_a pi(a) (Q(a) - temperature log pi(a)), pi the softmax of `logits`; temperature in return per nat.

    Soft actor-critic with discrete actions, Christodoulou 2019, arXiv:1910.07207, eq. 10.
    """
    logp = logits.log_softmax(-1)
    return (logp.exp() * (q - temperature * logp)).sum(-1)
