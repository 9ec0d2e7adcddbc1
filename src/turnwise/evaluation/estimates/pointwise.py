"""An estimate with the part that each episode has in it, and the same estimate on resamples of the episodes.

An estimate of a value is a function of means over episodes of fixed numbers: importance sampling is one mean,
its weighted form a quotient of two. So its derivative says what each episode contributes (the influence
function; Hampel 1974), and a resample costs a product of matrices, whatever the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

_NUMBERS_AT_ONCE = 2**20  # 8 MiB of parts in memory, whatever the number of resamples

Function = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""from means [R, F] to (values [R], gradients [R, F])"""


@dataclass(frozen=True)
class Pointwise:
    """One number, and how it is made of episodes. nan if no logged episode has any weight."""

    value: float
    parts: np.ndarray
    """[B], one number per episode with mean `value`. Of an estimate that is a mean, its terms; else the value
    plus the episode's influence: w_b (x_b - value) / mean w for a weighted mean."""
    again: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] = field(repr=False, compare=False)
    """from counts [R, B] to (values [R], parts [R, B]): the estimate, had episode b been logged counts[r, b]
    times; every row of parts has mean values[r] if weighed by its counts"""

    def standard_error(self, groups: np.ndarray | None = None) -> float:
        """sqrt(sum_b (parts_b - value)^2 / (B (B - 1))); with `groups` [B] (customers), of their sums.

        Parts 1, 2, 3: sqrt(2 / 6) = .577. nan with fewer than two episodes or groups.
        """
        counts = np.ones((1, len(self.parts)))
        order = _grouped(groups, counts)
        return float(_errors(np.array([self.value]), self.parts[None], counts, order)[0])

    def resampled(
        self, counts: np.ndarray, groups: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(values [R], standard errors [R]) on resamples, episode b taken counts[r, b] >= 0 times.

        With `groups`, counts must agree within a group (a group is resampled as a whole), else ValueError. A
        row of 0 and 1 is the estimate on a part of the episodes. Values are nan where nothing resampled has
        weight.
        """
        counts = np.asarray(counts, dtype=np.float64)
        if counts.ndim != 2 or counts.shape[1] != len(self.parts):
            raise ValueError(f"counts have shape {counts.shape}; expected [R, {len(self.parts)}]")
        if not np.isfinite(counts).all() or (counts < 0).any() or not counts.any(1).all():
            raise ValueError("counts are negative, not finite or all 0 in a row; expected times taken")
        order = _grouped(groups, counts)
        values, errors = np.empty(len(counts)), np.empty(len(counts))
        rows = max(1, _NUMBERS_AT_ONCE // counts.shape[1])
        for at in range(0, len(counts), rows):
            some = slice(at, at + rows)
            values[some], parts = self.again(counts[some])
            errors[some] = _errors(values[some], parts, counts[some], order)
        return values, errors

    def times(self, factor: float) -> Pointwise:
        """A multiple of it."""

        def again(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            values, parts = self.again(counts)
            return factor * values, factor * parts

        return pointwise(again, len(self.parts))

    def minus(self, other: Pointwise) -> Pointwise:
        """The difference of two estimates from the same episodes; the noise that they share cancels."""

        def again(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            (values, parts), (others, their_parts) = self.again(counts), other.again(counts)
            return values - others, parts - their_parts

        return pointwise(again, len(self.parts))


def of_means(features: np.ndarray, function: Function) -> Pointwise:
    """The estimate `function` of the means of `features` [B, F] over episodes.

    parts_b = value + gradient . (features_b - means); of a linear function without a constant, its terms.
    """

    def again(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        means = counts @ features / counts.sum(1, keepdims=True)
        values, gradients = function(means)
        with np.errstate(invalid="ignore"):  # gradients without a value
            at_mean = (gradients * means).sum(1)
            return values, gradients @ features.T + (values - at_mean)[:, None]

    return pointwise(again, len(features))


def pointwise(again: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], episodes: int) -> Pointwise:
    """The estimate in which each of the `episodes` counts once."""
    values, parts = again(np.ones((1, episodes)))
    return Pointwise(float(values[0]), parts[0], again)


def _grouped(groups: np.ndarray | None, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(order that puts groups together, where each begins)."""
    if groups is None:
        return None
    groups = np.asarray(groups)
    if groups.shape != counts.shape[1:]:
        raise ValueError(
            f"groups have shape {groups.shape}; expected one for each of {counts.shape[1]} episodes"
        )
    _, index = np.unique(groups, return_inverse=True)
    order = np.argsort(index, kind="stable")
    begins = np.flatnonzero(np.diff(index[order], prepend=-1))
    first = np.repeat(begins, np.diff(begins, append=len(order)))
    if (counts[:, order] != counts[:, order[first]]).any():
        raise ValueError("counts differ within a group; expected a group to be taken as a whole")
    return order, begins


def _errors(
    values: np.ndarray, parts: np.ndarray, counts: np.ndarray, order: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """sqrt(m/(m-1) sum_g counts_g S_g^2) / n; S_g sums parts - value over group g; n episodes, m groups."""
    n = counts.sum(1)
    sums = parts - values[:, None]  # [R, B]
    if order is not None:
        members, begins = order
        sums = np.add.reduceat(sums[:, members], begins, axis=1)  # [R, G]
        counts = counts[:, members[begins]]
    m = counts.sum(1)
    squares = (counts * sums**2).sum(1)
    enough = m > 1
    factor = np.where(enough, m / np.where(enough, m - 1, 1.0), math.nan)
    return np.sqrt(factor * squares) / n
