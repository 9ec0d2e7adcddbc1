"""A POMDP written out: states, actions and observations that can be counted, all numbers as sparse rows.

Time: the agent acts in s, the state becomes s' ~ T(.|s,a), it sees o ~ O(.|a,s') and gets the reward of that
step. Nothing is seen before the first action unless `initial` says what is (Gymnasium's timing, in which a
reset shows something).

`POMDP.from_arrays` makes one from full arrays, `exact.files` from a file, `envs.problems` by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from turnwise.envs.rows import Rows
from turnwise.run.errors import InputError

TOLERANCE = 1e-9
"""how far from 1 the sum of a row of probabilities may be"""


@dataclass(frozen=True)
class POMDP:
    """S states, A actions, O observations; row a*S + s of a table is "action a in state s".

    Source of the notation: Kaelbling, Littman & Cassandra 1998, section 3.
    """

    states: tuple[str, ...]
    actions: tuple[str, ...]
    observations: tuple[str, ...]
    discount: float
    """per step, from 0 to 1"""
    start: np.ndarray
    """[S], P(s_0)"""
    transitions: Rows
    """[A*S, S], P(s'|s,a)"""
    emissions: Rows
    """[A*S, O], P(o|a,s') in row a*S + s': the state that was *reached*"""
    rewards: np.ndarray
    """[entries of `transitions`], the reward of each, in expectation over what is seen"""
    ends: np.ndarray
    """[entries of `transitions`] bool, True: the episode ends with it, and nothing follows"""
    seen_rewards: Rows | None = None
    """[entries of `transitions`, O], the reward of a transition *and* what is seen after it; None if the
    reward does not depend on what is seen"""
    initial: Rows | None = None
    """[S, O], P(o_0|s_0) shown before the first action; None: nothing is shown"""
    name: str = ""

    def __post_init__(self) -> None:
        for field, kind in (("start", np.float64), ("rewards", np.float64), ("ends", np.bool_)):
            array = np.ascontiguousarray(getattr(self, field), kind)
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        S, A, O = self.shape
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount is {self.discount}; expected a number from 0 to 1")
        if self.start.shape != (S,):
            raise ValueError(
                f"start has shape {self.start.shape}; expected ({S},), one probability per state"
            )
        if not (self.start >= 0).all() or not abs(self.start.sum() - 1) <= TOLERANCE:
            raise ValueError(f"start sums to {self.start.sum():.9g}; expected probabilities that sum to 1")
        tables = [("transitions", self.transitions, A * S, S), ("emissions", self.emissions, A * S, O)]
        if self.initial is not None:
            tables.append(("initial", self.initial, S, O))
        for field, rows, length, width in tables:
            if len(rows) != length or rows.width != width:
                raise ValueError(f"{field} is {len(rows)} by {rows.width}; expected {length} by {width}")
            self._check_probabilities(field, rows)
        for field, array in (("rewards", self.rewards), ("ends", self.ends)):
            if array.shape != self.transitions.data.shape:
                raise ValueError(f"{field} has shape {array.shape}; expected one per transition")
        if not np.isfinite(self.rewards).all():
            entry = int(np.argmin(np.isfinite(self.rewards)))
            row = int(self.transitions.of_entries()[entry])
            raise ValueError(
                f"the reward of {self._place('transitions', row)} is {self.rewards[entry]}; "
                "expected a finite number"
            )

    def _check_probabilities(self, field: str, rows: Rows) -> None:
        """ValueError for the first row that is no distribution. Comparisons are written so that NaN fails."""
        negative = ~(rows.data >= 0)
        if negative.any():
            entry = int(np.argmax(negative))
            place = self._place(field, int(rows.of_entries()[entry]))
            raise ValueError(f"{place}: a probability is {rows.data[entry]:.9g}; expected 0 or more")
        sums = np.bincount(rows.of_entries(), rows.data, minlength=len(rows))
        off = ~(np.abs(sums - 1) <= TOLERANCE)
        if off.any():
            row = int(np.argmax(off))
            raise ValueError(f"{self._place(field, row)}: probabilities sum to {sums[row]:.9g}; expected 1")

    def _place(self, field: str, row: int) -> str:
        """A row as the user indexes it, and by names: `transitions[0, 1] (action look, state far)`."""
        if field == "initial":
            return f"initial[{row}] (state {self.states[row]})"
        action, state = divmod(row, len(self.states))
        reached = " reached" if field == "emissions" else ""
        return (
            f"{field}[{action}, {state}] (action {self.actions[action]}, state {self.states[state]}{reached})"
        )

    @staticmethod
    def from_arrays(
        transitions: ArrayLike,
        emissions: ArrayLike,
        rewards: ArrayLike,
        *,
        discount: float,
        start: ArrayLike,
        ends: ArrayLike | None = None,
        states: Sequence[str] | None = None,
        actions: Sequence[str] | None = None,
        observations: Sequence[str] | None = None,
        name: str = "",
    ) -> POMDP:
        """A problem from full arrays (or nested lists).

        - `transitions` [A, S, S]: `transitions[a, s, s2]` is P(s2 | s, a).
        - `emissions` [A, S, O]: `emissions[a, s2, o]` is P(o | a, s2), of the state that was *reached*.
        - `rewards` [A, S], [A, S, S] or [A, S, S, O]: of the action in a state, of the transition, or of the
          transition and what is seen after it.
        - `discount`: per step, from 0 to 1.  `start` [S]: P(s_0).
        - `ends`: True where the episode ends, [S] on entering a state, or [A, S, S] with a transition.
        - `states`, `actions`, `observations`: their names, by default s0, s1, ...; a0, ...; o0, ...

        Raises ValueError that names the array and the row for shapes that do not fit together, rows that are
        no distributions, and names that are too few, too many or not different.
        """
        t, e = np.asarray(transitions, np.float64), np.asarray(emissions, np.float64)
        r, over = np.asarray(rewards, np.float64), np.asarray(False if ends is None else ends, bool)
        S, A, O = _sizes(t, e, r, over if ends is not None else None)
        table = Rows.from_dense(t.reshape(A * S, S))
        action, state = np.divmod(table.of_entries(), S)
        reached = table.indices
        seen = None
        if r.ndim == 4:
            by_sight = r[action, state, reached]  # [entries, O]
            paid = (by_sight * e[action, reached]).sum(-1)
            seen = Rows.from_dense(by_sight)
        else:
            paid = r[action, state] if r.ndim == 2 else r[action, state, reached]
        if over.ndim:
            over = over[reached] if over.ndim == 1 else over[action, state, reached]
        return POMDP(
            states=_names("states", states, "s", S),
            actions=_names("actions", actions, "a", A),
            observations=_names("observations", observations, "o", O),
            discount=discount,
            start=np.asarray(start, np.float64),
            transitions=table,
            emissions=Rows.from_dense(e.reshape(A * S, O)),
            rewards=paid,
            ends=np.broadcast_to(over, reached.shape),
            seen_rewards=seen,
            name=name,
        )

    @staticmethod
    def from_functions(**problem: Any) -> POMDP:
        """A problem from functions (or arrays) that are asked state by state.

        - `states`, `actions`, `observations`: names, numbers or tuples; or how many there are.
        - `transition(state, action)`: the next state, if it is sure; a mapping from states to probabilities;
          or a probability for each state. Or an array [A, S, S].
        - `observation(action, state reached)`: what is seen, in the same forms. Or an array [A, S, O].
        - `reward(state, action)`, maybe also of the state reached, maybe also of what is seen then; how many
          arguments it takes says which. Or an array, as for `from_arrays`.
        - `discount`: per step, from 0 to 1.
        - `start`: a state, states that are as likely as each other, a mapping or probabilities; by default
          any state.
        - `ends`: states in which an episode ends when it enters them, or a function of the state; or an
          array, as for `from_arrays`.
        - `first_observation(state)`: what is seen before the first action; by default nothing.
        - `name`: what the problem is called.

        Raises InputError that names the function and what it was asked.
        """
        from turnwise.envs.functions import from_functions

        unknown = set(problem) - set(inspect.signature(from_functions).parameters)
        missing = [
            p.name
            for p in inspect.signature(from_functions).parameters.values()
            if p.default is p.empty and p.name not in problem
        ]
        if unknown or missing:
            what = f"{min(unknown)!r} is no part of a problem" if unknown else f"no {missing[0]!r}"
            parts = ", ".join(inspect.signature(from_functions).parameters)
            raise InputError(f"{what}; expected {parts}")
        return from_functions(**problem)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, A, O)"""
        return len(self.states), len(self.actions), len(self.observations)

    @property
    def episodic(self) -> bool:
        """Whether an episode can end."""
        return bool(self.ends.any())

    def expected_rewards(self) -> np.ndarray:
        """[A, S], R(s,a) = sum over s' of P(s'|s,a) times the reward of that transition."""
        S, A, _ = self.shape
        t = self.transitions
        return np.bincount(t.of_entries(), t.data * self.rewards, minlength=A * S).reshape(A, S)

    def continuing(self) -> Rows:
        """[A*S, S], transitions after which the episode goes on: what a Bellman backup multiplies V(s') by.

        A row sums to less than 1 if the episode may end there.
        """
        t = self.transitions
        keep = ~self.ends & (t.data > 0)
        return Rows.from_entries(t.of_entries()[keep], t.indices[keep], t.data[keep], (len(t), t.width))

    def showing_initial(self) -> POMDP:
        """The same problem in Gymnasium's timing: o_0 ~ O(.|s_0) is shown before the first action.

        Raises ValueError if observations depend on the action, since there is none before the first.
        """
        if self.initial is not None:
            return self
        S, A, _ = self.shape
        e = self.emissions
        first = slice(0, int(e.indptr[S]))
        for a in range(1, A):
            here = slice(int(e.indptr[a * S]), int(e.indptr[(a + 1) * S]))
            same = (
                here.stop - here.start == first.stop
                and np.array_equal(e.indptr[a * S : (a + 1) * S + 1] - here.start, e.indptr[: S + 1])
                and np.array_equal(e.indices[here], e.indices[first])
                and np.allclose(e.data[here], e.data[first], rtol=0, atol=TOLERANCE)
            )
            if not same:
                raise ValueError(
                    f"observations depend on the action ({self.actions[0]} and {self.actions[a]} differ), so "
                    "that none is defined before the first action"
                )
        rows = Rows(e.indptr[: S + 1], e.indices[first], e.data[first], e.width)
        return replace(self, initial=rows)


def _sizes(t: np.ndarray, e: np.ndarray, r: np.ndarray, ends: np.ndarray | None) -> tuple[int, int, int]:
    """(S, A, O) of arrays that fit together; ValueError for the first that does not."""
    if t.ndim != 3 or t.shape[1] != t.shape[2] or not t.size:
        raise ValueError(
            f"transitions has shape {t.shape}; expected (actions, states, states), a square matrix per action"
        )
    A, S, _ = t.shape
    if e.ndim != 3 or e.shape[:2] != (A, S) or not e.size:
        raise ValueError(
            f"emissions has shape {e.shape}; expected ({A}, {S}, observations), since transitions has {A} "
            f"actions and {S} states"
        )
    O = e.shape[2]
    expected = {"rewards": (r, [(A, S), (A, S, S), (A, S, S, O)])}
    if ends is not None:
        expected["ends"] = (ends, [(S,), (A, S, S)])
    for field, (array, shapes) in expected.items():
        if array.shape not in shapes:
            raise ValueError(
                f"{field} has shape {array.shape}; expected {' or '.join(map(str, shapes))}, "
                f"for {A} actions, {S} states and {O} observations"
            )
    return S, A, O


def _names(field: str, given: Sequence[str] | None, letter: str, n: int) -> tuple[str, ...]:
    """The names given, if they are `n` different ones; by default a letter and a number."""
    if given is None:
        return tuple(f"{letter}{i}" for i in range(n))
    if len(given) != n:
        raise ValueError(f"{field} has {len(given)} names; expected {n}, as many as the arrays have")
    if len(set(given)) < n:
        twice = next(x for x in given if list(given).count(x) > 1)
        raise ValueError(f"{field} has the name {twice!r} twice; expected different names")
    return tuple(given)
