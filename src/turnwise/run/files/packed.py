"""Files that may be packed, read no further than makes sense.

A gzip file of a megabyte may unpack to a gigabyte, and that to one line: memory would be full before anything
could be said about it.
"""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from turnwise.run.errors import InputError

LONGEST_LINE = 64 << 20
"""bytes of a line; a conversation of a million words has some ten"""
MOST_TIMES = 200
"""how many times its size a packed file may unpack to; logs come to 5 to 50"""
ANYWAY = 64 << 20
"""bytes to which a packed file may unpack whatever its size"""


class Unpacked:
    """The bytes of a file. InputError at a line that is too long, and once too much has been unpacked."""

    def __init__(self, path: Path, file: Any, *, packed: bool, at: Callable[[int], None] | None = None):
        self.path, self.file, self.packed, self.at = path, file, packed, at
        self.most = max(ANYWAY, MOST_TIMES * path.stat().st_size) if packed else None
        self.taken = self.lines = 0

    def __iter__(self) -> Iterator[bytes]:
        """Its lines."""
        while line := self.file.readline(LONGEST_LINE + 1):
            self.lines += 1
            if len(line) > LONGEST_LINE:
                raise InputError(
                    f"{self.path}:{self.lines}: expected a line of at most {LONGEST_LINE >> 20} MiB; found a "
                    "longer one"
                )
            self._take(line)
            yield line

    def read(self) -> bytes:
        """All of it."""
        parts = []
        while part := self.file.read(1 << 20):
            self._take(part)
            parts.append(part)
        return b"".join(parts)

    def _take(self, part: bytes) -> None:
        before, self.taken = self.taken, self.taken + len(part)
        if self.at is not None and before >> 20 != self.taken >> 20:
            # Of a packed file, what is known beforehand is its size as it lies on disk.
            self.at(self.file.fileobj.tell() if self.packed else self.taken)
        if self.most is not None and self.taken > self.most:
            raise InputError(
                f"{self.path}: expected a packed file that unpacks to at most {MOST_TIMES} times its size; "
                f"found one that goes on after {self.most >> 20:,} MiB (unpack it first if it is meant so)"
            )


@contextlib.contextmanager
def unpacked(path: Path, *, packed: bool, at: Callable[[int], None] | None = None) -> Iterator[Unpacked]:
    """A file opened for reading, as it is or unpacked. OSError, EOFError or zlib.error if it is broken.

    `at` is called every MiB with the bytes of the file that have been read.
    """
    with gzip.open(path) if packed else path.open("rb") as file:
        yield Unpacked(path, file, packed=packed, at=at)


def looks_packed(path: Path) -> bool:
    """Whether a file begins as gzip files do, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"
