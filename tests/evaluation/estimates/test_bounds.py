"""Empirical-Bernstein bounds by hand, and how often they hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from turnwise.evaluation.estimates.bounds import bernstein_bound, cautious_value


def test_by_hand():
    """Of 0, 1, 0, 1 in [0, 2]: mean 1/2, variance 1/3, n = 4; ln(2/.05) = 3.6889.

    .5 - sqrt(2 x 3.6889 / 12) - 7 x 2 x 3.6889 / 9 = .5 - .7841 - 5.7383.
    """
    found = bernstein_bound(np.array([0.0, 1.0, 0.0, 1.0]), (0.0, 2.0))
    assert found == pytest.approx(-6.0224, abs=1e-4)


def test_units():
    """Of a x + b it is a times that of x, plus b."""
    x = np.random.default_rng(0).uniform(size=50)
    assert bernstein_bound(3 * x - 2, (-2.0, 1.0)) == pytest.approx(3 * bernstein_bound(x, (0, 1)) - 2)


def test_clusters_of_equals_are_single_parts():
    x = np.random.default_rng(0).uniform(size=40)
    twice = bernstein_bound(np.repeat(x, 3), (0, 1), clusters=np.repeat(np.arange(40), 3))
    assert twice == pytest.approx(bernstein_bound(x, (0, 1)), abs=1e-12)
    assert bernstein_bound(x, (0, 1), clusters=np.zeros(40)) == -math.inf


def test_rejects_what_it_was_not_told():
    with pytest.raises(ValueError, match="within"):
        bernstein_bound(np.array([0.0, 1.2]), (0, 1))
    with pytest.raises(ValueError, match="expected them within"):
        cautious_value(np.ones(3), np.array([0.0, 1.0, 2.0]), (0, 1))


def test_cautious_value_is_its_definition():
    """Slow twin: ten weights, so caps 1, 2, 4, 8, each with a quarter of the doubt."""
    rng = np.random.default_rng(1)
    w, g = rng.exponential(size=10), rng.uniform(-1, 1, size=10)
    bounds = [
        -1 + bernstein_bound(np.minimum(w, c) * (g + 1), (0, 2 * c), confidence=1 - 0.05 / 4)
        for c in (1, 2, 4, 8)
    ]
    assert cautious_value(w, g, (-1, 1)) == pytest.approx(max(-1.0, *bounds), abs=1e-12)


def test_weights_of_one_lose_only_the_doubt():
    """Target = behaviour: of 20,000 returns 0 or 1 the bound is within .03 of their mean.

    14 caps turn ln(2/.05) into ln(28/.05) = 6.33: sqrt(2 x .25 x 6.33 / 20000) = .0126, and
    7 x 6.33 / 60000 = .0007.
    """
    g = np.repeat([0.0, 1.0], 10_000)
    w = np.ones(20_000)
    assert cautious_value(w, g, (0, 1)) == pytest.approx(0.5 - 0.0126 - 0.0007, abs=2e-4)


@pytest.mark.parametrize("reach", [1.0, 2.0])
def test_holds_though_weights_have_long_tails(reach: float):
    """A normal act z of mean `reach` under the target and 0 in the logs; success if z plus noise is positive.

    At least 95% of 200 bounds must hold: an exact bound would miss 10 times, and 19 misses are three standard
    errors (3.1) more. Where the step is short the bound also says something: it is above 0.3 on average
    (the truth is .76).
    """
    from scipy.stats import norm

    rng = np.random.default_rng(2)
    truth = norm.cdf(reach / math.sqrt(2))
    found = []
    for _ in range(200):
        z = rng.normal(size=2000)
        g = (z + rng.normal(size=2000) > 0).astype(float)
        found.append(cautious_value(np.exp(reach * z - reach**2 / 2), g, (0, 1)))
    assert np.mean(np.array(found) > truth) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    if reach == 1:
        assert np.mean(found) > 0.3


def test_holds_though_acts_were_never_logged():
    """The logs hold one of two acts, both worth 1; the target takes it in half of all cases. Truth 1."""
    found = cautious_value(np.full(1000, 0.5), np.ones(1000), (0, 1))
    assert 0.4 < found <= 0.5
