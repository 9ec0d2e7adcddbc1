"""Sorting and grouping of more than memory holds: records go into buckets by a number, and each bucket fits.

The first bits of a hash say in which bucket a record is, so that equal ones meet in one bucket, and the
buckets in their order are in the order of the hash. With few records there is one bucket, in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from turnwise.data.disk.columns import Column

FULL = 1 << 14
"""records of a bucket, on average at most"""
MOST = 4096
"""buckets at most; above some 270 million records they grow"""
_WAITING = 1 << 19
"""bytes of records that are held before they are written"""
_ASIDE = 1 << 13  # places of parts of buckets that are read together


class Buckets:
    """Records by a number from 0 to 2^64, spread evenly."""

    def __init__(self, dtype: np.dtype, expected: int) -> None:
        """`expected`: about how many records there will be."""
        bits = 0
        while FULL << bits < expected and 1 << bits < MOST:
            bits += 1
        self._bits, self._records = bits, Column(dtype)
        self._waiting, self._held = list[tuple[np.ndarray, np.ndarray]](), 0
        # Of each time that records were written, where those of each bucket begin, and where they all end.
        self._begins, self._times = Column(np.int64), 0

    def add(self, by: np.ndarray, records: np.ndarray) -> None:
        """Append; `by` [n] uint64 says in which bucket each of them is."""
        if not self._bits:
            self._records.extend(records)
            return
        where = (by >> np.uint64(64 - self._bits)).astype(np.int64)
        self._waiting.append((where, records))
        self._held += records.nbytes
        if self._held > _WAITING:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        where = np.concatenate([w for w, _ in self._waiting])
        records = np.concatenate([r for _, r in self._waiting])
        order = np.argsort(where, kind="stable")
        begins = np.searchsorted(where[order], np.arange((1 << self._bits) + 1))
        self._begins.extend(begins + len(self._records))
        self._records.extend(records[order])
        self._waiting, self._held, self._times = [], 0, self._times + 1

    def __iter__(self) -> Iterator[np.ndarray]:
        """The records of one bucket after the other, in the order in which they came."""
        if not self._bits:
            yield self._records.array()
            return
        self._write()
        every, aside = (1 << self._bits) + 1, max(1, _ASIDE // max(1, self._times))
        for bucket in range(0, 1 << self._bits, aside):
            upto = min(every, bucket + aside + 1)
            begins = [self._begins.read(t * every + bucket, t * every + upto) for t in range(self._times)]
            for ends in np.stack([np.stack([x[:-1], x[1:]], axis=1) for x in begins], axis=1).tolist():
                parts = [self._records.read(a, b) for a, b in ends if a < b]
                if parts:
                    yield np.concatenate(parts)


def spread(places: np.ndarray, n: int) -> np.ndarray:
    """Places 0 .. n - 1 as numbers from 0 to 2^64, in the same order: the bucket of a range of places."""
    step = np.uint64(((1 << 64) - 1) // max(n, 1))
    return places.astype(np.uint64) * step


def placed(blocks: Iterable[tuple[np.ndarray, np.ndarray]], n: int, dtype: np.dtype, fill: int = 0) -> Column:
    """A column of n numbers out of (places, numbers) in any order; what has no number gets `fill`."""
    pair = np.dtype([("at", np.int64), ("value", dtype)])
    buckets = Buckets(pair, n)
    for places, values in blocks:
        records = np.empty(len(places), pair)
        records["at"], records["value"] = places, values
        buckets.add(spread(places, n), records)
    made, done = Column(dtype), 0
    for records in buckets:
        if not len(records):
            continue
        # A bucket has the places of one range, and the ranges come in their order.
        first, end = int(records["at"].min()), int(records["at"].max()) + 1
        _fill(made, first - done, fill)
        part = np.full(end - first, fill, dtype)
        part[records["at"] - first] = records["value"]
        made.extend(part)
        done = end
    _fill(made, n - done, fill)
    return made


def _fill(column: Column, count: int, value: int) -> None:
    for at in range(0, count, FULL):
        column.extend(np.full(min(FULL, count - at), value, column.dtype))


def distinct(hashes: Column) -> int:
    """How many different numbers a column of 64-bit hashes has."""
    buckets = Buckets(hashes.dtype, len(hashes))
    for block in hashes.blocks():
        buckets.add(block.view(np.uint64), block)
    return sum(len(np.unique(records)) for records in buckets)
