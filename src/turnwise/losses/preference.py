"""Losses of preferences: for reward models, and for policies that are trained on them without one.

One number for each pair, ranking or reply, never reduced. P counts pairs (or rankings), E members of an
ensemble, n the replies of a ranking. A subscript w marks the chosen reply of a pair, l the rejected one.

A `ratio` is the log-ratio of a reply, h = sum_k (log pi(a_k) - log pi_ref(a_k)), in nats. DPO and its like
read beta h as the reward that the policy implies, so a formula of reward models becomes one of policies by
writing beta h for r: `dpo_loss` is `bradley_terry_loss`, `ranking_dpo_loss` is `plackett_luce_loss`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def bradley_terry_loss(
    chosen: Float[Tensor, "*E P"], rejected: Float[Tensor, "*E P"], margin: Float[Tensor, "P"] | None = None
) -> Float[Tensor, "*E P"]:
    """-log sigmoid(r_w - r_l - m): the chosen reply is to win by the margin m, in units of reward.

    Bradley & Terry 1952; margins as in Touvron et al. 2023, arXiv:2307.09288, eq. 2. Without a margin it is
    the negative log-likelihood of the choice, log 2 at equal rewards.
    """
    difference = chosen - rejected
    return -F.logsigmoid(difference if margin is None else difference - margin)


def bradley_terry_tie_loss(
    first: Float[Tensor, "*E P"], second: Float[Tensor, "*E P"]
) -> Float[Tensor, "*E P"]:
    """The loss of a tie: half of `bradley_terry_loss` in each direction, least at equal rewards.

    It is the cross-entropy between a fair coin and the model's choice.
    """
    return (bradley_terry_loss(first, second) + bradley_terry_loss(second, first)) / 2


def all_tied_loss(rewards: Float[Tensor, "*E P n"]) -> Float[Tensor, "*E P"]:
    """The loss of n replies that are all tied: n - 1 times the mean tie loss over their pairs.

    It is least if all rewards are equal, and does not depend on the order of the replies. (Plackett-Luce read
    in both directions would prefer the middle ones.) n = 2 is `bradley_terry_tie_loss`. The factor n - 1
    gives it the weight of a ranking of n, which makes n - 1 choices.
    """
    i, j = torch.triu_indices(rewards.shape[-1], rewards.shape[-1], 1, device=rewards.device)
    return (rewards.shape[-1] - 1) * bradley_terry_tie_loss(rewards[..., i], rewards[..., j]).mean(-1)


def centring_loss(chosen: Float[Tensor, "*E P"], rejected: Float[Tensor, "*E P"]) -> Float[Tensor, "*E P"]:
    """(r_w + r_l)^2: it pulls the level of rewards, which comparisons leave open, towards 0.

    Eisenstein et al. 2023, arXiv:2312.09244, eq. 4.
    """
    return (chosen + rejected) ** 2


def plackett_luce_loss(rewards: Float[Tensor, "*E P n"], mask: Bool[Tensor, "P n"]) -> Float[Tensor, "*E P"]:
    """The negative log-likelihood of a ranking, the best first: each place is a choice among what is left.

        L = -log(exp r_1 / (exp r_1 + exp r_2 + ... + exp r_n))
            -log(exp r_2 / (exp r_2 + ... + exp r_n)) - ...

    Plackett 1975. Special case: two replies give `bradley_terry_loss`. `mask` is False at padding, a suffix.
    """
    masked = rewards.masked_fill(~mask, -torch.inf)
    left = masked.flip(-1).logcumsumexp(-1).flip(-1)  # [*E, P, n], log of what each place is chosen from
    return (left - rewards).masked_fill(~mask, 0.0).sum(-1)


def like_loss(rewards: Float[Tensor, "*E P"], liked: Bool[Tensor, "P"]) -> Float[Tensor, "*E P"]:
    """-log sigmoid(r) if liked, -log sigmoid(-r) if not: the reward is read as the log-odds of a like.

    It is `bradley_terry_loss` against a reply of reward 0, so unlike comparisons it fixes the level of
    rewards.
    """
    return F.softplus(torch.where(liked, -rewards, rewards))


def dpo_loss(
    chosen_ratio: Float[Tensor, "P"], rejected_ratio: Float[Tensor, "P"], beta: float
) -> Float[Tensor, "P"]:
    """-log sigmoid(beta (h_w - h_l)): a classifier of pairs whose logit is the gap of the log-ratios.

    Rafailov et al. 2023, arXiv:2305.18290, eq. 7. `beta` is in units of implicit reward per nat. At
    pi = pi_ref it is log 2, and its gradient is that of -beta / 2 (log pi_w - log pi_l).
    """
    return -F.logsigmoid(beta * (chosen_ratio - rejected_ratio))


def ipo_loss(
    chosen_ratio: Float[Tensor, "P"], rejected_ratio: Float[Tensor, "P"], beta: float
) -> Float[Tensor, "P"]:
    """(h_w - h_l - 1 / (2 beta))^2: the gap is to be 1 / (2 beta) nats, where DPO's has no end.

    Azar et al. 2023, arXiv:2310.12036, eq. 17, if h are sums over tokens. Special case: given means per token
    it is the length-normalised variant that TRL computes.
    """
    return (chosen_ratio - rejected_ratio - 1 / (2 * beta)) ** 2


def conservative_dpo_loss(
    chosen_ratio: Float[Tensor, "P"], rejected_ratio: Float[Tensor, "P"], beta: float, noise: float
) -> Float[Tensor, "P"]:
    """(1 - noise) L(h_w - h_l) + noise L(h_l - h_w), with L of `dpo_loss`: label smoothing.

    Mitchell 2023, "A note on DPO with noisy preferences" (cDPO), eq. 3. The gap comes to rest where the model
    gives the label the probability 1 - noise. Special cases: noise 0 is DPO, noise 1/2 a tie.
    """
    right = dpo_loss(chosen_ratio, rejected_ratio, beta)
    return (1 - noise) * right + noise * dpo_loss(rejected_ratio, chosen_ratio, beta)


def robust_dpo_loss(
    chosen_ratio: Float[Tensor, "P"], rejected_ratio: Float[Tensor, "P"], beta: float, noise: float
) -> Float[Tensor, "P"]:
    """((1 - noise) L(h_w - h_l) - noise L(h_l - h_w)) / (1 - 2 noise), with L of `dpo_loss`, noise below 1/2.

    Chowdhury, Kini & Natarajan 2024, arXiv:2403.00409, eq. 10. If labels are flipped with probability
    `noise`, its mean over the flips is DPO's loss of the true labels: unbiased, where label smoothing is not.
    Special case: noise 0 is DPO.
    """
    right = dpo_loss(chosen_ratio, rejected_ratio, beta)
    wrong = dpo_loss(rejected_ratio, chosen_ratio, beta)
    return ((1 - noise) * right - noise * wrong) / (1 - 2 * noise)


def ranking_dpo_loss(
    ratios: Float[Tensor, "P n"], mask: Bool[Tensor, "P n"], beta: float
) -> Float[Tensor, "P"]:
    """`plackett_luce_loss` with beta h as rewards, the best first. Rafailov et al. 2023, eq. 20.

    Special case: two replies give `dpo_loss`.
    """
    return plackett_luce_loss(beta * ratios, mask)


def simpo_loss(
    chosen_mean_logp: Float[Tensor, "P"], rejected_mean_logp: Float[Tensor, "P"], beta: float, margin: float
) -> Float[Tensor, "P"]:
    """-log sigmoid(beta (m_w - m_l) - margin), with m the mean log-probability per token: no reference.

    Meng, Xia & Chen 2024, arXiv:2405.14734, eq. 6. It is `bradley_terry_loss` of beta m.
    """
    return -F.logsigmoid(beta * (chosen_mean_logp - rejected_mean_logp) - margin)


def orpo_odds_loss(
    chosen_mean_logp: Float[Tensor, "P"], rejected_mean_logp: Float[Tensor, "P"]
) -> Float[Tensor, "P"]:
    """-log sigmoid(log odds(m_w) - log odds(m_l)), with odds(m) = e^m / (1 - e^m).

    Hong, Lee & Thorne 2024, arXiv:2403.07691, eq. 7; e^m is the geometric mean of the tokens' probabilities.
    """
    # As log(1 + odds_l / odds_w), so that a chosen reply of probability 1 (odds without end) costs 0.
    odds = chosen_mean_logp.expm1() / rejected_mean_logp.expm1()
    return ((rejected_mean_logp - chosen_mean_logp).exp() * odds).log1p()


def kto_loss(
    ratio: Float[Tensor, "B"],
    liked: Bool[Tensor, "B"],
    kl: Float[Tensor, ""],
    beta: float,
    liked_weight: float,
    disliked_weight: float,
) -> Float[Tensor, "B"]:
    """The loss of one reply that somebody liked or disliked, relative to how far the policy is anyway.

        L = liked_weight    (1 - sigmoid(beta (h - kl)))     if liked
            disliked_weight (1 - sigmoid(beta (kl - h)))     if not

    Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8. `kl`, their z_0, is at least 0 and detached by the
    caller: it is the point that gains and losses are measured from, not something to be moved. It saturates:
    a reply far on either side has hardly a gradient, where DPO's grows towards -beta.
    """
    gain = 1 - torch.sigmoid(beta * (ratio - kl))
    pain = 1 - torch.sigmoid(beta * (kl - ratio))
    return torch.where(liked, liked_weight * gain, disliked_weight * pain)
