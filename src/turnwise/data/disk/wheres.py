"""Where rows stand, as errors name it: `logs/part-3.jsonl:12`, a number each and the name of a file once."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right

import numpy as np

from turnwise.data.disk.columns import BLOCK, Column

_NUMBERED = re.compile(r"(.*?)(0|[1-9]\d{0,17})(\D?)", re.DOTALL | re.ASCII)


class Wheres:
    """Short texts that differ from the one before in a number alone, as a rule."""

    def __init__(self) -> None:
        self._forms, self._begins = list[tuple[str, str]](), list[int]()
        self._numbers, self._waiting = Column(np.int64), array("q")
        self._before, self._after, self._cut = "\0", "", 0

    def add(self, text: str) -> None:
        """Append one."""
        number = text[len(self._before) : len(text) - self._cut]
        alike = text.startswith(self._before) and text.endswith(self._after)
        plain = number.isdecimal() and number.isascii() and len(number) < 19
        if not (alike and plain and (number[0] != "0" or number == "0")):
            found = _NUMBERED.fullmatch(text)
            self._before, number, self._after = (text, "-1", "") if found is None else found.groups()
            self._cut = len(self._after)
            self._begins.append(len(self))
            self._forms.append((self._before, self._after))
        self._waiting.append(int(number))
        if len(self._waiting) == BLOCK:
            self._numbers.extend(np.array(self._waiting, np.int64))
            del self._waiting[:]

    def __len__(self) -> int:
        return len(self._numbers) + len(self._waiting)

    def __getitem__(self, i: int) -> str:
        done = len(self._numbers)
        number = int(self._numbers[i]) if i < done else self._waiting[i - done]
        before, after = self._forms[bisect_right(self._begins, i) - 1]
        return before if number < 0 else f"{before}{number}{after}"
