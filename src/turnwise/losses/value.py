"""Losses of value functions, one number for each decision, which the algorithm reduces; and a score of V."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def action_values(q: Float[Tensor, "*E B A V"], actions: Int[Tensor, "B A"]) -> Float[Tensor, "*E B A"]:
    """Q(h_k, a_k) of the actions taken, for every member of an ensemble if there are several."""
    index = actions.expand(q.shape[:-1]).unsqueeze(-1)  # [*E, B, A, 1]: every member is asked the same
    return q.gather(-1, index).squeeze(-1)


def squared_error(values: Float[Tensor, "*E B A"], targets: Float[Tensor, "B A"]) -> Float[Tensor, "*E B A"]:
    """(target - value)^2, for every member of an ensemble if there are several.

    With a target that has no gradient this is the semi-gradient TD error squared (Sutton & Barto 2018,
    section 9.3). The caller detaches the target.
    """
    return (targets - values) ** 2


def ending_loss(logits: Float[Tensor, "B A"], over: Bool[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """-ln p of what happened, in nats, where p = sigmoid(logit) is the probability that it is over then.

    L = softplus(logit) - over * logit
    """
    return nn.functional.softplus(logits) - logits * over


def clipped_value_loss(
    values: Float[Tensor, "B A"], old_values: Float[Tensor, "B A"], targets: Float[Tensor, "B A"], clip: float
) -> Float[Tensor, "B A"]:
    """The squared error, with no gain from moving V further than `clip` (in units of return) in one update.

        near = v_old + clamp(v - v_old, -clip, clip)
        L    = max((G - v)^2, (G - near)^2)

    PPO's implementation (Huang et al. 2022, "The 37 implementation details", detail 9). Special cases: at
    v = v_old, and for a large `clip`, it is the squared error. The maximum makes it pessimistic: a value that
    has moved too far away from its target still has its whole gradient back.
    """
    near = old_values + (values - old_values).clamp(-clip, clip)
    return squared_error(values, targets).maximum(squared_error(near, targets))


def expectile_loss(
    values: Float[Tensor, "B A"], targets: Float[Tensor, "B A"], tau: float | Float[Tensor, "B A"]
) -> Float[Tensor, "B A"]:
    """An asymmetric squared error: targets above the value weigh tau, targets below it 1 - tau.

        u = target - value
        L = tau u^2         if u >= 0
            (1 - tau) u^2   if u < 0

    Implicit Q-learning, Kostrikov et al. 2021, arXiv:2110.06169, section 4.1 (|tau - 1(u < 0)| u^2). `tau` is
    one number, or one for each decision. Special cases: tau = 1/2 is half the squared error, so V tends to
    the mean of its targets; as tau goes to 1, V tends to the best of them: the value of an action that the
    data contain, where a maximum over Q would ask about actions that they do not.
    """
    u = targets - values
    # Weights of two branches and not |tau - 1(u < 0)|, which would be computed in float32.
    return torch.where(u < 0, (1 - tau) * u**2, tau * u**2)


def cql_loss(q: Float[Tensor, "*E B A V"], actions: Int[Tensor, "B A"]) -> Float[Tensor, "*E B A"]:
    """log sum_a' exp Q(a') - Q(a): the negative log-likelihood of the data with Q as logits.

    It pushes down Q of actions that the data do not contain, which no target has ever corrected.
    Conservative Q-learning, Kumar et al. 2020, arXiv:2006.04779, eq. 4 (the CQL(H) regulariser), as ILQL uses
    it per token (Snell et al. 2022, arXiv:2206.11871).
    """
    return conservative_loss(q.logsumexp(-1), action_values(q, actions))


def conservative_loss(
    soft_max: Float[Tensor, "*E B A"], q_taken: Float[Tensor, "*E B A"]
) -> Float[Tensor, "*E B A"]:
    """The same from log sum_a' exp Q(a') and Q(a), where Q of all actions never exists at once."""
    return soft_max - q_taken


def soft_values(
    q: Float[Tensor, "*N V"], logits: Float[Tensor, "*N V"], temperature: float | Float[Tensor, ""]
) -> Float[Tensor, "*N"]:
    """The value of a state for a policy that is also paid for its entropy.

        V = sum_a pi(a) (Q(a) - temperature log pi(a))                 pi is the softmax of `logits`

    Soft actor-critic with discrete actions, Christodoulou 2019, arXiv:1910.07207, eq. 10. The temperature is
    in units of return per nat. Special cases: temperature 0 is the mean of Q under pi (expected Sarsa); with
    logits Q / temperature it is temperature log sum_a exp(Q(a) / temperature), the soft maximum of Q.
    """
    logp = logits.log_softmax(-1)
    return (logp.exp() * (q - temperature * logp)).sum(-1)


def explained_variance(values: Float[Tensor, "N"], returns: Float[Tensor, "N"]) -> Float[Tensor, ""]:
    """The share of the returns' variance that the values explain, over N decisions.

        1 - Var(G - V) / Var(G)

    Special cases: 1 if V is G up to a constant; 0 if V is a constant, and if all returns are equal; below 0
    if V is worse than a constant. If G bootstraps from V, the score is too high.
    """
    variance = returns.var(correction=0)
    unexplained = (returns - values).var(correction=0)
    return torch.where(variance > 0, 1 - unexplained / variance, 0.0)
