"""Losses of comparisons: reward models that explain them, and policies whose log-ratios do.

Per pair, ranking or reply, never reduced. P counts pairs (or rankings), E members of an ensemble. `ratio` of
a reply is h = sum_k (log pi(a_k) - log pi_ref(a_k)), in nats.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def bradley_terry_loss(
    chosen: Float[Tensor, "*E P"], rejected: Float[Tensor, "*E P"], margin: Float[Tensor, "P"] | None = None
) -> Float[Tensor, "*E P"]:
    """-log sigmoid(r_w - r_l - m): the chosen reply is to win by the margin m, in units of reward.

    Bradley & Terry 1952; margins as in Touvron et al. 2023, arXiv:2307.09288, eq. 2.
    """
    difference = chosen - rejected
    return -F.logsigmoid(difference if margin is None else difference - margin)


def bradley_terry_tie_loss(
    first: Float[Tensor, "*E P"], second: Float[Tensor, "*E P"]
) -> Float[Tensor, "*E P"]:
    """Half of the loss in each direction: the cross-entropy of a fair coin, least at equal rewards."""
    return (bradley_terry_loss(first, second) + bradley_terry_loss(second, first)) / 2


def all_tied_loss(rewards: Float[Tensor, "*E P n"]) -> Float[Tensor, "*E P"]:
    """(n - 1) times the mean of `bradley_terry_tie_loss` over the pairs of n replies: least where all are
    equal, whatever their order. Plackett-Luce read in both directions would prefer the middle ones.
    """
    i, j = torch.triu_indices(rewards.shape[-1], rewards.shape[-1], 1, device=rewards.device)
    return (rewards.shape[-1] - 1) * bradley_terry_tie_loss(rewards[..., i], rewards[..., j]).mean(-1)


def centring_loss(chosen: Float[Tensor, "*E P"], rejected: Float[Tensor, "*E P"]) -> Float[Tensor, "*E P"]:
    """(r_w + r_l)^2: comparisons leave the level of rewards open, this pulls it to 0.

    Eisenstein et al. 2023, arXiv:2312.09244, eq. 4.
    """
    return (chosen + rejected) ** 2


def plackett_luce_loss(rewards: Float[Tensor, "*E P n"], mask: Bool[Tensor, "P n"]) -> Float[Tensor, "*E P"]:
    """-sum_j log(exp r_j / sum_{i >= j} exp r_i), the best first: each place is a choice among what is left.

    Plackett 1975; two replies give the Bradley-Terry loss. `mask` is False at padding, a suffix.
    """
    masked = rewards.masked_fill(~mask, -torch.inf)
    left = masked.flip(-1).logcumsumexp(-1).flip(-1)
    return (left - rewards).masked_fill(~mask, 0.0).sum(-1)


def like_loss(rewards: Float[Tensor, "*E P"], liked: Bool[Tensor, "P"]) -> Float[Tensor, "*E P"]:
    """-log sigmoid(r) where liked, -log sigmoid(-r) where not: r is the log-odds of a like."""
    return F.softplus(torch.where(liked, -rewards, rewards))


def dpo_loss(
    chosen_ratio: Float[Tensor, "P"], rejected_ratio: Float[Tensor, "P"], beta: float
) -> Float[Tensor, "P"]:
    """-log sigmoid(beta (h_w - h_l)). Rafailov et al. 2023, arXiv:2305.18290, eq. 7."""
    return -F.logsigmoid(beta * (chosen_ratio - rejected_ratio))


def ipo_loss(
    chosen_ratio: Float[Tensor, "P"], rejected_ratio: Float[Tensor, "P"], beta: float
) -> Float[Tensor, "P"]:
    """(h_w - h_l - 1 / (2 beta))^2: the gap is to be 1 / (2 beta), not endless.

    Azar et al. 2023, arXiv:2310.12036, eq. 17, for h as sums over tokens; given means per token it is the
    length-normalised variant that TRL computes.
    """
    return (chosen_ratio - rejected_ratio - 1 / (2 * beta)) ** 2


def conservative_dpo_loss(
    chosen_ratio: Float[Tensor, "P"], rejected_ratio: Float[Tensor, "P"], beta: float, noise: float
) -> Float[Tensor, "P"]:
    """(1 - noise) L(h_w - h_l) + noise L(h_l - h_w): the target is a probability of 1 - noise, not of 1.

    Mitchell 2023, "A note on DPO with noisy preferences" (cDPO), eq. 3.
    """
    right = dpo_loss(chosen_ratio, rejected_ratio, beta)
    return (1 - noise) * right + noise * dpo_loss(rejected_ratio, chosen_ratio, beta)


def robust_dpo_loss(
    chosen_ratio: Float[Tensor, "P"], rejected_ratio: Float[Tensor, "P"], beta: float, noise: float
) -> Float[Tensor, "P"]:
    """((1 - noise) L(h_w - h_l) - noise L(h_l - h_w)) / (1 - 2 noise), noise below 1/2.

    Its mean over labels that are flipped with probability `noise` is the loss of the true ones. Chowdhury,
    Kini & Natarajan 2024, arXiv:2403.00409, eq. 10.
    """
    right = dpo_loss(chosen_ratio, rejected_ratio, beta)
    wrong = dpo_loss(rejected_ratio, chosen_ratio, beta)
    return ((1 - noise) * right - noise * wrong) / (1 - 2 * noise)


def ranking_dpo_loss(
    ratios: Float[Tensor, "P n"], mask: Bool[Tensor, "P n"], beta: float
) -> Float[Tensor, "P"]:
    """The Plackett-Luce loss with beta h as rewards, the best first. Rafailov et al. 2023, eq. 20."""
    return plackett_luce_loss(beta * ratios, mask)


def simpo_loss(
    chosen_mean_logp: Float[Tensor, "P"], rejected_mean_logp: Float[Tensor, "P"], beta: float, margin: float
) -> Float[Tensor, "P"]:
    """-log sigmoid(beta (m_w - m_l) - margin), m the mean log-probability per token: no reference.

    Meng, Xia & Chen 2024, arXiv:2405.14734, eq. 6.
    """
    return -F.logsigmoid(beta * (chosen_mean_logp - rejected_mean_logp) - margin)


def orpo_odds_loss(
    chosen_mean_logp: Float[Tensor, "P"], rejected_mean_logp: Float[Tensor, "P"]
) -> Float[Tensor, "P"]:
    """-log sigmoid(log odds(m_w) - log odds(m_l)), odds(m) = e^m / (1 - e^m).

    Hong, Lee & Thorne 2024, arXiv:2403.07691, eq. 7, with the geometric mean of the tokens' probabilities.
    """
    odds = chosen_mean_logp.expm1() / rejected_mean_logp.expm1()  # finite where the chosen reply is certain
    return ((rejected_mean_logp - chosen_mean_logp).exp() * odds).log1p()


def kto_loss(
    ratio: Float[Tensor, "B"],
    liked: Bool[Tensor, "B"],
    kl: Float[Tensor, ""],
    beta: float,
    liked_weight: float,
    disliked_weight: float,
) -> Float[Tensor, "B"]:
    """w_liked (1 - sigmoid(beta (h - kl))) where liked, else w_disliked (1 - sigmoid(beta (kl - h))).

    Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8; the caller detaches `kl`, at least 0.
    """
    gain = 1 - torch.sigmoid(beta * (ratio - kl))
    pain = 1 - torch.sigmoid(beta * (kl - ratio))
    return torch.where(liked, liked_weight * gain, disliked_weight * pain)
