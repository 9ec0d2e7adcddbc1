"""How far a policy is from a reference: three estimators from samples, the exact sum, importance ratios.

Schulman 2020, "Approximating KL divergence", for actions sampled from pi and r = pi_ref(a) / pi(a):

    k1 = -log r              unbiased, and may be negative
    k2 = (log r)^2 / 2       biased, small variance
    k3 = r - 1 - log r       unbiased, never negative

In a loss on samples the gradient matters and not the value. That of k1 is 0 in expectation: k1 belongs in the
reward. That of k2 is the gradient of KL(pi, pi_ref), that of k3 the gradient of KL(pi_ref, pi), the other
way round. Both hold of whole replies, given sums over tokens ([B, 1]); token by token they hold of the
divergence at the states visited, and what an action does to the divergence of later tokens is left out.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

KlEstimator = Literal["k1", "k2", "k3"]
"""estimators of the KL from samples, by name"""


def estimated_kl(
    name: KlEstimator, logp: Float[Tensor, "B A"], ref_logp: Float[Tensor, "B A"]
) -> Float[Tensor, "B A"]:
    """The estimator of that name, per token."""
    return {"k1": k1, "k2": k2, "k3": k3}[name](logp, ref_logp)


def k1(logp: Float[Tensor, "B A"], ref_logp: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """log pi - log pi_ref of the action taken, nats."""
    return logp - ref_logp


def k2(logp: Float[Tensor, "B A"], ref_logp: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """(log pi - log pi_ref)^2 / 2."""
    return (logp - ref_logp) ** 2 / 2


def k3(logp: Float[Tensor, "B A"], ref_logp: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """pi_ref / pi - 1 - log(pi_ref / pi)."""
    shift = ref_logp - logp
    return shift.expm1() - shift


def weighted_k3(
    logp: Float[Tensor, "B A"], ref_logp: Float[Tensor, "B A"], behavior_logp: Float[Tensor, "B A"]
) -> Float[Tensor, "B A"]:
    """rho k3, rho = pi / pi_behaviour with its gradient: that of KL(pi, pi_ref), on the policy and off it.

    DeepSeek-AI 2025, arXiv:2512.02556, section 3.1. E_behaviour[rho k3] is the KL at the states visited, so
    its gradient is the KL's, where k3 alone has that of KL(pi_ref, pi) and is right at rho = 1 in value only.
    """
    return (logp - behavior_logp).exp() * k3(logp, ref_logp)


def exact_kl(logits: Float[Tensor, "*N V"], ref_logits: Float[Tensor, "*N V"]) -> Float[Tensor, "*N"]:
    """sum_a pi(a) (log pi(a) - log pi_ref(a)), from unnormalised logits."""
    logp, ref_logp = logits.log_softmax(-1), ref_logits.log_softmax(-1)
    return (logp.exp() * (logp - ref_logp)).sum(-1)


def truncated_ratio(
    logp: Float[Tensor, "*N"], behavior_logp: Float[Tensor, "*N"], most: float
) -> Float[Tensor, "*N"]:
    """min(pi / pi_behaviour, most): importance weights whose variance is bounded, at the price of a bias.

    Ionides 2008; of an action, or of a reply given sums over its tokens.
    """
    return (logp - behavior_logp).exp().clamp(max=most)
