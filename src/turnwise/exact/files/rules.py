"""Tables given as rules with wildcards ("any action, any state: 0"), resolved without writing them out.

Files of POMDPs first say what holds for all places and then correct some of them: of two rules for a place
the later one holds. A table of 13 actions by 12,545 states by 12,545 states is never laid out. Rules are
grouped by which coordinates they give; within a group, a place is one integer (its key) to be found by
bisection, and the last rule for a place is the largest number that any group finds. Few groups occur, at most
2^coordinates.

A key is the mixed-radix number of the coordinates, the last one fastest, so it also is the index into the
table if it were laid out.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from turnwise.envs.pomdp import TOLERANCE
from turnwise.envs.rows import Rows
from turnwise.run.errors import InputError

ANY = -1
"""coordinate of a wildcard"""
LARGEST = 20_000_000
"""Largest number of places that are written out. More would not fit a common machine, and an error is kinder
than the end of memory."""
SLACK = 1e-4
"""Rows of probabilities that miss 1 by more than this are refused, by less are divided by their sum."""


class Rules:
    """The rules of one table as written: coordinates (ANY for a wildcard), a value, the line."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.places = tuple(array("i") for _ in sizes)
        self.values = array("d")
        self.lines = array("i")
        self.resets: set[int] = set()
        """numbers of the rules that are rows of `reset`: the episode ends there"""

    def __len__(self) -> int:
        return len(self.values)

    def add(self, place: Sequence[int], value: float, line: int) -> None:
        """Add a rule."""
        for column, at in zip(self.places, place, strict=True):
            column.append(at)
        self.values.append(value)
        self.lines.append(line)

    def set_rows(self, place: Sequence[int], values: np.ndarray, line: int) -> None:
        """Add an array at `place` (the first coordinates): a rule for zeros, one for each other value."""
        self.add([*place, *[ANY] * values.ndim], 0.0, line)
        for at in np.argwhere(values):
            self.add([*place, *at.tolist()], float(values[tuple(at)]), line)

    def _columns(self) -> list[np.ndarray]:
        # np.frombuffer refuses an empty buffer
        return [np.frombuffer(c, np.int32) if len(c) else np.zeros(0, np.int32) for c in self.places]

    def _value_array(self) -> np.ndarray:
        return np.frombuffer(self.values, np.float64) if len(self) else np.zeros(0)

    def last(self, query: Sequence[np.ndarray]) -> np.ndarray:
        """The number of the last rule that holds at each place (one array per coordinate), or -1."""
        columns = self._columns()
        winner = np.full(len(query[0]), -1, np.int64)
        for given, members in self._by_wildcards(columns):
            key = _key([columns[i][members] for i in given], [self.sizes[i] for i in given], len(members))
            key, rule = _last_of_each(key, members)
            wanted = _key([query[i] for i in given], [self.sizes[i] for i in given], len(winner))
            at = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
            np.maximum(winner, np.where(key[at] == wanted, rule[at], -1), out=winner)
        return winner

    def at(self, query: Sequence[np.ndarray]) -> np.ndarray:
        """The value at each place of `query`, 0 where no rule holds."""
        winner = self.last(query)
        return np.where(winner >= 0, self._value_array()[winner], 0.0) if len(self) else np.zeros(len(winner))

    def _by_wildcards(self, columns: list[np.ndarray]) -> list[tuple[list[int], np.ndarray]]:
        """The groups: (coordinates that are given, numbers of the rules that give exactly these)."""
        code = np.zeros(len(self), np.int64)  # bit i: coordinate i is given
        for i, column in enumerate(columns):
            code |= (column >= 0).astype(np.int64) << i
        return [
            ([i for i in range(len(columns)) if c >> i & 1], np.flatnonzero(code == c))
            for c in np.unique(code).tolist()
        ]

    def places_with_values(self) -> tuple[np.ndarray, np.ndarray]:
        """(keys of all places whose value is not zero, rising; number of the rule that holds at each).

        Candidates are the places of all rules that are not zero, wildcards written out. A later rule may have
        set some of them to zero, or changed their value, so each is looked up.
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
        stays = nonzero[winner] if len(keys) else np.zeros(0, bool)
        return keys[stays], winner[stays]

    def rows(self) -> tuple[Rows, np.ndarray]:
        """(the table as sparse rows, whose column is the last coordinate; the rule of each entry)."""
        keys, winner = self.places_with_values()
        width = self.sizes[-1]
        row, column = np.divmod(keys, width)
        indptr = np.zeros(int(np.prod(self.sizes[:-1])) + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=len(indptr) - 1), out=indptr[1:])
        return Rows(indptr, column, self._value_array()[winner], width), winner


def split_key(keys: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """The coordinates of places, from their keys [n]: one array [n] per coordinate."""
    coordinates = []
    for size in reversed(sizes):
        keys, at = np.divmod(keys, size)
        coordinates.append(at)
    return coordinates[::-1]


def normalized(rows: Rows) -> tuple[Rows, np.ndarray, int]:
    """(rows divided by their sums, the sums, how many were divided). Rows off by more than SLACK are kept."""
    row = rows.of_entries()
    sums = np.bincount(row, rows.data, minlength=len(rows))
    off = np.abs(sums - 1)
    divided = (off > TOLERANCE) & (off <= SLACK)
    if not divided.any():
        return rows, sums, 0
    data = rows.data / np.where(divided, sums, 1.0)[row]
    return Rows(rows.indptr, rows.indices, data, rows.width), sums, int(divided.sum())


def _key(columns: Sequence[np.ndarray], sizes: Sequence[int], n: int) -> np.ndarray:
    """[n], the keys of places from their coordinates."""
    key = np.zeros(n, np.int64)
    for column, size in zip(columns, sizes, strict=True):
        key = key * size + column
    return key


def _last_of_each(key: np.ndarray, rule: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last of the rules (numbers rising) with equal keys; keys rising."""
    order = np.argsort(key, kind="stable")  # stable: among equal keys, rule numbers still rise
    key, rule = key[order], rule[order]
    keep = np.ones(len(key), bool)
    keep[:-1] = key[1:] != key[:-1]
    return key[keep], rule[keep]


def _spread(
    columns: list[np.ndarray], members: np.ndarray, free: list[int], sizes: tuple[int, ...]
) -> np.ndarray:
    """Keys of all places that the rules `members` speak of: their wildcards, at `free`, are written out."""
    strides = [int(np.prod(sizes[i + 1 :], dtype=object)) for i in range(len(sizes))]
    keys = np.zeros(len(members), np.int64)
    for i in range(len(sizes)):
        if i not in free:
            keys += columns[i][members].astype(np.int64) * strides[i]
    for i in free:
        keys = (keys[:, None] + np.arange(sizes[i]) * strides[i]).ravel()
    return keys


def joined(table: Rows, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`table.entries_of(rows)`; more than LARGEST pairs are an InputError."""
    total = int((table.indptr[rows + 1] - table.indptr[rows]).sum())
    if total > LARGEST:
        raise InputError(f"{total:,} pairs of a transition and an observation; expected at most {LARGEST:,}")
    return table.entries_of(rows)


def rewards_by_transition(
    transition: np.ndarray,
    observation: np.ndarray,
    value: np.ndarray,
    chance: np.ndarray,
    shape: tuple[int, int],
) -> tuple[np.ndarray, Rows | None]:
    """(rewards [n] in expectation, `seen_rewards` [n, O] or None) of n transitions, from (transition, o)
    pairs.

    The four arrays have one entry for each observation that can follow a transition: which ones, the reward
    `value`, and the probability `chance` of o. `shape` is (n, O).
    """
    n = shape[0]
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(low, transition, value)
    np.maximum.at(high, transition, value)
    depends = low != high
    if not depends.any():
        return low, None
    # Where the reward is the same for all o it is taken as it is: a mean would round it.
    expected = np.where(depends, np.bincount(transition, value * chance, minlength=n), low)
    keep = value != 0
    return expected, Rows.from_entries(transition[keep], observation[keep], value[keep], shape)


def idle_states(transitions: Rows, rewards: np.ndarray, seen: Rows | None) -> np.ndarray:
    """[S] bool, states in which nothing can happen any more: every action leaves them as they are, for reward
    0."""
    S = transitions.width
    A = len(transitions) // S
    row = transitions.of_entries()
    alone = np.diff(transitions.indptr)[row] == 1
    quiet = rewards == 0
    if seen is not None:
        quiet &= np.diff(seen.indptr) == 0
    stays = alone & quiet & (transitions.indices == row % S)
    return np.bincount(transitions.indices[stays], minlength=S) == A
