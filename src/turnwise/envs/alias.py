"""Draws from many finite distributions at once, each in constant time: alias tables (Walker 1977), by rows.

Tables are filled as in Vose 1991, but all rows at once. Draws are float64: the first k bits pick one of 2^k
equal slots, the rest decides between the two outcomes that share it, so that a probability is off by at most
2^-53 for each slot that the outcome has a share in. (Draws of 24 bits were no faster.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Alias:
    """Distributions over the entries of rows, each drawn from in constant time.

    A row has a power of two of slots. A slot keeps its own entry with probability `cut`, and gives way to the
    slot `alias` otherwise; slots beyond the entries of a row have cut 0 and are nobody's alias.
    """

    offset: np.ndarray
    """[rows], first slot of each row"""
    width: np.ndarray
    """[rows] float64, slots of each row"""
    cut: np.ndarray
    """[slots], from 0 to 1"""
    alias: np.ndarray
    """[slots], a slot of the same row"""
    entries: np.ndarray
    """[slots], the entry that a slot stands for; 0 where it stands for none"""

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
        """[N] slots whose `entries` are drawn: for who keeps more than entries by slot."""
        place = rng.random(len(rows))
        place *= self.width[rows]  # exact: a power of two
        slot = place.astype(np.int64)
        place -= slot
        slot += self.offset[rows]
        return np.where(place < self.cut[slot], slot, self.alias[slot])


def shared_slots(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts and partner columns, both [rows, W], of rows of weights [rows, W] whose sums are positive.

    Each of W steps fills one slot of every row: the lightest is topped up by the heaviest, and where the
    heaviest was left with less than a slot, it is topped up by the next.
    """
    row, W = np.arange(len(weights)), weights.shape[1]
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
    partner = np.take_along_axis(order, partner, 1)
    back = np.argsort(order, axis=1)
    return np.take_along_axis(cut, back, 1), np.take_along_axis(partner, back, 1)
