"""Log-probabilities and losses of policies, per decision."""

from jaxtyping import Float, Int
from torch import Tensor


def action_logp(logits: Float[Tensor, "B A V"], actions: Int[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """log pi(a_k | s_k) of the actions taken, from unnormalised logits."""
    return logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def advantage_logits(
    policy_logp: Float[Tensor, "*N V"],
    advantages: Float[Tensor, "*N V"],
    beta: float,
    clip: float | None = None,
) -> Float[Tensor, "*N V"]:
    """log pi + min(clip, beta (Q - V)): the behaviour policy, perturbed towards better actions.

    ILQL, Snell et al. 2022, arXiv:2206.11871, section 4 (policy extraction at decoding time). `clip` = 0
    only makes worse actions rarer; None leaves the perturbation unbounded.
    """
    shift = beta * advantages
    if clip is not None:
        shift = shift.clamp(max=clip)
    return policy_logp + shift


def policy_gradient_loss(
    logp: Float[Tensor, "B A"], advantages: Float[Tensor, "B A"]
) -> Float[Tensor, "B A"]:
    """-log pi(a_k | h_k) A_k: its gradient is that of REINFORCE. The caller detaches the advantages.

    Williams 1992; Sutton & Barto (2018), eq. 13.11.
    """
    return -logp * advantages


def clipped_surrogate_loss(
    logp: Float[Tensor, "B A"],
    old_logp: Float[Tensor, "B A"],
    advantages: Float[Tensor, "B A"],
    clip: float,
    clip_high: float | None = None,
) -> Float[Tensor, "B A"]:
    """-min(rho A, clamp(rho, 1 - clip, 1 + clip_high) A), rho = pi / pi_old of the action taken.

    Proximal policy optimisation, Schulman et al. 2017, arXiv:1707.06347, eq. 7. At rho = 1 its gradient is
    that of `policy_gradient_loss`. `clip_high` is `clip` where it is not given (Yu et al. 2025,
    arXiv:2503.14476, section 3.1, let it be larger).
    """
    ratio = (logp - old_logp).exp()
    high = clip if clip_high is None else clip_high
    return -(ratio * advantages).minimum(ratio.clamp(1 - clip, 1 + high) * advantages)


def entropy(logits: Float[Tensor, "*N V"]) -> Float[Tensor, "*N"]:
    """-sum_a pi(a) log pi(a), in nats, from unnormalised logits."""
    logp = logits.log_softmax(-1)
    return -(logp.exp() * logp).sum(-1)


def soft_policy_loss(
    logits: Float[Tensor, "*N V"], q: Float[Tensor, "*N V"], temperature: float | Float[Tensor, ""]
) -> Float[Tensor, "*N"]:
    """sum_a pi(a) (temperature log pi(a) - Q(a)), least where pi is the softmax of Q / temperature.

    Soft actor-critic with discrete actions, Christodoulou 2019, arXiv:1910.07207, eq. 12: the expectation
    over actions is taken, not sampled.
    """
    logp = logits.log_softmax(-1)
    return (logp.exp() * (temperature * logp - q)).sum(-1)
