"""How far a policy is from a reference: three estimators from samples, the exact sum, importance ratios.

Schulman 2020, "Approximating KL divergence", for actions sampled from pi and r = pi_ref(a) / pi(a):

    k1 = -log r              unbiased, and may be negative
    k2 = (log r)^2 / 2       biased, small variance
    k3 = r - 1 - log r       unbiased, never negative

In a loss the gradient of the samples' estimate matters and not its value, and there the three differ:

    k1    0 in expectation: as a loss it does nothing. It belongs in the reward, where it is right.
    k2    the gradient of KL(pi, pi_ref)
    k3    the gradient of KL(pi_ref, pi): the other way round
    k3, weighted with the ratio pi / pi_behaviour
          the gradient of KL(pi, pi_ref), also if another policy acted

This is exact for whole replies, given sums over their tokens ([B, 1]). Token by token it is exact for the
divergence at the states visited; the effect of an action on the divergence of later tokens is left out.
tests/losses/test_enumerated_gradients.py has each of these as a number.
"""

from jaxtyping import Float
from torch import Tensor

from turnwise.losses.names import KlEstimator


def estimated_kl(
    name: KlEstimator, logp: Float[Tensor, "B A"], ref_logp: Float[Tensor, "B A"]
) -> Float[Tensor, "B A"]:
    """The estimator of that name, per decision, in nats."""
    return {"k1": k1, "k2": k2, "k3": k3}[name](logp, ref_logp)


def k1(logp: Float[Tensor, "B A"], ref_logp: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """log pi - log pi_ref of the action taken, in nats. Summed over a reply it is the reply's log-ratio."""
    return logp - ref_logp


def k2(logp: Float[Tensor, "B A"], ref_logp: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """(log pi - log pi_ref)^2 / 2, in nats squared; near the reference its mean is the KL to second order."""
    return (logp - ref_logp) ** 2 / 2


def k3(logp: Float[Tensor, "B A"], ref_logp: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """pi_ref / pi - 1 - log(pi_ref / pi), in nats: k1 plus a control variate of mean 0 (r - 1)."""
    log_ratio = ref_logp - logp
    # expm1, because r - 1 loses all its digits where the policies are close, which is where training begins.
    return log_ratio.expm1() - log_ratio


def weighted_k3(
    logp: Float[Tensor, "B A"], ref_logp: Float[Tensor, "B A"], behavior_logp: Float[Tensor, "B A"]
) -> Float[Tensor, "B A"]:
    """rho k3 with rho = pi / pi_behaviour: its gradient is that of KL(pi, pi_ref), whoever acted.

    DeepSeek-AI 2025, arXiv:2512.02556, section 3.1. The mean of rho k3 over the behaviour's actions is the KL
    at the states visited, for any pi; so its gradient is the KL's. The gradient runs through rho, too: on the
    policy rho is 1, and without its gradient this would be k3.
    """
    return (logp - behavior_logp).exp() * k3(logp, ref_logp)


def exact_kl(logits: Float[Tensor, "*N V"], ref_logits: Float[Tensor, "*N V"]) -> Float[Tensor, "*N"]:
    """sum_a pi(a) (log pi(a) - log pi_ref(a)), in nats, from unnormalised logits."""
    logp, ref_logp = logits.log_softmax(-1), ref_logits.log_softmax(-1)
    return (logp.exp() * (logp - ref_logp)).sum(-1)


def truncated_ratio(
    logp: Float[Tensor, "*N"], behavior_logp: Float[Tensor, "*N"], most: float
) -> Float[Tensor, "*N"]:
    """min(pi / pi_behaviour, most): importance weights whose variance is bounded, at the price of a bias.

    Ionides 2008, "Truncated importance sampling". For an action, or for a whole reply given sums over its
    tokens. Special cases: on the policy it is 1; without a bound (infinity) the weight is unbiased.
    """
    return (logp - behavior_logp).exp().clamp(max=most)
