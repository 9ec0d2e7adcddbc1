"""Which of many things belong together, as they are joined two by two."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

import numpy as np

from turnwise.run.files.trouble import named

_FEW = 1 << 15  # numbers that are held in memory
_TOUCHED = 1 << 12  # joins after which the pages of the file that were touched are given back


class Forest:
    """Union-find on 0 .. n - 1, whose roots are the smallest of their trees.

    What is held is how far each number's parent lies below it, so that zeros, which an empty file is made of,
    are a forest of single trees; what was never joined takes no room on the disk.
    """

    def __init__(self, n: int) -> None:
        self._map: mmap.mmap | None = None
        self._joined = 0
        if n <= _FEW:
            self._below = np.zeros(n, np.int64)
            return
        with named(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
            os.truncate(file.fileno(), n * 8)
            self._map = mmap.mmap(file.fileno(), n * 8)
        self._below = np.frombuffer(self._map, np.int64)

    def join(self, a: int, b: int) -> None:
        """`a` and `b` are in one tree from now on."""
        a, b = self._root(a), self._root(b)
        self._below[max(a, b)] = max(a, b) - min(a, b)
        self._joined += 1
        if self._joined % _TOUCHED == 0:
            self._give_back()

    def _root(self, i: int) -> int:
        below = self._below
        while step := int(below[i]):
            parent = i - step
            # Halve the path: the grandparent becomes the parent.
            below[i] = step + int(below[parent])
            i -= int(below[i])
        return i

    def roots(self, numbers: np.ndarray) -> np.ndarray:
        """The root of each."""
        found = numbers
        while self._joined:
            step = self._below[found]
            if not step.any():
                break
            found = found - step
        self._give_back()
        return found

    def _give_back(self) -> None:
        # What is mapped counts as the process's memory until it is let go of; the file keeps it.
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)
