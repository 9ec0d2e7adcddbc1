"""Tables given as rules with wildcards ("any action, any state: 0"), resolved without writing them out.

Files of POMDPs say what holds for all places first and then correct some of them; of two rules for a place
the later one holds. A table of 12,545 states by 13 actions by 12,545 states is never laid out: the last rule
for a place is looked up only where something can stand.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from turnwise.envs.pomdp import TOLERANCE
from turnwise.envs.rows import Rows
from turnwise.run.errors import InputError

ANY = -1
"""the coordinate of a wildcard"""
LARGEST = 20_000_000
"""places of a table: more would not fit a common machine, and an error is kinder than the end of memory"""
SLACK = 1e-4
"""rows of probabilities off by more than this are refused, by less are divided by their sum"""


class Rules:
    """Rules in the order written: coordinates (ANY for a wildcard), a value, the line, and a mark."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.places = tuple(array("i") for _ in sizes)
        self.values = array("d")
        self.lines = array("i")
        self.marked: set[int] = set()
        """numbers of rules whose places are remembered as special (the resets of a file)"""

    def __len__(self) -> int:
        return len(self.values)

    def add(self, place: Sequence[int], value: float, line: int) -> None:
        """One rule."""
        for column, at in zip(self.places, place, strict=True):
            column.append(at)
        self.values.append(value)
        self.lines.append(line)

    def set_rows(self, place: Sequence[int], values: np.ndarray, line: int) -> None:
        """All of `values` at `place` in the first coordinates: one rule for zeros, one for each other."""
        self.add([*place, *[ANY] * values.ndim], 0.0, line)
        for at in np.argwhere(values):
            self.add([*place, *at.tolist()], float(values[tuple(at)]), line)

    def _columns(self) -> list[np.ndarray]:
        return [np.frombuffer(c, np.int32) if len(c) else np.zeros(0, np.int32) for c in self.places]

    def _value_array(self) -> np.ndarray:
        return np.frombuffer(self.values, np.float64) if len(self) else np.zeros(0)

    def last(self, query: Sequence[np.ndarray]) -> np.ndarray:
        """The number of the last rule that holds at each place (one array per coordinate), or -1."""
        columns = self._columns()
        winner = np.full(len(query[0]), -1, np.int64)
        for given, members in self._by_wildcards(columns):
            key = _key([columns[i][members] for i in given], [self.sizes[i] for i in given], len(members))
            key, number = _last_of_each(key, members)
            asked = _key([query[i] for i in given], [self.sizes[i] for i in given], len(winner))
            at = np.minimum(np.searchsorted(key, asked), len(key) - 1)
            np.maximum(winner, np.where(key[at] == asked, number[at], -1), out=winner)
        return winner

    def at(self, query: Sequence[np.ndarray]) -> np.ndarray:
        """The value at each place of `query`, 0 where no rule holds."""
        winner = self.last(query)
        return np.where(winner >= 0, self._value_array()[winner], 0.0) if len(self) else np.zeros(len(winner))

    def _by_wildcards(self, columns: list[np.ndarray]) -> list[tuple[list[int], np.ndarray]]:
        """(coordinates given, numbers of the rules that give exactly these)."""
        code = np.zeros(len(self), np.int64)
        for i, column in enumerate(columns):
            code |= (column >= 0).astype(np.int64) << i
        return [
            ([i for i in range(len(columns)) if c >> i & 1], np.flatnonzero(code == c))
            for c in np.unique(code).tolist()
        ]

    def places_with_values(self) -> tuple[np.ndarray, np.ndarray]:
        """(keys of all places whose value is not zero, rising; number of the rule that holds there).

        The key of a place is its mixed-radix number, the last coordinate fastest.
        """
        columns = self._columns()
        nonzero = self._value_array() != 0
        found = [np.zeros(0, np.int64)]
        count = 0
        for given, members in self._by_wildcards(columns):
            members = members[nonzero[members]]
            free = [i for i in range(len(columns)) if i not in given]
            sizes = [self.sizes[i] for i in given]
            _, members = _last_of_each(
                _key([columns[i][members] for i in given], sizes, len(members)), members
            )
            count += len(members) * int(np.prod([self.sizes[i] for i in free], dtype=object))
            if count > LARGEST:
                raise InputError(f"more than {LARGEST:,} entries that are not zero; expected a sparse table")
            found.append(_spread(columns, members, free, self.sizes))
        keys = np.unique(np.concatenate(found))
        winner = self.last(split_key(keys, self.sizes))
        held = nonzero[winner] if len(keys) else np.zeros(0, bool)
        return keys[held], winner[held]

    def rows(self) -> tuple[Rows, np.ndarray]:
        """(the table as sparse rows, the last coordinate being the column; the rule of each entry)."""
        keys, winner = self.places_with_values()
        width = self.sizes[-1]
        row, column = np.divmod(keys, width)
        indptr = np.zeros(int(np.prod(self.sizes[:-1])) + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=len(indptr) - 1), out=indptr[1:])
        return Rows(indptr, column, self._value_array()[winner], width), winner


def split_key(keys: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """The coordinates of places from their keys."""
    coordinates = []
    for size in reversed(sizes):
        keys, at = np.divmod(keys, size)
        coordinates.append(at)
    return coordinates[::-1]


def normalized(rows: Rows) -> tuple[Rows, np.ndarray, int]:
    """(rows divided by their sums, the sums, how many were off); those off by more than SLACK are kept."""
    row = rows.of_entries()
    sums = np.bincount(row, rows.data, minlength=len(rows))
    off = np.abs(sums - 1)
    divided = (off > TOLERANCE) & (off <= SLACK)
    if not divided.any():
        return rows, sums, 0
    data = rows.data / np.where(divided, sums, 1.0)[row]
    return Rows(rows.indptr, rows.indices, data, rows.width), sums, int(divided.sum())


def _key(columns: Sequence[np.ndarray], sizes: Sequence[int], n: int) -> np.ndarray:
    key = np.zeros(n, np.int64)
    for column, size in zip(columns, sizes, strict=True):
        key = key * size + column
    return key


def _last_of_each(key: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of rules (`number` rising) with equal keys the last; keys rising."""
    order = np.argsort(key, kind="stable")
    key, number = key[order], number[order]
    keep = np.ones(len(key), bool)
    keep[:-1] = key[1:] != key[:-1]
    return key[keep], number[keep]


def _spread(
    columns: list[np.ndarray], members: np.ndarray, free: list[int], sizes: tuple[int, ...]
) -> np.ndarray:
    """Keys of all places for which the rules `members` hold: wildcards at `free` are written out."""
    strides = [int(np.prod(sizes[i + 1 :], dtype=object)) for i in range(len(sizes))]
    keys = np.zeros(len(members), np.int64)
    for i in range(len(sizes)):
        if i not in free:
            keys += columns[i][members].astype(np.int64) * strides[i]
    for i in free:
        keys = (keys[:, None] + np.arange(sizes[i]) * strides[i]).ravel()
    return keys


def each_sight(emissions: Rows, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What can be seen after each transition: (number of the transition, entry of `emissions`) of each pair.

    `row` is the row of `emissions` that each transition leads to. Too many pairs are an InputError.
    """
    begin = emissions.indptr[row]
    count = emissions.indptr[row + 1] - begin
    total = int(count.sum())
    if total > LARGEST:
        raise InputError(f"{total:,} pairs of a transition and what is seen; expected at most {LARGEST:,}")
    pair = np.repeat(np.arange(len(row)), count)
    first = np.cumsum(count) - count
    return pair, np.arange(total) - first[pair] + begin[pair]


def over_sights(
    pair: np.ndarray, sight: np.ndarray, value: np.ndarray, chance: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, Rows | None]:
    """(reward of each transition in expectation, `seen_rewards` or None) from the rewards of all pairs."""
    n = shape[0]
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(low, pair, value)
    np.maximum.at(high, pair, value)
    depends = low != high
    if not depends.any():
        return low, None
    expected = np.where(depends, np.bincount(pair, value * chance, minlength=n), low)
    keep = value != 0
    return expected, Rows.from_entries(pair[keep], sight[keep], value[keep], shape)


def idle_states(transitions: Rows, rewards: np.ndarray, seen: Rows | None) -> np.ndarray:
    """[S] bool: states that every action leaves where it is, with every reward 0."""
    S = transitions.width
    A = len(transitions) // S
    row = transitions.of_entries()
    alone = np.diff(transitions.indptr)[row] == 1
    quiet = rewards == 0
    if seen is not None:
        quiet &= np.diff(seen.indptr) == 0
    stays = alone & quiet & (transitions.indices == row % S)
    return np.bincount(transitions.indices[stays], minlength=S) == A
