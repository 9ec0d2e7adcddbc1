"""Which rows go into which batch: a function of the seed alone, so that a resumed run sees the same data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from turnwise.data.disk.columns import Column

T = TypeVar("T")


WINDOW = 1 << 17
"""rows, at most, whose order is held in memory at a time"""
_ROUNDS = 6  # of the Feistel network; four suffice (Luby and Rackoff 1988), two are for luck


class BatchOrder:
    """Epochs of batches of `batch_size` rows, similar lengths together (less padding), order shuffled.

    Rows are shuffled, sorted by length within pools of `pool` batches, and the batches shuffled again.
    Sorting all rows would pad least, but the same rows would meet in every epoch; a pool keeps the company of
    a row random. The batch at a step is a function of (seed, step) alone.

    More than `window` rows are not shuffled in one piece. Each window holds rows from everywhere, in an order
    that an invertible scrambling of their places gives (`scrambled`), and is shuffled as few rows are: the
    order of any number of rows takes the memory of one window, and a run goes on at any step at once.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray | Column,
        batch_size: int,
        seed: int,
        pool: int = 32,
        window: int = WINDOW,
    ):
        self.lengths = Column.of(lengths, np.int32)
        self.batch_size, self.seed, self.pool = batch_size, seed, pool
        # Whole pools, so that only the last batch of an epoch is smaller than the others.
        pools = max(1, window // (batch_size * pool))
        self.window = min(len(self.lengths), pools * batch_size * pool)
        self.batches_per_epoch = -(-len(self.lengths) // batch_size)
        self._at: tuple[int, int] | None = None
        self._batches: list[np.ndarray] = []

    def rows(self, step: int) -> np.ndarray:
        """Row indices of the batch at `step` (0 is the first)."""
        epoch, index = divmod(step, self.batches_per_epoch)
        window, index = divmod(index, -(-self.window // self.batch_size))
        if (epoch, window) != self._at:
            self._at, self._batches = (epoch, window), self._shuffle(epoch, window)
        return self._batches[index]

    def steps(self, epochs: float) -> int:
        """Batches in so many passes over the rows, 1 or more."""
        return max(1, round(epochs * self.batches_per_epoch))

    def _shuffle(self, epoch: int, window: int) -> list[np.ndarray]:
        n, first = len(self.lengths), window * self.window
        here = np.arange(first, min(n, first + self.window))
        seed = (self.seed, epoch)
        if len(here) < n:
            here, seed = scrambled(here, n, seed), (self.seed, epoch, window)
        rng = np.random.default_rng(np.random.SeedSequence(seed))
        order = here[rng.permutation(len(here))]
        lengths = self.lengths.take(order)
        size = self.batch_size * self.pool
        batches = []
        for at in range(0, len(order), size):
            rows = order[at : at + size]
            rows = rows[np.argsort(lengths[at : at + size], kind="stable")]
            batches += [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        return [batches[i] for i in rng.permutation(len(batches))]


def scrambled(places: np.ndarray, n: int, seed: tuple[int, ...]) -> np.ndarray:
    """Where a random permutation of 0 .. n - 1 sends these places, without the rest of it.

    A Feistel network permutes the numbers of 2k bits, the fewest that hold n; who lands beyond n walks on
    until it is inside, which leaves a permutation of 0 .. n - 1 (cycle walking, Black and Rogaway 2002).
    """
    half = max(1, -(-max(1, int(n - 1).bit_length()) // 2))
    mask, keys = np.uint64((1 << half) - 1), np.random.SeedSequence(seed).generate_state(_ROUNDS, np.uint64)
    found, outside = places.astype(np.uint64), np.arange(len(places))
    while len(outside):
        x = found[outside]
        left, right = x >> np.uint64(half), x & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right + key) & mask)
        found[outside] = x = left << np.uint64(half) | right
        outside = outside[x >= n]
    return found.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """64 bits out of 64, each depending on all (the finalizer of SplitMix64, Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


FEWEST, MOST = 4, 32
"""rows of a batch whose size the data decide"""
STEPS = 1_000
"""steps that a clone's run has at least, if batches of `FEWEST` rows allow it"""
CRITIC_STEPS = 500
"""the same of a critic: its targets are noisy, and on 8,000 conversations ILQL came to -0.15 in batches of 32
and to -0.45 in batches of 16"""


MOST_TALKS = 128
"""rows of a batch of acts at most: small networks read a hundred short talks as fast as thirty"""


def batch_size_for(rows: int, epochs: float, steps: int = STEPS, most: int = MOST) -> int:
    """A power of two from 4 to `most`: the largest that leaves `steps` steps in so many passes over the rows.

    A model that learns from nothing needs steps more than it needs exact gradients. On 339 negotiations a
    pass costs the same in batches of 4 or of 32, and the clone's held-out loss is 3.2 or 5.4 nats a token.
    """
    size = most
    while size > FEWEST and rows * epochs < steps * size:
        size //= 2
    return size


def chunks(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`rows` in their order, `size` at a time."""
    return (rows[i : i + size] for i in range(0, len(rows), size))


def alike(sizes: np.ndarray, most: int) -> Iterator[list[int]]:
    """Places of rows of like lengths: in each batch at most `most` positions, padding included, or one row.

    The shortest come first, so that the newest row of a batch is the longest.
    """
    batch: list[int] = []
    for i in np.argsort(sizes, kind="stable").tolist():
        if batch and (len(batch) + 1) * int(sizes[i]) > most:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def row_groups(lengths: Sequence[int], groups: int, order: Sequence[int]) -> list[list[int]]:
    """Rows in `order`, split into at most `groups` with about as many steps each; no group is empty."""
    total, filled = sum(lengths), 0  # a row goes to the group in which its first step falls
    found: list[list[int]] = [[] for _ in range(groups)]
    for i in order:
        found[min(groups - 1, filled * groups // total)].append(i)
        filled += lengths[i]
    return [group for group in found if group]
