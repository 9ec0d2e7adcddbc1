"""Intervals over episodes: how far a mean may be from the truth because there are so few episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

_DRAWS_AT_ONCE = 2**20  # indices in memory at once: 8 MiB, whatever the number of episodes


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` independent episodes with its interval, in the units of the values."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of independent `values`, one an episode; widened if few.

    Draw n values with replacement and take their mean, `resamples` times. The interval runs from the
    (1 - confidence)/2 to the (1 + confidence)/2 quantile of those means (Efron, 1979; Efron and
    Tibshirani, 1993, section 13.3); then both ends move away from the mean by `widening`. The interval says
    nothing about the spread between training seeds.

    Raises ValueError for fewer than two values (one episode says nothing about the spread, and the formula
    would return an interval of width zero), values that are not finite or not one-dimensional, a
    confidence outside (0, 1), fewer than one resample.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size < 2:
        raise ValueError(f"values of shape {x.shape}; expected one dimension with at least two episodes")
    if not np.isfinite(x).all():
        raise ValueError(f"{int((~np.isfinite(x)).sum())} of {x.size} values are not finite")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; expected at least 1")
    means = np.empty(resamples)
    rows = max(1, _DRAWS_AT_ONCE // x.size)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        means[start:stop] = x[rng.integers(0, x.size, size=(stop - start, x.size))].mean(axis=1)
    return widened(
        np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]), x.mean(), x.size, confidence
    )


def student_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """mean -/+ t s / sqrt(n) of few independent values, t with n - 1 degrees of freedom: for a few seeds.

    Exact where the values are normal (Student, 1908). ValueError for fewer than two values.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or x.size < 2:
        raise ValueError(f"values of shape {x.shape}; expected one dimension with at least two")
    half = float(stdtrit(x.size - 1, (1 + confidence) / 2) * x.std(ddof=1) / math.sqrt(x.size))
    return float(x.mean()) - half, float(x.mean()) + half


def widening(n: int, confidence: float = 0.95) -> float:
    """The factor by which a bootstrap interval of the mean of n values is too narrow.

        sqrt(n / (n - 1)) t / z

    t and z are the quantiles of Student's t with n - 1 degrees of freedom and of the normal distribution.
    Hesterberg 2015, section 3.2. The factor is 9.2 for two values, 1.19 for ten, 1.0008 for two thousand.
    """
    # A resample spreads about the sample's mean with variance (n - 1)/n of the unbiased one: the square root.
    # And the percentiles of resampled means are those of a normal whose variance is taken as known, while it
    # was estimated from the same n values: t / z.
    tail = (1 + confidence) / 2
    return math.sqrt(n / (n - 1)) * float(stdtrit(n - 1, tail) / ndtri(tail))


def widened(ends: np.ndarray, mean: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """(low, high): both distances from the mean of `n` independent values are multiplied by `widening`."""
    low, high = mean + widening(n, confidence) * (np.asarray(ends) - mean)
    return float(low), float(high)


def mean_interval(
    values: Sequence[float] | np.ndarray,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator,
) -> Estimate:
    """Mean of `values` with its `bootstrap_interval`; raises the same errors."""
    low, high = bootstrap_interval(values, confidence=confidence, resamples=resamples, rng=rng)
    x = np.asarray(values, dtype=np.float64)
    return Estimate(mean=float(x.mean()), low=low, high=high, n=int(x.size))
