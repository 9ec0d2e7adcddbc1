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
