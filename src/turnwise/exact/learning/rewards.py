"""Rewards as symbols, for the likelihood; as means, for the plan; and what an end owes to the clock."""

from __future__ import annotations

import numpy as np

from turnwise.exact.learning.kernels import Counts
from turnwise.exact.learning.sequences import Sequences

FEW = 12
"""up to so many different rewards, each is a bin of its own"""
BINS = 8
"""otherwise, bins at most"""
SAME = 1e-6
"""rewards that differ by less than this share of their range are the same"""
AGAIN = 0.9
"""share of a step's rewards that must be those of another step, all higher or lower by one number"""
ROUNDS = 200
"""of Lloyd's algorithm, and of backfitting, at most"""


def edges_of(rewards: np.ndarray) -> np.ndarray:
    """[B-1], what separates the bins: few different rewards one by one, many by one-dimensional k-means."""
    values, counts = np.unique(rewards, return_counts=True)
    near = np.append(True, np.diff(values) > SAME * (values[-1] - values[0]))
    values, counts = values[near], np.add.reduceat(counts, np.flatnonzero(near))
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


def without_late(sequences: Sequences, late: np.ndarray) -> np.ndarray:
    """[M], rewards without what an end owes to its step; `late` [H] may be empty."""
    assert sequences.rewards is not None
    found = sequences.rewards
    if len(late) and late.any():
        found = found.copy()
        ends = sequences.offsets[1:][sequences.ended] - 1
        found[ends] -= late[np.minimum(sequences.lengths[sequences.ended], len(late)) - 1]
    return found


def late_of(sequences: Sequences, longest: int) -> np.ndarray:
    """[longest], what an end owes to its step: a fit of reward = f(action, last answer) + late(step).

    Least squares by backfitting. The last answer stands for the hidden state, which nobody knows yet: "thank
    you" after two steps or after seven differ in nothing but the time. Steps at which nothing ended take the
    value of the step before.

    Where the last answer does not tell the state, a step at which more ended well by chance seems to pay
    more. If there are but a few different rewards, which come again at other steps, all of them higher or
    lower by one number, then that number is taken (`_exactly`): else bins would tell the steps apart, and
    hidden states would have to count them.
    """
    assert sequences.rewards is not None
    at = sequences.offsets[1:][sequences.ended] - 1
    time = sequences.lengths[sequences.ended] - 1
    pay = sequences.rewards[at]
    pair = sequences.actions[at] * np.int64(sequences.observation_symbols) + sequences.observations[at]
    _, group = np.unique(pair, return_inverse=True)
    many, by_time = np.bincount(group), np.bincount(time, minlength=longest)
    late = np.zeros(longest)
    for _ in range(ROUNDS):
        level = np.bincount(group, pay - late[time]) / many
        found = np.bincount(time, pay - level[group], minlength=longest) / np.maximum(by_time, 1)
        found -= (found * by_time).sum() / by_time.sum()
        moved = np.abs(found - late).max()
        late = found
        if moved <= 1e-9 * np.abs(pay).max():
            break
    late = _exactly(late, time, pay)
    there = np.maximum.accumulate(np.where(by_time > 0, np.arange(longest), 0))
    return late[there]


def _exactly(late: np.ndarray, time: np.ndarray, pay: np.ndarray) -> np.ndarray:
    """[longest], `late` with differences between steps that are differences of rewards, if there are such.

    The step at which most ended is what the others are compared with. At least `AGAIN` of the rewards of a
    step must be, less its difference, among those of that step. Where all ended well, or badly, several
    differences will do: then the one is taken that is nearest to the line through the steps where but one
    does (weighted by how many ended there), or to `late` if there is no such line. With more than `FEW`
    different rewards at a step all stays as it was.
    """
    by_time = np.bincount(time, minlength=len(late))
    first = int(by_time.argmax())
    known, near = np.unique(pay[time == first]), SAME * np.ptp(pay)
    good: dict[int, np.ndarray] = {}
    for t in np.flatnonzero(by_time).tolist():
        own, counts = np.unique(pay[time == t], return_counts=True)
        if len(known) > FEW or len(own) > FEW:
            return late
        steps = distinct((own[:, None] - known).ravel(), near)
        there = np.abs(own[:, None, None] - steps - known[:, None]).min(1) <= near  # [own, steps]
        good[t] = steps[counts @ there >= AGAIN * counts.sum()]
    sure = [t for t in good if len(good[t]) == 1]
    line = (
        np.polyfit(sure, [good[t][0] for t in sure], 1, w=np.sqrt(by_time[sure])) if len(sure) > 1 else None
    )
    found = late.copy()
    for t, steps in good.items():
        if len(steps):
            likely = late[t] - late[first] if line is None else np.polyval(line, t)
            found[t] = late[first] + steps[np.abs(steps - likely).argmin()]
    return found - (found * by_time).sum() / by_time.sum()


def distinct(values: np.ndarray, near: float) -> np.ndarray:
    """The different ones, rising, of which no two are as `near`."""
    found = np.unique(values)
    return found[np.append(True, np.diff(found) > near)]


def means_of(counts: Counts, strength: float, late: np.ndarray) -> np.ndarray:
    """[3, A, S], expected rewards beside what an end owes to its step, `late` (empty: nothing).

    A mean is pulled towards that of the action in all states, as hard as `strength` more rewards would, and
    that towards the mean of its kind as one more would.
    """
    paid = counts.paid.copy()
    if len(late):
        paid[1:] -= (counts.late * late).sum(3)
    return _shrunk(counts.bins.sum(2), paid, strength)


def _shrunk(weight: np.ndarray, paid: np.ndarray, strength: float) -> np.ndarray:
    """[3, A, S], means pulled towards those of the action, and those towards those of the kind."""
    of_kind = _ratio(paid.sum((1, 2)), weight.sum((1, 2)), np.zeros(3))
    n, total = weight.sum(2), paid.sum(2)
    of_action = (total + of_kind[:, None]) / (n + 1)
    k = max(strength, 1e-9)  # a row without any reward takes the action's
    return (paid + k * of_action[:, :, None]) / (weight + k)


def _ratio(above: np.ndarray, below: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), otherwise)
