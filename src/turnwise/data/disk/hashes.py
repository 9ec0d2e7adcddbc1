"""A set of 64-bit hashes that need not fit into memory, and its file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from turnwise.data.disk.buckets import Buckets
from turnwise.data.disk.columns import Column
from turnwise.run.errors import InputError
from turnwise.run.files.whole import whole_file


class Hashes:
    """Different hashes in ascending order."""

    def __init__(self, found: Hashes | Column | Iterable[int] = ()) -> None:
        if isinstance(found, Hashes):
            self._sorted = found._sorted
            return
        if not isinstance(found, Column):
            found = Column.of(np.fromiter(found, np.uint64), np.uint64)
        self._sorted = _merged(found)

    def __len__(self) -> int:
        return len(self._sorted)

    def __iter__(self) -> Iterator[int]:
        return (x for block in self._sorted.blocks() for x in block.tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hashes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # large, and compared by what is in it

    def __or__(self, other: Hashes) -> Hashes:
        return Hashes(Column.joined((x for part in (self, other) for x in part._sorted.blocks()), np.uint64))

    def isin(self, hashes: np.ndarray) -> np.ndarray:
        """[n] bool, which of these are among them."""
        wanted = np.asarray(hashes, np.uint64)
        order = np.argsort(wanted)
        ordered, found, done = wanted[order], np.zeros(len(wanted), bool), 0
        for block in self._sorted.blocks():
            upto = int(np.searchsorted(ordered, block[-1], side="right"))
            found[order[done:upto]] = np.isin(ordered[done:upto], block)
            done = upto
        return found

    def __contains__(self, x: int) -> bool:
        return bool(self.isin(np.array([x], np.uint64))[0])

    def strange(self, hashes: Column) -> int:
        """How many of these are not among them."""
        return sum(int((~self.isin(block)).sum()) for block in hashes.blocks())

    def save(self, file: Path) -> None:
        """Write a `.npy` file, whole or not at all."""
        header = {"descr": "<u8", "fortran_order": False, "shape": (len(self),)}
        with whole_file(file) as part, part.open("wb") as opened:
            np.lib.format.write_array_header_1_0(opened, header)
            for block in self._sorted.blocks():
                opened.write(block.astype("<u8").tobytes())

    @classmethod
    def read(cls, file: Path) -> Hashes:
        """Those of a file; InputError if it is none that `save` wrote."""
        try:
            found = np.load(file, mmap_mode="r", allow_pickle=False)
            if found.dtype != np.uint64 or found.ndim != 1:
                raise ValueError(f"{found.dtype} of shape {list(found.shape)}")
        except (ValueError, EOFError) as error:
            raise InputError(f"{file}: expected the hashes that a run writes; found {error}") from None
        return cls(Column.joined((found[i : i + 65536] for i in range(0, len(found), 65536)), np.uint64))


def _merged(hashes: Column) -> Column:
    buckets = Buckets(np.dtype(np.uint64), len(hashes))
    for block in hashes.blocks():
        buckets.add(block, block)
    return Column.joined((np.unique(records) for records in buckets), np.uint64)
