"""The statements of a `.pomdp` file: headers, and cells, rows and matrices of T, O and R as rules."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NoReturn

import numpy as np

from turnwise.envs.pomdp import TOLERANCE
from turnwise.exact.files.rules import ANY, LARGEST, SLACK, Rules
from turnwise.exact.files.words import HEADERS, TABLES, Tokens, index, number, shown

KINDS: dict[str, tuple[str, ...]] = {
    "T": ("action", "state", "state"),
    "O": ("action", "state", "observation"),
    "R": ("action", "state", "state", "observation"),
}
"""what the coordinates of each table are"""
SECTIONS = {"action": "actions", "state": "states", "observation": "observations"}
MOST_NAMES = 2_000_000


class Parser:
    """What the statements of a file say, in order; nothing is checked yet that needs the whole file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tokens = Tokens(path)
        self.names: dict[str, tuple[str, ...]] = {}
        """"action", "state" and "observation" -> names in order"""
        self.lookup: dict[str, dict[str, int]] = {}
        """names, numbers and the wildcard -> index"""
        self.tables: dict[str, Rules] = {}
        self.seen: set[str] = set()
        self.discount = 1.0
        self.sign = 1.0
        self.goals: tuple[list[str], int] = ([], 0)
        self.start_words: tuple[str, list[str], int] = ("", ["uniform"], 0)
        self.start_used = False
        self.start_divided = False

    def read(self) -> None:
        """Read all statements."""
        tokens = self.tokens
        while True:
            words = tokens.whole_line()
            if words is not None:
                if self._plain_cell(words):
                    continue
                tokens.give_back(words)
            elif tokens.peek() == "":
                return
            self._statement()

    def _plain_cell(self, words: list[str]) -> bool:
        """Read a line that holds just one cell of a table, which is how large files are written."""
        kinds = KINDS.get(words[0])
        if kinds is None or len(words) != 2 * len(kinds) + 2 or words[0] not in self.tables:
            return False
        if words[1 : 2 * len(kinds) : 2] != [":"] * len(kinds):
            return False
        place = [self.lookup[kind].get(words[2 * i + 2]) for i, kind in enumerate(kinds)]
        value = number(words[-1])
        if value is None or None in place or (words[0] != "R" and not 0 <= value <= 1 + SLACK):
            return False
        self.tables[words[0]].add(place, value, self.tokens.line)  # type: ignore[arg-type]
        return True

    def _statement(self) -> None:
        tokens = self.tokens
        word = tokens.take("a statement")
        if word in TABLES:
            tokens.colon(word)
            self._table(word)
            return
        if word not in HEADERS:
            tokens.fail(
                f"{shown(word)}; expected a line that begins with T:, O:, R: or a header such as states:"
            )
        if word in self.seen:
            tokens.fail(f"a second {word}:; expected one")
        self.seen.add(word)
        which = tokens.take("a colon") if word == "start" and tokens.peek() in ("include", "exclude") else ""
        tokens.colon(f"{word} {which}".strip())
        line = tokens.line
        words = tokens.items()
        if not words:
            tokens.fail(f"nothing after {word}:; expected a value", line)
        if word == "discount":
            self.discount = self._one_number(word, words, line)
        elif word == "values":
            self.sign = self._sign_of(words, line)
        elif word == "goals":
            self.goals = (words, line)
        elif word == "start":
            if self.start_used:
                tokens.fail("start: after a row that resets to it; expected before", line)
            self.start_words = (which, words, line)
        else:
            self._declare(word, words, line)

    def _one_number(self, header: str, words: list[str], line: int) -> float:
        value = number(words[0]) if len(words) == 1 else None
        if value is None or not 0 <= value <= 1:
            self.tokens.fail(f"{header}: {shown(' '.join(words))}; expected a number from 0 to 1", line)
        return value

    def _sign_of(self, words: list[str], line: int) -> float:
        if words[0] not in ("reward", "rewards", "cost", "costs") or len(words) > 1:
            self.tokens.fail(f"values: {shown(' '.join(words))}; expected reward or cost", line)
        return 1.0 if words[0].startswith("reward") else -1.0

    def _declare(self, section: str, words: list[str], line: int) -> None:
        """Names, or how many there are."""
        kind = section.removesuffix("s")
        if self.tables:
            self.tokens.fail(f"{section}: after the first table; expected before", line)
        if len(words) == 1 and (count := number(words[0])) is not None:
            if not words[0].isdigit() or not 1 <= count <= MOST_NAMES:
                self.tokens.fail(
                    f"{section}: {shown(words[0])}; expected names or a count from 1 to {MOST_NAMES}", line
                )
            words = [str(i) for i in range(int(count))]
        twice = next((w for w in dict.fromkeys(words) if w in (":", "*")), None)
        if twice is None and len(set(words)) < len(words):
            known: set[str] = set()
            twice = next(w for w in words if w in known or known.add(w))
        if twice is not None:
            self.tokens.fail(
                f"{section}: {shown(twice)} is no name or comes twice; expected different names", line
            )
        self.names[kind] = tuple(words)
        lookup = {str(i): i for i in range(len(words))}
        lookup.update(zip(words, range(len(words)), strict=True))
        self.lookup[kind] = {**lookup, "*": ANY}

    def size(self, kind: str) -> int:
        """How many actions, states or observations there are."""
        return len(self.names[kind])

    # -- tables

    def _table(self, which: str) -> None:
        """A cell, a row or a matrix of T, O or R; the colon after the letter is taken."""
        self._open_tables()
        tokens, kinds, rules = self.tokens, KINDS[which], self.tables[which]
        place = [self._index_of(kinds[0])]
        while len(place) < len(kinds) and tokens.skip(":"):
            place.append(self._index_of(kinds[len(place)]))
        if len(place) == len(kinds):
            tokens.skip(":")
        if which == "R" and len(place) == 1:
            tokens.fail("R: of an action alone; expected R: action : state and more")
        line = tokens.line
        if which != "R" and tokens.peek() in ("uniform", "identity", "reset"):
            self._keyword(which, place, tokens.take("a value"), line)
            return
        shape = rules.sizes[len(place) :]
        values = self._numbers(math.prod(shape), which)
        if not shape:
            rules.add(place, values[0], line)
        else:
            rules.set_rows(place, np.array(values).reshape(shape), line)

    def _open_tables(self) -> None:
        if self.tables:
            return
        for kind, section in SECTIONS.items():
            if kind not in self.names:
                self.tokens.fail(f"a table before {section}:; expected {section}: first")
        sizes = {kind: self.size(kind) for kind in SECTIONS}
        if sizes["action"] * sizes["state"] > LARGEST or math.prod(sizes[k] for k in KINDS["R"]) >= 2**62:
            self.tokens.fail("more states, actions and observations than can be read")
        self.tables = {which: Rules([sizes[kind] for kind in kinds]) for which, kinds in KINDS.items()}

    def _index_of(self, kind: str) -> int:
        word = self.tokens.take(f"the name of a{'n' if kind[0] in 'ao' else ''} {kind}")
        at = self._find(kind, word)
        if at is None:
            self._unknown(kind, word, self.tokens.line)
        return at

    def _find(self, kind: str, word: str) -> int | None:
        at = self.lookup[kind].get(word)
        return index(word, self.size(kind)) if at is None else at

    def _unknown(self, kind: str, word: str, line: int) -> NoReturn:
        n = self.size(kind)
        names = ", ".join(self.names[kind][:4]) + (", ..." if n > 4 else "")
        self.tokens.fail(f"{shown(word)} is no {kind}; expected one of {n}: {names}", line)

    def _numbers(self, n: int, which: str) -> list[float]:
        what = f"{n} number{'s' if n > 1 else ''}"
        values = []
        for i in range(n):
            word = self.tokens.take(what) if not self.tokens.at_statement() else ""
            value = number(word)
            if value is None:
                self.tokens.fail(f"{shown(word) if word else 'nothing'} after {i} of {what} of {which}")
            if which != "R" and not 0 <= value <= 1 + SLACK:
                self.tokens.fail(f"{which}: {word}; expected a probability from 0 to 1")
            values.append(value)
        return values

    def _keyword(self, which: str, place: list[int], word: str, line: int) -> None:
        rules = self.tables[which]
        shape = rules.sizes[len(place) :]
        free = [ANY] * len(shape)
        if not shape or (word == "reset" and which == "O"):
            self.tokens.fail(f"{which}: {word} here; expected a number", line)
        if word == "uniform":
            rules.add([*place, *free], 1 / shape[-1], line)
            return
        if word == "identity":
            if len(shape) != 2 or shape[0] != shape[1]:
                self.tokens.fail(f"{which}: identity; expected it for a square matrix", line)
            rules.add([*place, *free], 0.0, line)
            for i in range(shape[0]):
                rules.add([*place, i, i], 1.0, line)
            return
        first = len(rules)
        start = self.start()
        self.start_used = True
        rules.add([*place, *free], 0.0, line)
        for i in np.flatnonzero(start).tolist():
            rules.add([*place, *free[:-1], i], float(start[i]), line)
        rules.marked.update(range(first, len(rules)))

    def start(self) -> np.ndarray:
        """[S], the start distribution."""
        which, words, line = self.start_words
        S = self.size("state")
        start = np.zeros(S)
        if which:
            members = [self._state_of(word, line) for word in words]
            start[:] = which == "exclude"
            start[members] = which == "include"
            if not start.any():
                self.tokens.fail("start exclude: all states; expected some to be left", line)
            return start / start.sum()
        if words == ["uniform"]:
            return np.full(S, 1 / S)
        if len(words) == 1 and (S > 1 or words[0] in self.names["state"]):
            start[self._state_of(words[0], line)] = 1.0
            return start
        values = [number(word) for word in words]
        if len(words) != S or any(v is None or v < 0 for v in values):
            self.tokens.fail(
                f"start: {len(words)} words; expected {S} probabilities, one state or uniform", line
            )
        start[:] = [v or 0.0 for v in values]
        total = float(start.sum())
        if abs(total - 1) > SLACK:
            self.tokens.fail(f"start: probabilities sum to {total:.9g}; expected 1", line)
        self.start_divided = abs(total - 1) > TOLERANCE
        return start / total if self.start_divided else start

    def _state_of(self, word: str, line: int) -> int:
        at = self._find("state", word)
        if at is None or at == ANY:
            self._unknown("state", word, line)
        return at

    def goal_states(self) -> list[int]:
        """The states of `goals:`."""
        words, line = self.goals
        return [self._state_of(word, line) for word in words]

    def signed(self, values: np.ndarray) -> np.ndarray:
        """Rewards of values as they stand in the file."""
        return values if self.sign > 0 else 0.0 - values
