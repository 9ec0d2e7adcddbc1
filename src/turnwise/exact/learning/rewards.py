"""Rewards as symbols, for the likelihood; as means, for the plan; and what an end owes to the clock."""

from __future__ import annotations

import numpy as np

from turnwise.exact.learning.kernels import Counts

FEW = 12
"""up to so many different rewards, each is a bin of its own"""
BINS = 8
"""otherwise, bins at most"""
ROUNDS = 200
"""of Lloyd's algorithm, and of backfitting, at most"""


def edges_of(rewards: np.ndarray) -> np.ndarray:
    """[B-1], what separates the bins: few different rewards one by one, many by one-dimensional k-means."""
    values, counts = np.unique(rewards, return_counts=True)
    if len(values) > FEW:
        # Lloyd from quantiles of the different values: outcomes that lie apart fall apart, however rare.
        centres = np.quantile(values, (np.arange(BINS) + 0.5) / BINS)
        for _ in range(ROUNDS):
            at = np.abs(values[:, None] - centres).argmin(1)
            n = np.bincount(at, counts, minlength=len(centres))
            moved = np.bincount(at, counts * values, minlength=len(centres))[n > 0] / n[n > 0]
            if len(moved) == len(centres) and np.allclose(moved, centres, rtol=0, atol=1e-12):
                break
            centres = moved
        at = np.abs(values[:, None] - centres).argmin(1)
        breaks = np.flatnonzero(np.diff(at))
    else:
        breaks = np.arange(len(values) - 1)
    return (values[breaks] + values[breaks + 1]) / 2


def means_of(counts: Counts, strength: float, by_clock: bool) -> tuple[np.ndarray, np.ndarray]:
    """(expected rewards [3, A, S], what an end owes to the step [H] if `by_clock`, else zeros).

    With weights w of kind k, action a, state s and step t, minimises sum of w (r - mean[k,a,s] - late[t])^2
    by backfitting. A mean is pulled towards that of the action in all states, as hard as `strength` more
    rewards would, and that towards the mean of its kind as one more would.
    """
    weight = counts.bins.sum(2)  # [3, A, S]
    paid = counts.paid
    H = counts.late.shape[3]
    late = np.zeros(H)
    ends, ends_paid = counts.late, counts.late_paid
    means = _shrunk(weight, paid, strength)
    if not by_clock:
        return means, late
    by_time = ends.sum((0, 1, 2))
    for _ in range(ROUNDS):
        residual = ends_paid - ends * means[1:, ..., None]
        found = np.where(by_time > 0, residual.sum((0, 1, 2)) / np.where(by_time > 0, by_time, 1), 0.0)
        found = np.where(by_time > 0, found - (found * by_time).sum() / by_time.sum(), 0.0)
        adjusted = paid.copy()
        adjusted[1:] = (ends_paid - ends * found).sum(3)
        means = _shrunk(weight, adjusted, strength)
        done = np.allclose(found, late, rtol=0, atol=1e-9 * (1 + np.abs(found).max()))
        late = found
        if done:
            break
    return means, late


def _shrunk(weight: np.ndarray, paid: np.ndarray, strength: float) -> np.ndarray:
    """[3, A, S], means pulled towards those of the action, and those towards those of the kind."""
    of_kind = _ratio(paid.sum((1, 2)), weight.sum((1, 2)), np.zeros(3))
    n, total = weight.sum(2), paid.sum(2)
    of_action = (total + of_kind[:, None]) / (n + 1)
    k = max(strength, 1e-9)  # a row without any reward takes the action's
    return (paid + k * of_action[:, :, None]) / (weight + k)


def _ratio(above: np.ndarray, below: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), otherwise)
