"""Bootstrap intervals against hand arithmetic, scipy, the normal limit and their own promise (coverage)."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from turnwise.evaluation.measures.intervals import Estimate, bootstrap_interval, mean_interval


def test_two_episodes_by_hand():
    """Means of two draws from {0, 1}: 0, 1/2, 1 with probability 1/4, 1/2, 1/4.

    So the 2.5% and 97.5% quantiles are 0 and 1, and the 30% and 70% quantiles are both 1/2. The ends are
    moved away from 1/2 by sqrt(2) t / z, and with one degree of freedom t is tan(0.475 pi) = 12.706.
    """
    rng = np.random.default_rng(0)
    away = 0.5 * np.sqrt(2) * np.tan(0.475 * np.pi) / 1.959964
    assert bootstrap_interval([0.0, 1.0], rng=rng) == pytest.approx((0.5 - away, 0.5 + away), rel=1e-6)
    assert bootstrap_interval([0.0, 1.0], confidence=0.4, rng=rng) == (0.5, 0.5)


def test_equal_values_leave_no_doubt():
    assert bootstrap_interval([0.25] * 7, rng=np.random.default_rng(0)) == (0.25, 0.25)


def test_agrees_with_scipy():
    """Same estimator, other random numbers: the ends differ by Monte Carlo error only.

    With 20,000 resamples of means of deviation s, a 2.5% quantile has the standard error
    s sqrt(.025 * .975 / 20000) / .0584 = .019 s (.0584 is the normal density at 1.96), a difference of two
    .027 s; the tolerance of .1 s is 3.7 of those.
    """
    x = np.random.default_rng(1).exponential(size=300)
    ours = bootstrap_interval(x, resamples=20_000, confidence=0.95, rng=np.random.default_rng(2))
    theirs = stats.bootstrap(
        (x,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(3)
    ).confidence_interval
    tolerance = 0.1 * x.std() / np.sqrt(x.size)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=tolerance)


def test_normal_limit():
    """For many episodes the interval is mean -+ 1.96 s / sqrt(n), here to 10% of its half width."""
    x = np.random.default_rng(4).normal(0.3, 2.0, size=4000)
    half = 1.959964 * x.std() / np.sqrt(x.size)
    low, high = bootstrap_interval(x, rng=np.random.default_rng(5))
    assert low == pytest.approx(x.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(x.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize("n", [3, 5, 10, 40])
def test_few_values_are_covered_too(n: int):
    """Of normal values the interval holds the true mean 95% of the time, to 3 standard errors of 1,000 tries
    and 2% for what the bootstrap misses; without widening it is 71%, 83%, 89% and 93%.
    """
    rng = np.random.default_rng(8)
    held = []
    for x in rng.normal(size=(1000, n)):
        low, high = bootstrap_interval(x, resamples=200, rng=rng)
        held.append(low <= 0 <= high)
    assert abs(np.mean(held) - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 1000) + 0.02


def test_shift_and_scale():
    """The interval of a x + b is a times the interval of x, plus b, with the same random numbers."""
    x = np.random.default_rng(6).normal(size=50)
    low, high = bootstrap_interval(x, rng=np.random.default_rng(7))
    moved = bootstrap_interval(3 * x - 2, rng=np.random.default_rng(7))
    assert moved == pytest.approx((3 * low - 2, 3 * high - 2), abs=1e-12)


def test_covers_the_truth_as_often_as_it_says():
    """600 sets of 80 episodes with return 0.9 (probability .6) or -1.1, whose mean is .54 - .44 = 0.1.

    The share of 90% intervals that hold it has a standard error of sqrt(.9 * .1 / 600) = .012, and the
    percentile bootstrap of 80 episodes falls short by about .01: .85 to .94 is three of them either way.
    """
    rng = np.random.default_rng(8)
    truth = 0.6 * 0.9 - 0.4 * 1.1
    hits = 0
    for _ in range(600):
        x = np.where(rng.random(80) < 0.6, 0.9, -1.1)
        low, high = bootstrap_interval(x, confidence=0.9, resamples=400, rng=rng)
        hits += low <= truth <= high
    assert 0.85 < hits / 600 < 0.94


def test_memory_is_bounded():
    """20,000 episodes, 500 resamples are 80 MB of indices if drawn at once; 40 MB is the limit here."""
    x = np.random.default_rng(9).normal(size=20_000)
    tracemalloc.start()
    try:
        bootstrap_interval(x, resamples=500, rng=np.random.default_rng(10))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6


def test_mean_interval_reports_what_it_averaged():
    """(1 + 2 + 6) / 3 = 3 over 3 episodes, the ends from the same draws as `bootstrap_interval`."""
    ends = bootstrap_interval([1, 2, 6], rng=np.random.default_rng(11))
    got = mean_interval([1, 2, 6], rng=np.random.default_rng(11))
    assert got == Estimate(mean=3.0, low=ends[0], high=ends[1], n=3)
    assert ends[0] < 3 < ends[1]


@pytest.mark.parametrize(
    ("values", "options", "says"),
    [
        ([], {}, "at least two"),
        ([1.0], {}, "at least two"),
        ([[1.0, 2.0]], {}, "one dimension"),
        ([1.0, float("nan"), float("inf")], {}, "2 of 3"),
        ([1.0, 2.0], {"confidence": 1.0}, "confidence is 1.0"),
        ([1.0, 2.0], {"resamples": 0}, "resamples is 0"),
    ],
)
def test_refuses_what_has_no_interval(values, options, says):
    with pytest.raises(ValueError, match=says):
        bootstrap_interval(values, rng=np.random.default_rng(0), **options)
