"""The words of a `.pomdp` file with their lines, read when they are needed.

Cassandra's format is a stream of words: line breaks mean nothing, `#` begins a comment, a colon is a word of
its own with or without spaces. A statement ends where the next begins, so the reader looks up to two words
ahead. Large files are one cell a line; for those `whole_line` hands out a line without queueing its words.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from turnwise.run.errors import InputError
from turnwise.run.files.packed import looks_packed, unpacked

HEADERS = ("discount", "values", "states", "actions", "observations", "start", "goals")
TABLES = ("T", "O", "R")


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file. Whatever stands in the way of reading it is an InputError."""
    number = 0
    try:
        with unpacked(path, packed=looks_packed(path)) as file:
            for number, line in enumerate(file, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as e:
        raise InputError(f"{path}:{number}: not text in UTF-8 ({e.reason}); expected a .pomdp file") from e
    except (OSError, EOFError, zlib.error) as e:
        why = getattr(e, "strerror", None) or str(e)
        raise InputError(f"{path}: cannot be read ({why}); expected a .pomdp file, plain or gzip") from e


class WordReader:
    """The words of a file in order, with the line of the last one that was taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line = 0
        """line of the last word taken"""
        self._lines = enumerate(_lines(path), 1)
        self._ahead: deque[tuple[str, int]] = deque()  # (word, its line), read but not taken

    def fail(self, message: str, line: int | None = None) -> NoReturn:
        """Raise an InputError at a line, by default that of the last word taken."""
        raise InputError(f"{self.path}:{self.line if line is None else line}: {message}")

    def whole_line(self) -> list[str] | None:
        """The words of the next line that has any; None at the end, or if words of a line are left over."""
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
        """Put back the words of the line that `whole_line` gave."""
        self._ahead.extendleft((w, self.line) for w in reversed(words))

    def _fill(self, n: int) -> bool:
        """Read until n words are ahead; False if the file ends before."""
        while len(self._ahead) < n:
            # whole_line reads only if nothing is ahead, and moves `line`, which is that of words taken.
            ahead, self._ahead = self._ahead, deque()
            line = self.line
            words = self.whole_line()
            ahead.extend((w, self.line) for w in words or ())
            self._ahead, self.line = ahead, line
            if words is None:
                return False
        return True

    def peek(self, n: int = 0) -> str:
        """The word n words ahead, "" after the end."""
        return self._ahead[n][0] if self._fill(n + 1) else ""

    def take(self, expected: str) -> str:
        """Take the next word. At the end of the file, an InputError that says what was expected."""
        if not self._fill(1):
            self.fail(f"the file ends; expected {expected}")
        word, self.line = self._ahead.popleft()
        return word

    def skip(self, word: str) -> bool:
        """Take the next word if it is this one; whether it was."""
        if self.peek() != word:
            return False
        self.take(word)
        return True

    def colon(self, after: str) -> None:
        """Take a colon."""
        word = self.take(f"a colon after {after}")
        if word != ":":
            self.fail(f"{quoted(word)} after {after}; expected a colon")

    def at_statement(self) -> bool:
        """Whether a new statement begins here, or the file ends.

        A keyword begins one only if a colon follows: a state may be called `start`.
        """
        word = self.peek()
        if word == "start" and self.peek(1) in ("include", "exclude"):
            return self.peek(2) == ":"
        return word == "" or ((word in HEADERS or word in TABLES) and self.peek(1) == ":")

    def rest_of_statement(self) -> list[str]:
        """Take all words up to the next statement."""
        words = []
        while not self.at_statement():
            words.append(self.take("a word"))
        return words


def quoted(word: str) -> str:
    """A word in quotes for messages, cut if it is long."""
    return repr(word if len(word) <= 40 else word[:40] + "...")


def parse_number(word: str) -> float | None:
    """The finite number that a word stands for, or None."""
    if "_" in word:  # float() takes 1_000, Cassandra's format does not
        return None
    try:
        value = float(word)
    except ValueError:
        return None
    return value if -1e300 < value < 1e300 else None


def parse_index(word: str, size: int) -> int | None:
    """The whole number from 0 to below `size` that a word stands for, or None."""
    if not (word.isascii() and word.isdigit()) or len(word) > 12:
        return None
    return int(word) if int(word) < size else None
