"""The words of a `.pomdp` file with their lines, read as they are asked for."""

from __future__ import annotations

import gzip
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NoReturn

from turnwise.run.errors import InputError

HEADERS = ("discount", "values", "states", "actions", "observations", "start", "goals")
TABLES = ("T", "O", "R")


def open_bytes(path: Path) -> IO[bytes]:
    """A file open for reading, unpacked where it begins as gzip does."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file; whatever stands in the way of reading it is an InputError."""
    number = 0
    try:
        with open_bytes(path) as file:
            for number, line in enumerate(file, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as e:
        raise InputError(f"{path}:{number}: not text in UTF-8 ({e.reason}); expected a .pomdp file") from e
    except (OSError, EOFError, zlib.error) as e:
        why = getattr(e, "strerror", None) or str(e)
        raise InputError(f"{path}: cannot be read ({why}); expected a .pomdp file, plain or gzip") from e


class Tokens:
    """Words in order; a colon is a word of its own, what follows # is not read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line = 0
        """of the last word taken"""
        self._lines = enumerate(_lines(path), 1)
        self._ahead: deque[tuple[str, int]] = deque()

    def fail(self, message: str, line: int | None = None) -> NoReturn:
        """An InputError at a line (that of the last word taken, if none is given)."""
        raise InputError(f"{self.path}:{self.line if line is None else line}: {message}")

    def whole_line(self) -> list[str] | None:
        """The words of the next line that has any, if no word of a line is left over; None otherwise."""
        if self._ahead:
            return None
        for number, line in self._lines:
            if "#" in line:
                line = line[: line.index("#")]
            words = line.replace(":", " : ").split()
            if words:
                self.line = number
                return words
        return None

    def give_back(self, words: list[str]) -> None:
        """Put back the words of a whole line."""
        self._ahead.extendleft((w, self.line) for w in reversed(words))

    def _fill(self, n: int) -> bool:
        while len(self._ahead) < n:
            held, self._ahead = self._ahead, deque()
            line = self.line
            words = self.whole_line()
            held.extend((w, self.line) for w in words or ())
            self._ahead, self.line = held, line
            if words is None:
                return False
        return True

    def peek(self, n: int = 0) -> str:
        """The word n words ahead, "" after the end."""
        return self._ahead[n][0] if self._fill(n + 1) else ""

    def take(self, expected: str) -> str:
        """The next word; an InputError that says what was expected where the file is over."""
        if not self._fill(1):
            self.fail(f"the file ends; expected {expected}")
        word, self.line = self._ahead.popleft()
        return word

    def skip(self, word: str) -> bool:
        """Take the next word if it is this one."""
        if self.peek() != word:
            return False
        self.take(word)
        return True

    def colon(self, after: str) -> None:
        """Take a colon."""
        word = self.take(f"a colon after {after}")
        if word != ":":
            self.fail(f"{shown(word)} after {after}; expected a colon")

    def at_statement(self) -> bool:
        """Whether a new statement begins here (or the file is over)."""
        word = self.peek()
        if word == "start" and self.peek(1) in ("include", "exclude"):
            return self.peek(2) == ":"
        return word == "" or ((word in HEADERS or word in TABLES) and self.peek(1) == ":")

    def items(self) -> list[str]:
        """All words up to the next statement."""
        words = []
        while not self.at_statement():
            words.append(self.take("a word"))
        return words


def shown(word: str) -> str:
    """A word as messages quote it."""
    return repr(word if len(word) <= 40 else word[:40] + "...")


def number(word: str) -> float | None:
    """A finite number, or None."""
    if "_" in word:
        return None
    try:
        value = float(word)
    except ValueError:
        return None
    return value if -1e300 < value < 1e300 else None


def index(word: str, size: int) -> int | None:
    """A whole number from 0 below `size`, or None."""
    if not (word.isascii() and word.isdigit()) or len(word) > 12:
        return None
    return int(word) if int(word) < size else None
