"""Losses of comparisons: by hand, where they are least, what labels and padding do to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from turnwise.losses.preference import (
    bradley_terry_loss,
    bradley_terry_tie_loss,
    centring_loss,
    conservative_dpo_loss,
    dpo_loss,
    ipo_loss,
    kto_loss,
    like_loss,
    orpo_odds_loss,
    plackett_luce_loss,
    ranking_dpo_loss,
    robust_dpo_loss,
    simpo_loss,
)

f64 = torch.float64


def t(*x: float) -> Tensor:
    return torch.tensor(x, dtype=f64)


def leaf(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.tensor(rng.normal(size=shape), requires_grad=True)


def gradient(f: Callable[[Tensor], Tensor], *x: float) -> Tensor:
    """Of the sum, at these values."""
    at = t(*x).requires_grad_()
    return torch.autograd.grad(f(at).sum(), at)[0]


def test_bradley_terry_by_hand() -> None:
    """exp(r_w - r_l) = 3 wins with 3/4; less a margin of log 3 with 1/2; two members of an ensemble."""
    chosen, rejected = torch.tensor([[3.0], [1.0]], dtype=f64).log(), torch.ones(2, 1, dtype=f64).log()
    assert_close(bradley_terry_loss(chosen, rejected), torch.tensor([[4 / 3], [2.0]], dtype=f64).log())
    margin = t(math.log(3))
    assert_close(bradley_terry_loss(chosen, rejected, margin), torch.tensor([[2.0], [4.0]], dtype=f64).log())


def test_bradley_terry_knows_differences_alone_and_centring_the_level() -> None:
    """(2, -1) and (102, 99) are one comparison; (r_w + r_l)^2 is 1 and 201^2, and pulls both by 2 (sum)."""
    assert_close(bradley_terry_loss(t(2.0), t(-1.0)), bradley_terry_loss(t(102.0), t(99.0)))
    assert centring_loss(t(2.0, 102.0), t(-1.0, 99.0)).tolist() == [1.0, 40401.0]
    assert gradient(lambda x: centring_loss(x[:1], x[1:]), 2.0, -1.0).tolist() == [2.0, 2.0]


def test_a_tie_is_a_fair_coin() -> None:
    """Least, log 2, at equal rewards; at a difference d it is log 2 cosh(d / 2), the same both ways."""
    d = t(0.0, 0.7, -3.0)
    zero = torch.zeros_like(d)
    assert_close(bradley_terry_tie_loss(d, zero), (2 * (d / 2).cosh()).log())
    assert_close(bradley_terry_tie_loss(zero, d), bradley_terry_tie_loss(d, zero))


def test_rankings_of_two_are_comparisons(rng: np.random.Generator) -> None:
    rewards = leaf(rng, 3, 4, 2)
    found = plackett_luce_loss(rewards, torch.ones(4, 2, dtype=torch.bool))
    assert_close(found, bradley_terry_loss(rewards[..., 0], rewards[..., 1]))


def test_probabilities_of_all_rankings_sum_to_one(rng: np.random.Generator) -> None:
    """24 orders of four replies."""
    rewards = torch.tensor(rng.normal(size=4))
    orders = torch.stack([rewards[list(order)] for order in permutations(range(4))])
    found = plackett_luce_loss(orders, torch.ones(24, 4, dtype=torch.bool))
    assert_close((-found).exp().sum(), torch.tensor(1.0, dtype=f64))


def slow_ranking(rewards: list[float]) -> float:
    """Choose the best of what is left, again and again."""
    return -sum(math.log(math.exp(r) / sum(map(math.exp, rewards[j:]))) for j, r in enumerate(rewards))


def test_rankings_of_unlike_lengths(rng: np.random.Generator) -> None:
    """Each as its slow twin has it; what pads them has no gradient, and its value does not matter."""
    lengths, rewards = [4, 2, 3, 1], leaf(rng, 4, 4)
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    found = plackett_luce_loss(rewards, mask)
    slow = [slow_ranking(r[:n]) for r, n in zip(rewards.tolist(), lengths, strict=True)]
    assert_close(found, t(*slow))
    assert found[3] == 0
    grad = torch.autograd.grad(found.sum(), rewards)[0]
    assert torch.isfinite(grad).all() and not grad[~mask].any()
    other = torch.where(mask, rewards.detach(), 1e6)
    assert_close(plackett_luce_loss(other, mask), found.detach())
    assert torch.autograd.gradcheck(lambda x: plackett_luce_loss(x, mask), (rewards,))


def test_likes_are_a_coin_whose_odds_are_the_reward(rng: np.random.Generator) -> None:
    rewards, liked = torch.tensor(rng.normal(size=(2, 5))), torch.tensor([True, False, True, True, False])
    expected = F.binary_cross_entropy_with_logits(rewards, liked.to(f64).expand(2, 5), reduction="none")
    assert_close(like_loss(rewards, liked), expected)


def test_dpo_by_hand() -> None:
    """beta (h_w - h_l) = .5 (log 9 - 0) = log 3: the chosen reply wins with 3/4, loss log 4/3."""
    assert_close(dpo_loss(t(math.log(9)), t(0.0), 0.5), t(math.log(4 / 3)))


def test_dpo_at_the_reference_pushes_both_with_half_of_beta() -> None:
    """sigmoid(0) = 1/2."""
    assert_close(gradient(lambda x: dpo_loss(x[:1], x[1:], 0.1), 0.0, 0.0), t(-0.05, 0.05))


def test_dpo_is_bradley_terry_with_implicit_rewards(rng: np.random.Generator) -> None:
    w, l = leaf(rng, 6), leaf(rng, 6)
    assert_close(dpo_loss(w, l, 0.3), bradley_terry_loss(0.3 * w, 0.3 * l))
    known = torch.ones(6, 2, dtype=torch.bool)
    assert_close(ranking_dpo_loss(torch.stack([w, l], -1), known, 0.3), dpo_loss(w, l, 0.3))


def test_ipo_wants_a_gap_and_no_more() -> None:
    """beta = .25: a gap of 2. At 2 nothing pulls, at 5 the loss is 9 and pulls back."""
    assert ipo_loss(t(3.0, 5.0, 0.0), t(1.0, 0.0, 0.0), 0.25).tolist() == [0.0, 9.0, 4.0]
    assert gradient(lambda x: ipo_loss(x[:1], x[1:], 0.25), 5.0, 0.0).tolist() == [6.0, -6.0]


def test_noisy_labels(rng: np.random.Generator) -> None:
    """Conservative: least where the chosen one wins with 1 - noise. Robust: unbiased under flips."""
    w, l, beta, noise = leaf(rng, 5), leaf(rng, 5), 0.4, 0.2
    gap = math.log((1 - noise) / noise) / beta
    at_least = gradient(lambda x: conservative_dpo_loss(x[:1], x[1:], beta, noise), gap, 0.0)
    assert_close(at_least, t(0.0, 0.0), rtol=0, atol=1e-15)
    assert_close(conservative_dpo_loss(t(gap), t(0.0), beta, noise), t(-0.2 * math.log(0.2 * 0.8**4)))
    flipped = robust_dpo_loss(l, w, beta, noise)
    assert_close((1 - noise) * robust_dpo_loss(w, l, beta, noise) + noise * flipped, dpo_loss(w, l, beta))
    for loss in (conservative_dpo_loss, robust_dpo_loss):
        assert_close(loss(w, l, beta, 0.0), dpo_loss(w, l, beta))


def test_simpo_by_hand() -> None:
    """2 (m_w - m_l) - margin = 2 (-1 + 2) - (2 - log 3) = log 3."""
    assert_close(simpo_loss(t(-1.0), t(-2.0), 2.0, 2 - math.log(3)), t(math.log(4 / 3)))


def test_orpo_by_hand() -> None:
    """Probabilities 3/4 and 1/2 are odds of 3 and 1: 3 against 1 wins with 3/4. dL/dm_w = -(1/4) / (1/4)."""
    at = [math.log(3 / 4), math.log(1 / 2)]
    assert_close(orpo_odds_loss(t(at[0]), t(at[1])), t(math.log(4 / 3)))
    assert_close(gradient(lambda x: orpo_odds_loss(x[:1], x[1:]), *at), t(-1.0, 0.5))


def test_orpo_of_a_reply_that_is_certain_is_finite() -> None:
    """p_w = 1 in floating point: loss 0, a gradient of -odds_l = -1, not nan. Near it, no digit is lost."""
    half = math.log(0.5)
    assert orpo_odds_loss(t(0.0), t(half)).tolist() == [0.0]
    assert_close(gradient(lambda x: orpo_odds_loss(x[:1], x[1:]), 0.0, half), t(-1.0, 0.0))
    assert_close(orpo_odds_loss(t(-1e-12), t(half)), t(1e-12), rtol=1e-9, atol=0)


def test_kto_by_hand() -> None:
    """beta (h - kl) = .5 (log 9 - 0): sigmoid 3/4. Liked: 2 (1 - 3/4); disliked: 3 (1 - 1/4)."""
    h = t(math.log(9), math.log(9))
    found = kto_loss(h, torch.tensor([True, False]), torch.tensor(0.0, dtype=f64), 0.5, 2.0, 3.0)
    assert_close(found, t(0.5, 2.25))
    kl = torch.tensor(math.log(9), dtype=f64)
    assert_close(kto_loss(h, torch.tensor([True, False]), kl, 0.5, 1.0, 1.0), t(0.5, 0.5))


def test_kto_hardly_learns_from_what_is_far() -> None:
    """Its slope is beta s (1 - s): largest at h = kl, and gone on both sides, unlike DPO's."""
    liked, kl = torch.ones(3, dtype=torch.bool), torch.tensor(1.0, dtype=f64)
    found = gradient(lambda x: kto_loss(x, liked, kl, 1.0, 1.0, 1.0), 1.0, 41.0, -39.0)
    assert_close(found, t(-0.25, 0.0, 0.0), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "loss",
    [
        bradley_terry_loss,
        bradley_terry_tie_loss,
        centring_loss,
        lambda w, l: dpo_loss(w, l, 0.1),
        lambda w, l: ipo_loss(w, l, 0.1),
        lambda w, l: conservative_dpo_loss(w, l, 0.1, 0.2),
        lambda w, l: robust_dpo_loss(w, l, 0.1, 0.2),
        lambda w, l: simpo_loss(w, l, 2.0, 0.5),
        lambda w, l: orpo_odds_loss(-w.exp(), -l.exp()),
        lambda w, l: like_loss(w - l, torch.arange(4) > 1),
        lambda w, l: kto_loss(w - l, torch.arange(4) > 1, torch.tensor(0.3, dtype=f64), 0.1, 1.0, 2.0),
    ],
)
def test_gradients_are_those_of_differences(
    loss: Callable[[Tensor, Tensor], Tensor], rng: np.random.Generator
) -> None:
    w, l = leaf(rng, 4), leaf(rng, 4)
    assert torch.autograd.gradcheck(loss, (w, l))


@pytest.mark.parametrize("gap", [1e4, -1e4])
def test_huge_gaps_stay_finite_in_single_precision(gap: float) -> None:
    """-log sigmoid(x) is max(0, -x) there; its slope 0 or -1, never nan."""
    x = torch.tensor([gap], requires_grad=True)
    zero, liked = torch.zeros(1), torch.tensor([True])
    whole = torch.ones(1, 2, dtype=torch.bool)
    for loss in (
        bradley_terry_loss(x, zero),
        dpo_loss(x, zero, 1.0),
        like_loss(x, liked),
        plackett_luce_loss(torch.stack([x, zero], -1), whole),
    ):
        assert loss.item() == max(0.0, -gap)
        assert torch.autograd.grad(loss.sum(), x, retain_graph=True)[0].item() == (0.0 if gap > 0 else -1.0)
