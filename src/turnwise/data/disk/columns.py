"""Long columns of numbers that take no memory: what is more than a little lies in a file.

A file has no name: it lies in the system's temporary folder (the environment variable TMPDIR says which) and
is gone with the process, however that ends, so that nothing half-written is ever found. It is read where it
is used, by `pread`, and not mapped into memory: pages of a map count as the process's own until the system
takes them back, and a pass over a map of 10 million rows would look like 10 million rows in memory.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self, overload

import numpy as np

from turnwise.run.files.trouble import named

HELD = 128 << 10
"""bytes of a column that are held in memory; a column that is longer lies in a file"""
BLOCK = 1 << 14
"""numbers that are read at a time when a column is read from its beginning to its end"""
_SPARSE = 256
"""A column is read from end to end for more than one number in so many: a call costs as much as 2 KiB do."""


class Column:
    """Numbers of one type, which grow at the end."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._file: int | None = None  # its descriptor, once there is one
        self._parts = list[np.ndarray]()  # what is not in the file
        self._waiting = self._size = self._written = 0

    @classmethod
    def of(cls, values: Any, dtype: Any = np.int64) -> Self:
        """A column of these numbers, which is taken as it is if it is one."""
        return values if isinstance(values, cls) else cls.joined([np.asarray(values)], dtype)

    @classmethod
    def joined(cls, blocks: Iterable[np.ndarray], dtype: Any) -> Self:
        """One after the other."""
        made = cls(dtype)
        for block in blocks:
            made.extend(block)
        return made

    def extend(self, values: Any) -> None:
        """Append."""
        found = np.asarray(values, self.dtype)
        self._parts.append(found)
        self._size += len(found)
        self._waiting += found.nbytes
        if self._waiting > HELD:
            self._write()

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return (x for block in self.blocks() for x in block.tolist())

    @overload
    def __getitem__(self, i: int) -> Any: ...
    @overload
    def __getitem__(self, i: slice) -> np.ndarray: ...
    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return self.take(np.arange(self._size)[i])
        at = range(self._size)[i]
        return self.read(at, at + 1)[0]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Numbers start .. stop - 1, not to be changed."""
        if self._file is None:
            return self._held()[start:stop]
        if self._parts:
            self._write()
        width = self.dtype.itemsize
        with _in_temporary_folder():
            found = os.pread(self._file, (stop - start) * width, start * width)
        return np.frombuffer(found, self.dtype)

    def blocks(
        self, start: int = 0, stop: int | None = None, size: int | None = None
    ) -> Iterator[np.ndarray]:
        """All from `start` to `stop`, some at a time."""
        end, size = self._size if stop is None else stop, size or BLOCK
        return (self.read(at, min(end, at + size)) for at in range(start, end, size))

    def take(self, places: np.ndarray) -> np.ndarray:
        """The numbers at these places, in this order."""
        places = np.asarray(places, np.int64)
        if self._file is None:
            return self._held()[places]
        found = np.empty(len(places), self.dtype)
        if len(places) * _SPARSE < self._size:
            for i, at in enumerate(places.tolist()):
                found[i] = self.read(at, at + 1)[0]
            return found
        order = np.argsort(places, kind="stable")
        ordered, done = places[order], 0
        for at in range(0, self._size, BLOCK):
            upto = int(np.searchsorted(ordered, at + BLOCK))
            if upto > done:
                block = self.read(at, min(self._size, at + BLOCK))
                found[order[done:upto]] = block[ordered[done:upto] - at]
            done = upto
        return found

    def array(self) -> np.ndarray:
        """All of them in memory: for who needs them so, and has room."""
        return self.read(0, self._size)

    def tolist(self) -> list[Any]:
        """All of them as Python's numbers."""
        return self.array().tolist()

    def sum(self) -> int:
        """Of whole numbers."""
        return sum(int(block.sum(dtype=np.int64)) for block in self.blocks())

    def max(self) -> int:
        """Of whole numbers, 0 of none."""
        return max((int(block.max()) for block in self.blocks()), default=0)

    def above(self, bound: float) -> int:
        """How many are larger."""
        return sum(int((block > bound).sum()) for block in self.blocks())

    def _held(self) -> np.ndarray:
        if len(self._parts) != 1:
            self._parts = [np.concatenate(self._parts) if self._parts else np.zeros(0, self.dtype)]
        return self._parts[0]

    def _write(self) -> None:
        if self._file is None:
            self._file = _nameless(self)
        parts, self._parts, self._waiting = self._parts, [], 0
        for part in parts:
            self._written = write_at(self._file, np.ascontiguousarray(part), self._written)


def _nameless(owner: Any) -> int:
    """The descriptor of a file without a name, closed when its owner is gone."""
    with _in_temporary_folder(), tempfile.TemporaryFile() as file:
        descriptor = os.dup(file.fileno())
    weakref.finalize(owner, os.close, descriptor)
    return descriptor


def write_at(file: int, values: np.ndarray, at: int) -> int:
    """Write all of `values` at a byte of a file; the byte behind them."""
    data = memoryview(values.tobytes())
    with _in_temporary_folder():
        while len(data):
            done = os.pwrite(file, data, at)
            data, at = data[done:], at + done
    return at


def _in_temporary_folder() -> Any:
    """Trouble names the folder: the file has no name, but its folder may be full."""
    return named(Path(tempfile.gettempdir()))


class Records:
    """Strings of bytes, one after the other."""

    def __init__(self) -> None:
        self._text, self._ends = Column(np.uint8), Column(np.int64)
        self._parts, self._lasts, self._waiting, self._size = list[bytes](), list[int](), 0, 0
        self._ends.extend([0])

    def add(self, record: bytes) -> None:
        """Append one."""
        self._parts.append(record)
        self._size += len(record)
        self._lasts.append(self._size)
        self._waiting += len(record)
        if self._waiting > HELD or len(self._lasts) >= BLOCK:
            self._settle()

    def _settle(self) -> None:
        if self._lasts:
            self._text.extend(np.frombuffer(b"".join(self._parts), np.uint8))
            self._ends.extend(self._lasts)
            self._parts, self._lasts, self._waiting = [], [], 0

    def __len__(self) -> int:
        return len(self._ends) - 1 + len(self._lasts)

    def __getitem__(self, i: int) -> bytes:
        self._settle()
        start, stop = self._ends.read(i, i + 2).tolist()
        return self._text.read(start, stop).tobytes()

    def at(self, places: np.ndarray) -> Iterator[bytes]:
        """Those at these places, in this order; neighbours are read together."""
        self._settle()
        places = np.asarray(places, np.int64)
        breaks = np.flatnonzero(np.diff(places) != 1) + 1
        for start, stop in zip([0, *breaks.tolist()], [*breaks.tolist(), len(places)], strict=True):
            if start == stop:
                return
            first, last = int(places[start]), int(places[stop - 1])
            ends = self._ends.read(first, last + 2).tolist()
            text = self._text.read(ends[0], ends[-1]).tobytes()
            begin = ends[0]
            for a, b in itertools.pairwise(ends):
                yield text[a - begin : b - begin]
