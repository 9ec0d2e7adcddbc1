"""Log-probabilities and losses of policies, one number for each decision."""

from jaxtyping import Float, Int
from torch import Tensor


def action_logp(logits: Float[Tensor, "B A V"], actions: Int[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """log pi(a_k | h_k) of the actions taken, in nats, from unnormalised logits."""
    # The same as log_softmax and then gather, without a second tensor of the size of the logits.
    return logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def advantage_logits(
    policy_logp: Float[Tensor, "*N V"],
    advantages: Float[Tensor, "*N V"],
    beta: float,
    clip: float | None = None,
) -> Float[Tensor, "*N V"]:
    """Logits of the behaviour policy, perturbed towards better actions.

        log pi(a) + min(clip, beta (Q(a) - V))

    ILQL, Snell et al. 2022, arXiv:2206.11871, section 4 (policy extraction at decoding time). `beta` is in
    nats per unit of the advantages. Special cases: beta 0 is the behaviour policy; without a clip the softmax
    of the result maximises E[Q] - KL(. || pi) / beta; clip 0 only makes worse actions rarer.
    """
    gain = beta * advantages  # nats
    if clip is not None:
        gain = gain.clamp(max=clip)
    return policy_logp + gain


def advantage_weights(
    advantages: Float[Tensor, "*N"], beta: float, most: float = float("inf")
) -> Float[Tensor, "*N"]:
    """min(exp(beta A), most): how much each action of a log counts where better ones are to be cloned.

    Peng et al. 2019, arXiv:1910.00177, eq. 8, and Kostrikov et al. 2021, arXiv:2110.06169, eq. 7: the policy
    that minimises the expected -exp(beta A(s, a)) log pi(a | s) over actions of pi_b is

        pi(a | s) = pi_b(a | s) exp(beta A(s, a)) / Z(s),

    the one that `advantage_logits` forms where it acts. `beta` is in nats per unit of the advantages. Special
    cases: beta 0 is 1, behaviour cloning; what depends on the state alone moves no minimiser, but says how
    much a state counts. `most` is both papers' guard against few actions that outweigh all others.
    """
    return (beta * advantages).exp().clamp(max=most)


def policy_gradient_loss(
    logp: Float[Tensor, "B A"], advantages: Float[Tensor, "B A"]
) -> Float[Tensor, "B A"]:
    """-A_k log pi(a_k | h_k), whose gradient is the policy gradient. The caller detaches the advantages.

    Special cases: A = G, the return, is REINFORCE (Williams 1992); A = G - b(h) has a baseline (Sutton &
    Barto 2018, eq. 13.11); A = r + d V(h') - V(h) is the one-step actor-critic (eq. 13.12); A = 1 is the
    negative log-likelihood of behaviour cloning. Its value means nothing: at other parameters it is not the
    return.
    """
    return -logp * advantages


def clipped_surrogate_loss(
    logp: Float[Tensor, "B A"],
    old_logp: Float[Tensor, "B A"],
    advantages: Float[Tensor, "B A"],
    clip: float,
    clip_high: float | None = None,
) -> Float[Tensor, "B A"]:
    """PPO's loss: a better action gains nothing from becoming still likelier once it is likely enough.

        rho = pi(a_k) / pi_old(a_k)
        L   = -min(rho A, clamp(rho, 1 - clip, 1 + clip_high) A)
            = -A min(rho, 1 + clip_high)    if A >= 0
              -A max(rho, 1 - clip)         if A < 0

    Schulman et al. 2017, arXiv:1707.06347, eq. 7. Special cases: at rho = 1 the gradient is that of
    `policy_gradient_loss`; with an endless clip it is the importance-weighted policy gradient. If `clip_high`
    is not given it is `clip` (Yu et al. 2025, arXiv:2503.14476, section 3.1, let it be larger, so that rare
    tokens can become frequent). The caller detaches `old_logp` and the advantages.
    """
    ratio = (logp - old_logp).exp()
    high = clip if clip_high is None else clip_high
    # The minimum keeps the way back open: an action that went too far in the wrong direction has a gradient.
    return -(ratio * advantages).minimum(ratio.clamp(1 - clip, 1 + high) * advantages)


def entropy(logits: Float[Tensor, "*N V"]) -> Float[Tensor, "*N"]:
    """-sum_a pi(a) log pi(a), in nats, from unnormalised logits.

    It is log V if all actions are equally likely and 0 if one is certain.
    """
    logp = logits.log_softmax(-1)
    return -(logp.exp() * logp).sum(-1)


def soft_policy_loss(
    logits: Float[Tensor, "*N V"], q: Float[Tensor, "*N V"], temperature: float | Float[Tensor, ""]
) -> Float[Tensor, "*N"]:
    """The expected cost of acting, less what entropy is worth; least if pi is the softmax of Q / temperature.

        L = sum_a pi(a) (temperature log pi(a) - Q(a))

    Soft actor-critic with discrete actions, Christodoulou 2019, arXiv:1910.07207, eq. 12. The expectation
    over actions is taken and not sampled, so no log-probability trick is needed. It is minus `soft_values`,
    with the gradient going to the policy alone: the caller detaches Q and the temperature.
    """
    logp = logits.log_softmax(-1)
    return (logp.exp() * (temperature * logp - q)).sum(-1)
