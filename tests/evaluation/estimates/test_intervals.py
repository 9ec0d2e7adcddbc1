"""Studentised intervals against slow twins and their own promise: how often the truth is inside.

Shares of simulated sets that miss have the standard error sqrt(p (1 - p) / sets); margins are three of those,
and what the method itself misses at the given number of conversations is named where it is added.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from turnwise.evaluation.estimates.intervals import choose, jointly, studentised_intervals
from turnwise.evaluation.estimates.pointwise import Pointwise, of_means

SETS = 300
MARGIN = 3 * math.sqrt(0.05 * 0.95 / SETS)  # .038


def quotients(x: np.ndarray, y: np.ndarray) -> list[Pointwise]:
    """sum x / sum y of each column [B, M]: means, if y is 1; weighted means of g, if y = w and x = w g."""

    def function(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"):
            values = means[:, 0] / means[:, 1]
            return values, np.stack([1 / means[:, 1], -values / means[:, 1]], axis=1)

    x, y = np.broadcast_arrays(x.reshape(len(x), -1), y.reshape(len(y), -1))
    return [of_means(np.stack([a, b], axis=1), function) for a, b in zip(x.T, y.T, strict=True)]


def gains(x: np.ndarray) -> list[Pointwise]:
    """Means of the columns over that of the first."""
    first, *others = quotients(x, np.ones(len(x)))
    return [p.minus(first) for p in (first, *others)]


def share_inside(
    make, truth, *, conversations: int, seed: int = 0, resamples: int = 400, **settings
) -> float:
    """Share of intervals that hold all truths; `make(rng)` gives numerators, denominators, clusters."""
    rng = np.random.default_rng(seed)
    held = []
    for _ in range(SETS):
        x, y, clusters = make(rng)
        found = studentised_intervals(
            jointly(quotients(x, y), clusters),
            conversations,
            clusters=clusters,
            resamples=resamples,
            rng=rng,
            **settings,
        )
        held.append(bool(((found.low <= truth) & (truth <= found.high)).all()))
    return float(np.mean(held))


def test_values_and_errors_are_those_of_the_repeated_conversations():
    """Slow twin: repeat each conversation as often as it counts, then sum by hand; two to a cluster."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 2)), rng.uniform(1, 2, size=(6, 2))
    clusters = np.array([3, 3, 5, 5, 1, 1])
    counts = np.array([[2, 2, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1]])
    values, errors = jointly(quotients(x, y), clusters)(counts)
    for times, value, error in zip(counts, values, errors, strict=True):
        groups = [i for i in (0, 2, 4) for _ in range(times[i])]
        sums = np.array([[x[i] + x[i + 1], y[i] + y[i + 1]] for i in groups])  # [C, 2, M]
        v = sums[:, 0].sum(0) / sums[:, 1].sum(0)
        left = sums[:, 0] - v * sums[:, 1]
        assert value == pytest.approx(v, abs=1e-12)
        assert error == pytest.approx(
            np.sqrt(3 / 2 * (left**2).sum(0)) / np.abs(sums[:, 1].sum(0)), abs=1e-12
        )


def test_error_of_a_mean():
    x = np.random.default_rng(0).normal(size=30)
    values, errors = jointly(quotients(x, np.ones(30)))(np.ones((1, 30)))
    assert values[0, 0] == pytest.approx(x.mean(), abs=1e-12)
    assert errors[0, 0] == pytest.approx(x.std(ddof=1) / math.sqrt(30), abs=1e-12)


def test_differences_have_the_errors_of_differences():
    """Of means: the error of v1 - v0 is that of the mean of x1 - x0."""
    x = np.random.default_rng(0).normal(size=(30, 3)) + np.random.default_rng(1).normal(size=(30, 1))
    values, errors = jointly(gains(x))(np.ones((1, 30)))
    d = x - x[:, [0]]
    assert values[0] == pytest.approx(d.mean(0), abs=1e-12)
    assert errors[0] == pytest.approx(d.std(0, ddof=1) / math.sqrt(30), abs=1e-12)
    assert errors[0, 0] == 0


def test_ends_are_those_of_a_plain_loop():
    """Slow twin of one mean: t* by hand, sorted; ranks 25 from either end of 1,000."""
    x = np.random.default_rng(3).exponential(size=20)
    found = studentised_intervals(
        jointly(quotients(x, np.ones(20))), 20, resamples=1000, rng=np.random.default_rng(4)
    )
    drawn = np.random.default_rng(4).integers(0, 20, (1000, 20))
    t = sorted((x[d].mean() - x.mean()) / (x[d].std(ddof=1) / math.sqrt(20)) for d in drawn)
    error = x.std(ddof=1) / math.sqrt(20)
    assert found.low[0] == pytest.approx(x.mean() - t[-25] * error, abs=1e-9)
    assert found.high[0] == pytest.approx(x.mean() - t[24] * error, abs=1e-9)


def test_skewed_means_are_covered():
    """60 lognormal values: normal intervals hold the mean in 91% of sets, these in 95%."""

    def make(rng):
        return rng.lognormal(size=60), np.ones(60), None

    assert abs(share_inside(make, math.exp(0.5), conversations=60) - 0.95) < MARGIN


def test_weighted_importance_sampling_is_covered():
    """Acts z from N(0, 1), target N(1.5, 1): 200 are worth some 35. Success if z + noise > 0."""

    def make(rng):
        z = rng.normal(size=200)
        w = np.exp(1.5 * z - 1.125)
        return w * (z + rng.normal(size=200) > 0), w, None

    share = share_inside(make, norm.cdf(1.5 / math.sqrt(2)), conversations=200, within=(0.0, 1.0))
    assert abs(share - 0.95) < MARGIN


def test_clusters_are_covered():
    """30 customers with 4 conversations each, nearly alike. Taking all 120 for independent holds 65% only."""

    def customers(rng):
        index = np.repeat(np.arange(30), 4)
        x = rng.exponential(size=30)[index] + 0.3 * rng.normal(size=120)
        return x, np.ones(120), index

    def make_blind(rng):
        return (*customers(rng)[:2], None)

    # Of 30 exponential values the method itself misses about 1% more than it says.
    assert abs(share_inside(customers, 1.0, conversations=120) - 0.95) < MARGIN + 0.01
    assert share_inside(make_blind, 1.0, conversations=120, resamples=200) < 0.8


def test_all_candidates_are_covered_at_once():
    """Six candidates of one set of logs. One by one, the intervals hold all six in 80% of sets.

    With 100 skewed values, the extreme quantiles that six candidates need are about .02 short.
    """
    rng = np.random.default_rng(0)
    truth = math.exp(0.5)
    together, apart = [], []
    for _ in range(SETS):
        x = 0.5 * rng.lognormal(size=(100, 1)) + 0.5 * rng.lognormal(size=(100, 6))

        def means(counts, x=x):
            mean = counts @ x / 100
            return mean, np.sqrt((counts @ x**2 / 100 - mean**2) / 99)

        for held, simultaneous in ((together, True), (apart, False)):
            found = studentised_intervals(
                means, 100, simultaneous=simultaneous, resamples=800 if simultaneous else 400, rng=rng
            )
            held.append(bool(((found.low <= truth) & (truth <= found.high)).all()))
    assert abs(np.mean(together) - 0.95) < MARGIN + 0.02
    assert np.mean(apart) < 0.87


def test_a_candidate_without_support_does_not_widen_the_others():
    """Its weight is all on one conversation: its error is 0, and its interval that of the resampled values.

    37% of samples are without that conversation, and each has the weight on all others: their mean.
    """
    rng = np.random.default_rng(5)
    g = rng.uniform(size=200)
    w = np.concatenate([np.ones((200, 2)) + rng.uniform(size=(200, 2)), np.eye(200)[:, :1] + 1e-12], axis=1)
    settings = {"within": (0.0, 1.0), "simultaneous": True, "resamples": 2000}
    fair, all_three = (
        studentised_intervals(
            jointly(quotients(w[:, :m] * g[:, None], w[:, :m])), 200, rng=np.random.default_rng(6), **settings
        )
        for m in (2, 3)
    )
    assert all_three.low[2] < g[1:].mean() < g[0] <= all_three.high[2] + 1e-9
    assert ((all_three.high - all_three.low)[:2] < 1.3 * (fair.high - fair.low)).all()


def test_nothing_known_is_said():
    """One cluster; no weight at all; parts all alike, of which 40 leave 1 - .025^(1/40) = 8.8% unseen."""
    rng = np.random.default_rng(0)
    ones = np.ones(40)
    one = studentised_intervals(
        jointly(quotients(rng.uniform(size=40), ones), ones), 40, clusters=ones, within=(0, 1), rng=rng
    )
    assert (one.low[0], one.high[0]) == (0, 1)
    none = studentised_intervals(jointly(quotients(0 * ones, 0 * ones)), 40, within=(0, 1), rng=rng)
    assert (none.low[0], none.high[0]) == (0, 1)
    alike = studentised_intervals(jointly(quotients(0 * ones, ones)), 40, within=(0, 2), rng=rng)
    assert alike.low[0] == 0
    assert alike.high[0] == pytest.approx(2 * (1 - 0.025 ** (1 / 40)), abs=1e-12)
    constant = studentised_intervals(jointly(quotients(0.3 * ones, ones)), 40, within=(0.3, 0.3), rng=rng)
    assert (constant.low[0], constant.high[0]) == pytest.approx((0.3, 0.3), abs=1e-12)


def test_gains_of_one_policy_and_itself():
    """Columns: behaviour, the same again, one that is better by a constant."""
    x = np.random.default_rng(0).uniform(size=(100, 1)) + np.array([0.0, 0.0, 0.5])
    x[:, 2] += 0.1 * np.random.default_rng(1).normal(size=100)
    found = choose(jointly(gains(x)), 100, 0, resamples=500, rng=np.random.default_rng(2))
    assert (found.gains.low[0], found.gains.high[0]) == (0, 0)
    assert found.best == pytest.approx([0, 0, 1], abs=1e-12)
    assert found.worse == pytest.approx([0, 0.5, 0], abs=1e-12)


def test_probability_of_being_worse_is_calibrated():
    """A gain of d, measured with error .1 (100 parts of deviation 1): with no prior, a loss has the
    probability normal(-d / .1). The draws must say so to .03: 4,000 of them leave .008, three times .024, and
    t with 99 degrees of freedom .002.
    """
    rng = np.random.default_rng(7)
    for shift in (-0.1, 0.0, 0.1):
        d = rng.normal(size=100)
        d = (d - d.mean()) / d.std(ddof=1) + shift
        x = np.stack([np.zeros(100), d], axis=1)
        found = choose(jointly(gains(x)), 100, 0, resamples=4000, rng=rng)
        assert found.worse[1] == pytest.approx(norm.cdf(-shift / 0.1), abs=0.03)
        assert found.best.sum() == pytest.approx(1, abs=1e-12)
        assert found.best[1] == pytest.approx(1 - found.worse[1], abs=1e-12)


def test_refuses():
    estimate = jointly(quotients(np.ones(3), np.ones(3)))
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="confidence"):
        studentised_intervals(estimate, 3, confidence=95, rng=rng)
    with pytest.raises(ValueError, match="resamples"):
        studentised_intervals(estimate, 3, resamples=0, rng=rng)
    with pytest.raises(ValueError, match="clusters of shape"):
        studentised_intervals(estimate, 3, clusters=np.zeros(2), rng=rng)
