"""Reading `.pomdpx` files: the factored XML format of APPL, multiplied out so that a state is a combination.

    P(s' | s, a) = product over the state variables of their tables;  likewise O and P(s_0);  R is a sum

Source: "POMDPX file format", version 1.0, in the documentation of AdaCompNUS/sarsop. Tables (`TBL`) are read,
decision diagrams (`DD`) are not. Of two entries about the same place the later one holds.

A combination is named by its values joined with commas; the last variable changes fastest. Observations are
all combinations of the observation variables and of the state variables that are `fullyObs`. If the first
values of the latter are drawn, they are also seen before the first action (`initial`), together with the
first value of each observation variable, which says nothing there. Ends are those of `read_pomdp`: states in
which nothing can happen any more.
"""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.exact.files.elements import DocumentError
from turnwise.exact.files.parse_pomdp import MOST_NAMES
from turnwise.exact.files.parse_pomdpx import Document, Factor, parse
from turnwise.exact.files.pomdp import problem_name
from turnwise.exact.files.rules import (
    LARGEST,
    SLACK,
    idle_states,
    joined,
    normalized,
    rewards_by_transition,
    split_key,
)
from turnwise.run.errors import InputError


def read_pomdpx(path: str | Path) -> POMDP:
    """Read the problem in a `.pomdpx` file, plain or gzip. Whatever is wrong with it is an InputError."""
    path = Path(path)
    try:
        flat = _Flat(parse(path))
        problem = flat.problem(problem_name(path))
    except DocumentError as e:
        raise e.within(path) from e
    except InputError as e:
        raise InputError(f"{path}: {e}") from e
    if flat.divided:
        warnings.warn(
            f"{path}: {flat.divided} rows of probabilities did not sum to 1 and were divided by the sum",
            UserWarning,
            stacklevel=2,
        )
    return problem


@dataclass(frozen=True)
class _Partial:
    """Assignments of values to some variables, n of them, on the way to rows of a full table."""

    origin: np.ndarray
    """[n], the row of the full table that each belongs to"""
    chance: np.ndarray
    """[n], its probability so far"""
    values: dict[str, np.ndarray]
    """variable -> [n], the index of its value"""


class _Flat:
    """A document's factors, multiplied out. S, A, O count combinations."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.divided = 0
        """rows of probabilities that did not sum to 1 and were divided"""
        self.sizes = {name: len(values) for name, values in document.values.items()}
        d = document
        self.shape = tuple(self.sizes[name] for name in d.previous)
        self.observation_variables = [*d.observed, *d.seen]
        """names of the variables that an observation consists of"""
        self.S, self.A = math.prod(self.shape), self.sizes[d.action]
        self.O = math.prod(self.sizes[name] for name in self.observation_variables)
        if self.A * self.S > LARGEST or self.S > MOST_NAMES or self.O > MOST_NAMES:
            raise InputError(
                f"{self.S:,} combinations of states by {self.A:,} actions, {self.O:,} of observations; "
                f"expected at most {MOST_NAMES:,} combinations and {LARGEST:,} rows of a table"
            )

    def problem(self, name: str) -> POMDP:
        """The whole problem."""
        d = self.document
        transitions = self.transitions()
        emissions = self.emissions()
        rewards, seen = self.rewards(transitions, emissions)
        start = self.start()
        return POMDP(
            states=self.combinations(d.previous),
            actions=d.values[d.action],
            observations=self.combinations(self.observation_variables),
            discount=d.discount,
            start=start,
            transitions=transitions,
            emissions=emissions,
            rewards=rewards,
            ends=idle_states(transitions, rewards, seen)[transitions.indices],
            seen_rewards=seen,
            initial=self.initial(start),
            name=name,
        )

    def combinations(self, names: list[str]) -> tuple[str, ...]:
        """The names of all combinations of values of the variables `names`."""
        return tuple(",".join(c) for c in itertools.product(*(self.document.values[n] for n in names)))

    def state_values(self, state: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        """The values of the state variables in states [n]; `names` are those before or after the action."""
        return dict(zip(names, split_key(state, self.shape), strict=True))

    def number(self, values: dict[str, np.ndarray], names: list[str], n: int) -> np.ndarray:
        """[n], the index of each combination of values of the variables `names`."""
        key = np.zeros(n, np.int64)
        for name in names:
            key = key * self.sizes[name] + values[name]
        return key

    def multiply(self, factors: list[Factor], begun: _Partial) -> _Partial:
        """Assign the variables of all factors, each when its parents are assigned."""
        waiting = list(factors)
        while waiting:
            ready = next((f for f in waiting if set(f.parents) <= set(begun.values)), None)
            if ready is None:
                f = waiting[0]
                known = ", ".join(begun.values) or "nothing"
                raise DocumentError(
                    f"{f.place}: depends on {' '.join(f.parents)}; expected only {known}", f.line
                )
            waiting.remove(ready)
            begun = self.assign(ready, begun)
        return begun

    def assign(self, factor: Factor, begun: _Partial) -> _Partial:
        """Assign one more variable: each row becomes one row for each value of positive probability."""
        table = self.table(factor)
        row = self.number(begun.values, factor.parents, len(begun.origin))
        pick, entry = joined(table, row)
        values = {name: column[pick] for name, column in begun.values.items()}
        values[factor.variable] = table.indices[entry].astype(np.int64)
        return _Partial(begun.origin[pick], begun.chance[pick] * table.data[entry], values)

    def table(self, factor: Factor) -> Rows:
        """[combinations of parents, values], rows that sum to 1."""
        sizes = [self.sizes[name] for name in factor.parents]
        if math.prod(sizes) > LARGEST:
            raise DocumentError(
                f"{factor.place}: a table of {math.prod(sizes):,} rows; expected at most {LARGEST:,}",
                factor.line,
            )
        rows, sums, divided = normalized(factor.rules.rows()[0])
        self.divided += divided
        wrong = np.flatnonzero(np.abs(sums - 1) > SLACK)
        if len(wrong):
            at = split_key(wrong[:1], sizes)
            given = zip(factor.parents, at, strict=True)
            which = " ".join(self.document.values[name][int(i[0])] for name, i in given) or "the start"
            raise DocumentError(
                f"{factor.place}: probabilities for {which} sum to {sums[wrong[0]]:.9g}; expected 1",
                factor.line,
            )
        return rows

    def transitions(self) -> Rows:
        """[A*S, S], P(s'|s,a)."""
        d = self.document
        row = np.arange(self.A * self.S)
        action, state = np.divmod(row, self.S)
        begun = _Partial(row, np.ones(len(row)), {d.action: action, **self.state_values(state, d.previous)})
        done = self.multiply(d.transitions, begun)
        reached = self.number(done.values, d.current, len(done.origin))
        return Rows.from_entries(done.origin, reached, done.chance, (len(row), self.S))

    def emissions(self) -> Rows:
        """[A*S, O], P(o|a,s')."""
        d = self.document
        row = np.arange(self.A * self.S)
        action, state = np.divmod(row, self.S)
        begun = _Partial(row, np.ones(len(row)), {d.action: action, **self.state_values(state, d.current)})
        done = self.multiply(d.sensors, begun)
        seen = self.number(done.values, self.observation_variables, len(done.origin))
        return Rows.from_entries(done.origin, seen, done.chance, (len(row), self.O))

    def start(self) -> np.ndarray:
        """[S], P(s_0)."""
        begun = _Partial(np.zeros(1, np.int64), np.ones(1), {})
        done = self.multiply(self.document.start, begun)
        start = np.zeros(self.S)
        start[self.number(done.values, self.document.previous, len(done.origin))] = done.chance
        return start

    def initial(self, start: np.ndarray) -> Rows | None:
        """[S, O], the fully observed variables before the first action; None if their values are certain."""
        d = self.document
        values = self.state_values(np.arange(self.S), d.current)
        seen = self.number(values, d.seen, self.S)
        if len(np.unique(seen[start > 0])) == 1:
            return None
        return Rows(np.arange(self.S + 1), seen, np.ones(self.S), self.O)

    def rewards(self, transitions: Rows, emissions: Rows) -> tuple[np.ndarray, Rows | None]:
        """(the reward of each transition, the rewards by observation if they depend on it)."""
        d = self.document
        action, state = np.divmod(transitions.of_entries(), self.S)
        reached = transitions.indices.astype(np.int64)
        values = {
            d.action: action,
            **self.state_values(state, d.previous),
            **self.state_values(reached, d.current),
        }
        if not any(name in d.observed for f in d.rewards for name in f.parents):
            return self.paid(values, len(reached)), None
        pair, entry = joined(emissions, action * self.S + reached)
        seen = emissions.indices[entry].astype(np.int64)
        values = {name: column[pair] for name, column in values.items()}
        parts = split_key(seen, [self.sizes[name] for name in self.observation_variables])
        values.update(
            (n, at) for n, at in zip(self.observation_variables, parts, strict=True) if n in d.observed
        )
        shape = (len(reached), self.O)
        return rewards_by_transition(pair, seen, self.paid(values, len(pair)), emissions.data[entry], shape)

    def paid(self, values: dict[str, np.ndarray], n: int) -> np.ndarray:
        """[n], the sum of all reward functions for values [n] of the variables."""
        total = np.zeros(n)
        for f in self.document.rewards:
            total += f.rules.at([values[name] for name in f.parents])
        return total
