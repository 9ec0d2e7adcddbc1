"""How far predictions are from what followed, beside a constant; intervals over conversations."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata

from turnwise.evaluation.measures.intervals import widened

_FOLDS, _TAILS = 5, (0.025, 0.975)


class Score:
    """Predictions [n] against returns [n]; intervals by bootstrap over conversations.

    Every figure is a function of sums over turns, so that a resample of conversations is a product of
    `counts` [R, C] (how often each conversation is drawn) with each conversation's sums [C, k].
    """

    def __init__(
        self, f: np.ndarray, g: np.ndarray, conversation: np.ndarray, constant: float, counts: np.ndarray
    ):
        self.n = counts.shape[1]
        self._draws = np.vstack([np.ones(self.n), counts])  # the first one is the sample itself
        self._of = conversation
        fitted, middle = _cross_fitted(f, g, conversation)
        self.shares = {
            "r2": self._share((g - f) ** 2, (g - constant) ** 2),
            "calibrated_r2": self._share((g - fitted) ** 2, (g - middle) ** 2),
        }
        """by kind: [1 + R], 1 - (squared errors) / (those of a constant)"""
        self._f, self._g = f, g

    def summary(self) -> dict[str, Any]:
        """Both kinds of R², the rank correlation, and the line of returns over predictions."""
        slope, intercept, _ = self._line(self._f, self._g)
        # Ranks are those of the whole sample: a resample draws them with the turns.
        _, _, spearman = self._line(rankdata(self._f), rankdata(self._g))
        found = {**self.shares, "spearman": spearman, "slope": slope, "intercept": intercept}
        return {name: with_interval(x, self.n) for name, x in found.items()}

    def _sums(self, x: np.ndarray) -> np.ndarray:
        return self._draws @ np.bincount(self._of, x, minlength=self.n)

    def _share(self, errors: np.ndarray, baseline: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 - self._sums(errors) / self._sums(baseline)

    def _line(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Slope, intercept and correlation of y over x; 0, mean and 0 where x does not vary."""
        x0, y0 = x.mean(), y.mean()  # sums about the means lose fewer digits
        x, y = x - x0, y - y0
        n, sx, sy, sxx, syy, sxy = (self._sums(z) for z in (np.ones(len(x)), x, y, x * x, y * y, x * y))
        vx, vy, c = sxx - sx * sx / n, syy - sy * sy / n, sxy - sx * sy / n
        tiny = 1e-12 * (1 + x0 * x0) * n
        slope = np.where(vx > tiny, c / np.where(vx > tiny, vx, 1), 0.0)
        both = np.sqrt(vx.clip(min=0) * vy.clip(min=0))
        correlation = np.where(both > tiny, c / np.where(both > tiny, both, 1), 0.0)
        return slope, y0 + sy / n - slope * (x0 + sx / n), correlation


def _cross_fitted(f: np.ndarray, g: np.ndarray, conversation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A rising function of f, and a mean of g, both fitted to the *other* parts of the conversations.

    Isotonic regression (Barlow et al. 1972), linear between the values that it was fitted to. A level, a
    scale and a bend are forgiven, and an order is not. A function fitted to all of them would explain a part
    of anything.
    """
    risen, middle = np.empty(len(f)), np.empty(len(f))
    # Conversations were drawn at random, so that every fifth one is a part at random too.
    part = np.unique(conversation, return_inverse=True)[1] % _FOLDS
    for k in range(_FOLDS):
        inside, others = part == k, part != k
        x, which, counts = np.unique(f[others], return_inverse=True, return_counts=True)
        y = np.bincount(which, g[others]) / counts
        risen[inside] = np.interp(f[inside], x, isotonic_regression(y, weights=counts).x)
        middle[inside] = g[others].mean()
    return risen, middle


def with_interval(draws: np.ndarray, n: int) -> dict[str, float] | None:
    """The sample's figure and its 95% interval; None where the returns do not vary."""
    value, resampled = float(draws[0]), draws[1:]
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(resampled):
        return None
    low, high = widened(np.quantile(resampled, _TAILS), value, n)
    return {"value": value, "low": low, "high": high}
