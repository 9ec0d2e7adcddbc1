"""Draws from many finite distributions at once, each in constant time: alias tables (Walker 1977), by rows.

The idea: a distribution over W outcomes can be cut up so that W slots of probability 1/W hold at most two
outcomes each. A draw then picks a slot uniformly, and one of its two outcomes by a biased coin. Tables are
filled as in Vose 1991, but for all rows at once.

One float64 serves for both choices: its first k bits pick one of 2^k slots, the rest is the coin. So a
probability is off by at most 2^-53 for each slot that the outcome has a share in. (Draws of 24 bits were no
faster.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Alias:
    """Distributions over the entries of rows, each drawn from in constant time.

    The number of slots of a row is a power of two. A slot keeps its own entry with probability `cut`, and
    gives way to the slot `alias` otherwise. Slots beyond the entries of a row have cut 0 and are never an
    alias, so they are never drawn.
    """

    offset: np.ndarray
    """[rows], first slot of each row"""
    width: np.ndarray
    """[rows] float64, slots of each row"""
    cut: np.ndarray
    """[slots], the probability that a slot keeps its own entry"""
    alias: np.ndarray
    """[slots], a slot of the same row"""
    entries: np.ndarray
    """[slots], the entry that a slot stands for; 0 if it stands for none"""

    @staticmethod
    def of(indptr: np.ndarray, weights: np.ndarray) -> Alias:
        """Row i draws entry j of indptr[i]..indptr[i+1] with probability proportional to weights[j]."""
        counts = np.diff(indptr)
        width = np.left_shift(1, np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64))
        offset = np.cumsum(width) - width
        slots = int(width.sum())
        cut, alias, entries = np.zeros(slots), np.zeros(slots, np.int64), np.zeros(slots, np.int64)
        for w in np.unique(width):
            rows, column = np.flatnonzero(width == w), np.arange(w)
            real = column < counts[rows, None]
            entry = np.where(real, indptr[rows, None] + column, 0)
            place = offset[rows, None] + column
            cut[place], partner = shared_slots(np.where(real, weights[entry], 0.0))
            alias[place] = offset[rows, None] + partner
            entries[place] = entry
        return Alias(offset, width.astype(np.float64), cut, alias, entries)

    def draw(self, rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
        """[N] entries, one from each of `rows` [N]."""
        return self.entries[self.slots(rng, rows)]

    def slots(self, rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
        """Indices [N] into `entries`, for callers that store more than the entry at each index."""
        place = rng.random(len(rows))
        place *= self.width[rows]  # exact, as the width is a power of two
        slot = place.astype(np.int64)
        place -= slot
        slot += self.offset[rows]
        return np.where(place < self.cut[slot], slot, self.alias[slot])


def shared_slots(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts and partner columns, both [rows, W], of rows of weights [rows, W] whose sums are positive.

    Each of W - 1 steps fills one slot of every row: what the lightest outcome leaves free goes to the
    heaviest. If the heaviest was itself left with less than a slot, it is the one to be topped up, by the
    next heaviest.
    """
    row, W = np.arange(len(weights)), weights.shape[1]
    # Sorted, and scaled so that a full slot is 1: then `low` and `high` close in on each other.
    order = np.argsort(weights, axis=1, kind="stable")
    left = np.take_along_axis(weights * (W / weights.sum(1, keepdims=True)), order, 1)
    cut, partner = np.ones_like(left), np.tile(np.arange(W), (len(weights), 1))
    low, high = np.zeros_like(row), np.full_like(row, W - 1)
    for _ in range(W - 1):
        short = left[row, high] < 1
        here = np.where(short, high, low)
        low += ~short
        high -= short
        kept = np.minimum(left[row, here], 1)
        cut[row, here] = kept
        partner[row, here] = high
        left[row, high] -= 1 - kept
    # Back from the sorted order to the columns that callers know.
    partner = np.take_along_axis(order, partner, 1)
    back = np.argsort(order, axis=1)
    return np.take_along_axis(cut, back, 1), np.take_along_axis(partner, back, 1)
