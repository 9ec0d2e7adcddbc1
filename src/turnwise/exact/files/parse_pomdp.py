"""The statements of a `.pomdp` file: headers, and cells, rows and matrices of T, O and R as rules.

A parser by recursive descent over `words`. It checks what one statement can be wrong about, and keeps lines
for messages; `pomdp` checks what needs the whole file (rows that sum to 1, sections that are missing).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NoReturn

import numpy as np

from turnwise.envs.pomdp import TOLERANCE
from turnwise.exact.files.rules import ANY, LARGEST, SLACK, Rules
from turnwise.exact.files.words import HEADERS, TABLES, WordReader, parse_index, parse_number, quoted

KINDS: dict[str, tuple[str, ...]] = {
    "T": ("action", "state", "state"),
    "O": ("action", "state", "observation"),
    "R": ("action", "state", "state", "observation"),
}
"""the coordinates of each table"""
SECTIONS = {"action": "actions", "state": "states", "observation": "observations"}
MOST_NAMES = 2_000_000
"""largest number of states, actions or observations: names alone would fill the memory"""


class Parser:
    """The statements of a file, read in order into names, rules and numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reader = WordReader(path)
        self.names: dict[str, tuple[str, ...]] = {}
        """"action", "state" and "observation" -> names in order"""
        self.lookup: dict[str, dict[str, int]] = {}
        """for each kind: names, numbers and the wildcard -> index"""
        self.tables: dict[str, Rules] = {}
        self.headers: set[str] = set()
        """those that have been read, since each may stand once"""
        self.discount = 1.0
        self.sign = 1.0
        """-1 if R holds costs"""
        self.goals: tuple[list[str], int] = ([], 0)
        """words of the line, and its number"""
        self.start_words: tuple[str, list[str], int] = ("", ["uniform"], 0)
        """"include", "exclude" or ""; the words that follow; the line. Read late: states may be declared
        later"""
        self.start_used = False
        """whether a row was reset to the start, so that it must not change any more"""
        self.start_divided = False
        """whether the probabilities did not sum to 1 and were divided"""

    def read(self) -> None:
        """Read all statements."""
        reader = self.reader
        while True:
            words = reader.whole_line()
            if words is not None:
                if self._plain_cell(words):
                    continue
                reader.give_back(words)
            elif reader.peek() == "":
                return
            self._statement()

    def _plain_cell(self, words: list[str]) -> bool:
        """Read a line that holds just one cell of a table; False, with nothing read, if it is anything else.

        Large files consist of such lines (18.6 MB of them), so they take this short way. What is wrong with a
        line is left to the long way, which has the messages.
        """
        kinds = KINDS.get(words[0])
        if kinds is None or len(words) != 2 * len(kinds) + 2 or words[0] not in self.tables:
            return False
        if words[1 : 2 * len(kinds) : 2] != [":"] * len(kinds):
            return False
        place = [self.lookup[kind].get(words[2 * i + 2]) for i, kind in enumerate(kinds)]
        value = parse_number(words[-1])
        if value is None or None in place or (words[0] != "R" and not 0 <= value <= 1 + SLACK):
            return False
        self.tables[words[0]].add(place, value, self.reader.line)  # type: ignore[arg-type]
        return True

    def _statement(self) -> None:
        """Read one statement of any kind."""
        reader = self.reader
        word = reader.take("a statement")
        if word in TABLES:
            reader.colon(word)
            self._table(word)
            return
        if word not in HEADERS:
            reader.fail(
                f"{quoted(word)}; expected a line that begins with T:, O:, R: or a header such as states:"
            )
        if word in self.headers:
            reader.fail(f"a second {word}:; expected one")
        self.headers.add(word)
        which = reader.take("a colon") if word == "start" and reader.peek() in ("include", "exclude") else ""
        reader.colon(f"{word} {which}".strip())
        line = reader.line
        words = reader.rest_of_statement()
        if not words:
            reader.fail(f"nothing after {word}:; expected a value", line)
        if word == "discount":
            self.discount = self._one_number(word, words, line)
        elif word == "values":
            self.sign = self._sign_of(words, line)
        elif word == "goals":
            self.goals = (words, line)
        elif word == "start":
            if self.start_used:
                reader.fail("start: comes after a row that resets to it; expected it before", line)
            self.start_words = (which, words, line)
        else:
            self._declare(word, words, line)

    def _one_number(self, header: str, words: list[str], line: int) -> float:
        value = parse_number(words[0]) if len(words) == 1 else None
        if value is None or not 0 <= value <= 1:
            self.reader.fail(f"{header}: {quoted(' '.join(words))}; expected a number from 0 to 1", line)
        return value

    def _sign_of(self, words: list[str], line: int) -> float:
        if words[0] not in ("reward", "rewards", "cost", "costs") or len(words) > 1:
            self.reader.fail(f"values: {quoted(' '.join(words))}; expected reward or cost", line)
        return 1.0 if words[0].startswith("reward") else -1.0

    def _declare(self, section: str, words: list[str], line: int) -> None:
        """Declare the names of a section; a single number says how many there are, called 0, 1, ..."""
        kind = section.removesuffix("s")
        if len(words) == 1 and (count := parse_number(words[0])) is not None:
            if not words[0].isdigit() or not 1 <= count <= MOST_NAMES:
                self.reader.fail(
                    f"{section}: {quoted(words[0])}; expected names or a count from 1 to {MOST_NAMES}", line
                )
            words = [str(i) for i in range(int(count))]
        if reserved := {":", "*"} & set(words):
            self.reader.fail(f"{section}: {quoted(min(reserved))} is no name; expected names", line)
        if len(set(words)) < len(words):
            known: set[str] = set()
            twice = next(w for w in words if w in known or known.add(w))
            self.reader.fail(f"{section}: {quoted(twice)} comes twice; expected different names", line)
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
        reader, kinds, rules = self.reader, KINDS[which], self.tables[which]
        place = [self._index_of(kinds[0])]
        while len(place) < len(kinds) and reader.skip(":"):
            place.append(self._index_of(kinds[len(place)]))
        if len(place) == len(kinds):
            reader.skip(":")
        if which == "R" and len(place) == 1:
            reader.fail("R: names an action alone; expected at least R: action : state")
        line = reader.line
        if which != "R" and reader.peek() in ("uniform", "identity", "reset"):
            self._keyword(which, place, reader.take("a value"), line)
            return
        shape = rules.sizes[len(place) :]
        values = self._numbers(math.prod(shape), which)
        if not shape:
            rules.add(place, values[0], line)
        else:
            rules.set_rows(place, np.array(values).reshape(shape), line)

    def _open_tables(self) -> None:
        """Make the tables at the first statement of one, when their sizes must be known."""
        if self.tables:
            return
        for kind, section in SECTIONS.items():
            if kind not in self.names:
                self.reader.fail(f"a table comes before {section}:; expected {section}: first")
        sizes = {kind: self.size(kind) for kind in SECTIONS}
        if sizes["action"] * sizes["state"] > LARGEST or math.prod(sizes[k] for k in KINDS["R"]) >= 2**62:
            self.reader.fail(
                f"{sizes['state']:,} states, {sizes['action']:,} actions and {sizes['observation']:,} "
                f"observations; expected at most {LARGEST:,} pairs of an action and a state"
            )
        self.tables = {which: Rules([sizes[kind] for kind in kinds]) for which, kinds in KINDS.items()}

    def _index_of(self, kind: str) -> int:
        """Take a name, a number or a wildcard; its index, or ANY."""
        word = self.reader.take(f"the name of a{'n' if kind[0] in 'ao' else ''} {kind}")
        at = self._find(kind, word)
        if at is None:
            self._unknown(kind, word, self.reader.line)
        return at

    def _find(self, kind: str, word: str) -> int | None:
        at = self.lookup[kind].get(word)
        return parse_index(word, self.size(kind)) if at is None else at

    def _unknown(self, kind: str, word: str, line: int) -> NoReturn:
        n = self.size(kind)
        names = ", ".join(self.names[kind][:4]) + (", ..." if n > 4 else "")
        self.reader.fail(f"{quoted(word)} is no {kind}; expected one of {n}: {names}", line)

    def _numbers(self, n: int, which: str) -> list[float]:
        """Take n numbers of a table."""
        values = []
        for i in range(n):
            what = f"a number for {which} (number {i + 1} of {n})"
            word = self.reader.take(what) if not self.reader.at_statement() else ""
            value = parse_number(word)
            if value is None:
                self.reader.fail(f"{quoted(word) if word else 'nothing more'}; expected {what}")
            if which != "R" and not 0 <= value <= 1 + SLACK:
                self.reader.fail(f"{which}: {word}; expected a probability from 0 to 1")
            values.append(value)
        return values

    def _keyword(self, which: str, place: list[int], word: str, line: int) -> None:
        """Add the rules of `uniform`, `identity` or `reset` at the coordinates `place`."""
        rules = self.tables[which]
        shape = rules.sizes[len(place) :]
        free = [ANY] * len(shape)
        if not shape or (word == "reset" and which == "O"):
            self.reader.fail(f"{which}: {word} here; expected a number", line)
        if word == "uniform":
            rules.add([*place, *free], 1 / shape[-1], line)
            return
        if word == "identity":
            if len(shape) != 2 or shape[0] != shape[1]:
                self.reader.fail(f"{which}: identity; expected it for a square matrix", line)
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
        rules.resets.update(range(first, len(rules)))

    def start(self) -> np.ndarray:
        """[S], the start distribution, read from its words."""
        which, words, line = self.start_words
        S = self.size("state")
        start = np.zeros(S)
        if which:
            members = [self._state_of(word, line) for word in words]
            start[:] = which == "exclude"
            start[members] = which == "include"
            if not start.any():
                self.reader.fail("start exclude: names all states; expected one to be left", line)
            return start / start.sum()
        if words == ["uniform"]:
            return np.full(S, 1 / S)
        if len(words) == 1 and (S > 1 or words[0] in self.names["state"]):
            start[self._state_of(words[0], line)] = 1.0
            return start
        values = [parse_number(word) for word in words]
        if len(words) > 1 and all(self._find("state", word) not in (None, ANY) for word in words):
            named = any(v is None for v in values)  # numbers may be states, but are probabilities first
            if named or (len(words) != S and all(word.isdigit() for word in words)):
                self.reader.fail(
                    f"start: {quoted(' '.join(words))} are {len(words)} states; expected {S} probabilities, "
                    f"one state or uniform; did you mean start include: {' '.join(words[:4])}"
                    f"{' ...' if len(words) > 4 else ''}",
                    line,
                )
        if len(words) != S or any(v is None or v < 0 for v in values):
            self.reader.fail(
                f"start: {len(words)} words; expected {S} probabilities, one state or uniform", line
            )
        start[:] = [v or 0.0 for v in values]
        total = float(start.sum())
        if abs(total - 1) > SLACK:
            self.reader.fail(f"start: probabilities sum to {total:.9g}; expected 1", line)
        self.start_divided = abs(total - 1) > TOLERANCE
        return start / total if self.start_divided else start

    def _state_of(self, word: str, line: int) -> int:
        at = self._find("state", word)
        if at is None or at == ANY:
            self._unknown("state", word, line)
        return at

    def goal_states(self) -> list[int]:
        """The indices of the states in `goals:`."""
        words, line = self.goals
        return [self._state_of(word, line) for word in words]

    def signed(self, values: np.ndarray) -> np.ndarray:
        """Rewards, from values as they stand in the file: costs change sign."""
        return values if self.sign > 0 else 0.0 - values  # 0 - x: no cost gives no -0.0
