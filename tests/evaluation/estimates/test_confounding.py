"""The worst case of hidden confounding: against all corners, by hand, and where it truly happens."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from turnwise.evaluation.estimates.confounding import (
    LARGEST_GAMMA,
    gamma_to_undo,
    weight_bounds,
    worst_value,
)


@pytest.mark.parametrize("seed", range(10))
def test_worst_value_against_all_corners(seed: int):
    """A fraction of linear functions over a box is least at a corner: seven conversations have 128."""
    rng = np.random.default_rng(seed)
    g = rng.integers(-2, 3, 7).astype(float)  # with ties
    low = rng.normal(size=7)
    high = low + rng.exponential(size=7)
    low[0] = -np.inf  # a weight that may be 0
    corners = (np.exp(np.where(up, high, low)) for up in itertools.product((False, True), repeat=7))
    assert worst_value(g, low, high) == pytest.approx(min(w @ g / w.sum() for w in corners), abs=1e-12)
    assert worst_value(g, low + 900, high + 900) == pytest.approx(worst_value(g, low, high), abs=1e-9)


def test_worst_value_without_freedom_is_the_weighted_mean():
    g, w = np.array([3.0, 1.0, 2.0]), np.array([1.0, 2.0, 5.0])
    assert worst_value(g, np.log(w), np.log(w)) == pytest.approx(15 / 8)
    assert math.isnan(worst_value(g, np.full(3, -np.inf), np.full(3, -np.inf)))


def test_bounds_by_hand():
    """Target .5 after .25 and 1 after 1; Gamma 2: 1/p is from 1 + 3/2 to 1 + 6, and 1 stays 1.

    So weights are from 1.25 to 3.5, around 2: a factor of 1.6 and 1.75, both below Gamma. Of two decisions
    of .25 they are the squares.
    """
    logp = np.log([[0.5, 1.0], [0.5, 0.5]])
    behavior = np.log([[0.25, 1.0], [0.25, 0.25]])
    low, high = weight_bounds(logp, behavior, np.ones((2, 2), dtype=bool), 2.0)
    assert np.exp(low) == pytest.approx([1.25, 1.25**2])
    assert np.exp(high) == pytest.approx([3.5, 3.5**2])
    masked = weight_bounds(logp, behavior, np.array([[True, False]] * 2), 2.0)
    assert np.exp(masked[1]) == pytest.approx([3.5, 3.5])


def test_bounds_stay_within_a_factor_a_decision():
    rng = np.random.default_rng(0)
    logp, behavior = (np.log(rng.uniform(0.01, 1, (50, 6))) for _ in range(2))
    mask = np.arange(6) < rng.integers(1, 7, 50)[:, None]
    w = np.where(mask, logp - behavior, 0).sum(1)
    low, high = weight_bounds(logp, behavior, mask, 1.5)
    room = mask.sum(1) * math.log(1.5)
    assert ((w - room < low) & (low < w) & (w < high) & (high < w + room)).all()
    same = weight_bounds(logp, behavior, mask, 1.0)
    assert same[0] == pytest.approx(w, abs=1e-12)
    assert same[1] == pytest.approx(w, abs=1e-12)


def test_what_undoes_a_gain_by_hand():
    """Two acts, each logged in half of 8 conversations; act 1 paid 1, act 0 paid 0, and the target takes act
    1 always. All weight is on returns of 1: no change of weights undoes that. If act 1 paid 1 three times out
    of four and act 0 once, the value is 3/4 against 1/2, and the worst one at Gamma is, with inverse
    probabilities from 1 + 1/Gamma for the three to 1 + Gamma for the one,

        3 (1 + 1/G) / (3 (1 + 1/G) + 1 + G) = 3 / (3 + G),    which is 1/2 at G = 3.
    """
    acts = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    mask = np.ones((8, 1), dtype=bool)
    behavior = np.full((8, 1), math.log(0.5))
    logp = np.where(acts == 1, 0.0, -np.inf)[:, None]
    assert gamma_to_undo(logp, behavior, mask, acts.astype(float)) == math.inf
    paid = np.array([1.0, 0, 0, 0, 0, 1, 1, 1])
    assert worst_value(paid, *weight_bounds(logp, behavior, mask, 2.0)) == pytest.approx(3 / 5)
    assert gamma_to_undo(logp, behavior, mask, paid) == pytest.approx(3, rel=1e-3)
    assert gamma_to_undo(logp, behavior, mask, 1 - paid) == 1  # nothing to undo
    assert gamma_to_undo(behavior, behavior, mask, paid) == 1  # target = behaviour
    assert gamma_to_undo(logp, behavior, mask, paid, worth=0.01) == math.inf
    assert 3 / (3 + LARGEST_GAMMA) > 0.01


def test_the_truth_is_inside_where_confounding_happens():
    """The agent saw u, a coin: it took act 1 with odds of 3 if u and 1/3 if not, and u alone pays, 1.

    The logs hold the act alone, whose nominal probability is 1/2. Act 1 was taken with u in 3 of 4 cases, so
    the naive value of "always act 1" is .75. The truth is .5, the true odds are 3 times or a third of the
    nominal ones, and at Gamma = 3 the worst value is 3 / (3 + 3) = .5: the bound is tight. 20,000
    conversations: the share of u among act 1 has the standard error sqrt(.75 x .25 / 10000) = .0043.
    """
    rng = np.random.default_rng(0)
    u = rng.random(20_000) < 0.5
    act = rng.random(20_000) < np.where(u, 0.75, 0.25)
    logp = np.where(act, 0.0, -np.inf)[:, None]
    behavior, mask = np.full((20_000, 1), math.log(0.5)), np.ones((20_000, 1), dtype=bool)
    naive = worst_value(u.astype(float), *weight_bounds(logp, behavior, mask, 1.0))
    assert naive == pytest.approx(0.75, abs=0.013)
    assert worst_value(u.astype(float), *weight_bounds(logp, behavior, mask, 3.0)) == pytest.approx(
        0.5, abs=0.02
    )
    assert gamma_to_undo(logp, behavior, mask, u.astype(float), worth=0.5) == pytest.approx(3, rel=0.08)


def test_refuses():
    x = np.zeros((1, 1))
    with pytest.raises(ValueError, match="1 or more"):
        weight_bounds(x, x, x == 0, 0.9)
