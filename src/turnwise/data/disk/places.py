"""A choice of rows: which places, in which order. Neighbours take no room, other places lie in a column."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from turnwise.data.disk import columns
from turnwise.data.disk.columns import Column


@dataclass(frozen=True)
class Places:
    """Places in something, in a fixed order."""

    found: range | Column

    @classmethod
    def first(cls, n: int) -> Places:
        """0 .. n - 1."""
        return cls(range(n))

    @classmethod
    def of(cls, places: Places | range | Column | np.ndarray) -> Places:
        """These, which are taken as they are if they are such."""
        if isinstance(places, Places):
            return places
        if isinstance(places, range) and places.step == 1:
            return cls(places)
        return cls(Column.of(places))

    @classmethod
    def where(cls, blocks: Iterable[np.ndarray]) -> Places:
        """Where a column of booleans is true."""

        def found() -> Iterator[np.ndarray]:
            before = 0
            for block in blocks:
                yield np.flatnonzero(block) + before
                before += len(block)

        return cls(Column.joined(found(), np.int64))

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, i: int) -> int:
        """The i-th place; negative numbers count from the end."""
        return int(self.found[range(len(self))[i]])

    def slice(self, part: slice) -> Places:
        """A part of them."""
        start, stop, step = part.indices(len(self))
        if step == 1:
            if isinstance(self.found, range):
                return Places(self.found[start:stop])
            stop = max(start, stop)
            return Places(Column.joined(self.found.blocks(start, stop), np.int64))
        return self.within(np.arange(start, stop, step))

    def within(self, places: Places | range | Column | np.ndarray) -> Places:
        """Those at these places among them, in their order."""
        inner = Places.of(places)
        if isinstance(self.found, range):
            if isinstance(inner.found, range):
                return Places(self.found[inner.found.start : inner.found.stop])
            if self.found.start == 0:
                return inner
            first = self.found.start
            return Places(Column.joined((block + first for block in inner.blocks()), np.int64))
        taken = (self.found.take(block) for block in inner.blocks())
        return Places(Column.joined(taken, np.int64))

    def blocks(self, size: int | None = None) -> Iterator[np.ndarray]:
        """All of them, some at a time."""
        size = size or columns.BLOCK
        if isinstance(self.found, Column):
            return self.found.blocks(size=size)
        r = self.found
        return (np.arange(at, min(r.stop, at + size)) for at in range(r.start, r.stop, size))
