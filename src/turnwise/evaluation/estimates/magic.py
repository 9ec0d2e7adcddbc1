"""MAGIC: the model for the far future, the logs for the near one, blended where the error is least.

Thomas & Brunskill 2016. The j-step estimate believes the logs for j decisions and the model
from there on (notation of `doubly_robust`):

    g_j = mean_b v_1 + sum_{k<=j} g^(k-1) (sum_b rho_{1:k} d_k / sum_b rho_{1:k})

g_0 is the model's word (the paper's j = -1), g_A weighted doubly robust. The estimate is sum_j x_j g_j with
the weights x >= 0, sum x = 1 that make x' (Omega + b b') x least: Omega is the covariance of the g_j, b_j
their bias, taken as the distance of g_j from an interval around g_A, which alone surely tends to the truth.

How we differ: Omega is that of influences, where the paper takes each episode's weighted part for a draw (the
sum of the weights varies too); and the interval is g_A -+ 1.645 of its standard errors, where the paper
resamples, so that the estimate is a function of the logs alone. Both agree in the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from turnwise.evaluation.estimates.decisions import Weighted
from turnwise.evaluation.estimates.doubly_robust import unforeseen
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.pointwise import Pointwise, pointwise

STEPS = (0, 1, 2, 4, 8)
"""numbers of decisions for which the logs are believed; all decisions are always among them"""
_WIDTH = 1.6448536269514722  # standard errors on each side of a normal's middle 90%
_MOST_STEPS = 10  # every set of them is tried
_RIDGE = 1e-9  # of the mean diagonal: among weights that are equally good, the most even


@dataclass(frozen=True)
class Blend:
    """What MAGIC makes its estimate of."""

    steps: tuple[int, ...]
    """[J], decisions for which the logs are believed"""
    values: np.ndarray
    """[J], the estimate after each"""
    weights: np.ndarray
    """[J], the share of each in the blend; of the first, if it is 0, what the model alone says"""


def magic(logged: Logged, steps: Sequence[int] = STEPS) -> Pointwise:
    """The blend of the `steps` estimates and weighted doubly robust.

    `parts` take the weights as given; a resample finds its own. Neither holds the model's error, on which the
    blend may lean: a model that is off by less than the logs can show is believed, and an interval around
    `value` is then too short (value - g_A, of `blend`, says how far it leans). Raises ValueError if there is
    no model, a step below 0, or more than ten steps.
    """
    parts = _Steps(logged, steps)

    def again(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, influences = parts.estimates(counts)
        weights = _weights(values, influences, counts)
        value = (weights * values).sum(1)
        return value, value[:, None] + np.einsum("rj,jrb->rb", weights, influences)

    return pointwise(again, len(logged.mask))


def blend(logged: Logged, steps: Sequence[int] = STEPS) -> Blend:
    """The estimates that `magic` blends, with their weights."""
    parts = _Steps(logged, steps)
    counts = np.ones((1, len(logged.mask)))
    values, influences = parts.estimates(counts)
    return Blend(parts.steps, values[0], _weights(values, influences, counts)[0])


class _Steps:
    """The estimates g_j of one set of logs."""

    def __init__(self, logged: Logged, steps: Sequence[int]) -> None:
        if len(steps) > _MOST_STEPS or any(j < 0 for j in steps):
            raise ValueError(
                f"steps are {tuple(steps)}; expected at most {_MOST_STEPS} numbers of decisions, 0 or more"
            )
        last = logged.mask.shape[1]
        self.steps = (*sorted({int(j) for j in steps if j < last}), last)
        self._first = logged.model[1][:, 0]
        self._decisions = Weighted(logged.scaled_ratios, unforeseen(logged))

    def estimates(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(values [R, J], influences [J, R, B]) for counts [R, B]."""
        terms, means = self._decisions.terms(counts)
        sums = np.cumsum(np.where(means > 0, terms, 0.0), axis=1)  # [R, A]
        start = counts @ self._first / counts.sum(1)
        values = np.stack([start + (sums[:, j - 1] if j else 0.0) for j in self.steps], axis=1)
        influences = np.empty((len(self.steps), *counts.shape))
        so_far, before = self._first - start[:, None], 0
        for i, j in enumerate(self.steps):
            so_far = so_far + self._decisions.influences(terms, means, slice(before, j))
            influences[i], before = so_far, j
        return values, influences


def _weights(values: np.ndarray, influences: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[R, J], argmin of x' (Omega + b b') x over x >= 0, sum x = 1."""
    n = counts.sum(1)
    weighed = (influences * counts).transpose(1, 0, 2)  # [R, J, B]
    scale = 1 / (n * np.maximum(n - 1, 1))
    omega = weighed @ influences.transpose(1, 2, 0) * scale[:, None, None]
    half = _WIDTH * np.sqrt(omega[:, -1, -1])[:, None]
    off = values - values[:, -1:]
    bias = np.sign(off) * np.maximum(np.abs(off) - half, 0.0)
    return on_simplex(omega + bias[:, :, None] * bias[:, None, :])


def on_simplex(matrices: np.ndarray) -> np.ndarray:
    """[R, J], argmin of x' M x over x >= 0, sum x = 1, for positive semidefinite matrices [R, J, J].

    Every set of positive entries is tried: on one, the minimum is M^-1 1 / 1' M^-1 1. For [[1, 0], [0, 3]] it
    is (3/4, 1/4). A ridge of 1e-9 of the mean diagonal decides between minima that are equally good.
    """
    count, size = matrices.shape[:2]
    diagonal = np.trace(matrices, axis1=1, axis2=2) / size
    unit = np.where(diagonal > 0, diagonal, 1.0)[:, None, None]
    scaled = matrices / unit + _RIDGE * np.eye(size)
    best, found = np.full(count, np.inf), np.zeros((count, size))
    for entries in (list(c) for m in range(1, size + 1) for c in combinations(range(size), m)):
        part = scaled[:, entries][:, :, entries]
        x = np.linalg.solve(part, np.ones((count, len(entries), 1)))[..., 0]
        total = x.sum(1)  # 1' M^-1 1 > 0: M is positive definite; the minimum on these entries is 1 / total
        better = (x >= 0).all(1) & (1 / total < best)
        best[better] = 1 / total[better]
        found[better] = 0.0
        found[np.ix_(better, entries)] = x[better] / total[better, None]
    return found
