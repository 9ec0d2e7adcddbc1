"""A POMDP written out: states, actions and observations that can be counted, all numbers as sparse rows.

Time: the agent acts in s, the state becomes s' ~ T(.|s,a), it sees o ~ O(.|a,s') and gets the reward of that
step. Nothing is seen before the first action unless `initial` says what is (Gymnasium's timing, in which a
reset shows something).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

TOLERANCE = 1e-9
"""how far from 1 the sum of a row of probabilities may be"""


@dataclass(frozen=True)
class Rows:
    """A sparse matrix by rows (CSR): row i holds `data[indptr[i]:indptr[i+1]]` at columns `indices[...]`.

    Columns rise within a row, and no entry is zero by accident of writing: what is not there is 0.
    """

    indptr: np.ndarray
    """[rows + 1]"""
    indices: np.ndarray
    """[entries], columns"""
    data: np.ndarray
    """[entries]"""
    width: int
    """number of columns"""

    def __post_init__(self) -> None:
        for name, kind in (("indptr", np.int64), ("indices", np.int32), ("data", np.float64)):
            array = np.ascontiguousarray(getattr(self, name), kind)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if len(self.indptr) == 0 or self.indptr[-1] != len(self.data) or len(self.indices) != len(self.data):
            raise ValueError(
                f"{len(self.indices)} columns, {len(self.data)} values and row ends at "
                f"{self.indptr[-1:]} do not belong together"
            )

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def row(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Columns and values of one row."""
        here = slice(self.indptr[i], self.indptr[i + 1])
        return self.indices[here], self.data[here]

    def of_entries(self) -> np.ndarray:
        """[entries], the row of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def dense(self) -> np.ndarray:
        """[rows, width]"""
        full = np.zeros((len(self), self.width))
        full[self.of_entries(), self.indices] = self.data
        return full

    @staticmethod
    def from_dense(matrix: np.ndarray) -> Rows:
        """Rows of a full matrix [rows, width]."""
        matrix = np.asarray(matrix, np.float64)
        row, column = np.nonzero(matrix)
        return Rows.from_entries(row, column, matrix[row, column], matrix.shape)

    @staticmethod
    def from_entries(row: np.ndarray, column: np.ndarray, data: np.ndarray, shape: tuple[int, int]) -> Rows:
        """Rows of entries in any order; each place at most once."""
        row, column, data = np.asarray(row), np.asarray(column), np.asarray(data, np.float64)
        order = np.lexsort((column, row))
        indptr = np.zeros(shape[0] + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=shape[0]), out=indptr[1:])
        return Rows(indptr, column[order], data[order], shape[1])


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
    """[entries of `transitions`], reward of each, in expectation over what is seen"""
    ends: np.ndarray
    """[entries of `transitions`] bool, True: the episode ends with it, and nothing follows"""
    seen_rewards: Rows | None = None
    """[entries of `transitions`, O], the reward of a transition *and* what is seen after it; None where the
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
            raise ValueError(f"start has shape {self.start.shape}; expected ({S},)")
        tables = [("transitions", self.transitions, A * S, S), ("emissions", self.emissions, A * S, O)]
        if self.initial is not None:
            tables.append(("initial", self.initial, S, O))
        for field, rows, length, width in tables:
            if len(rows) != length or rows.width != width:
                raise ValueError(f"{field} is {len(rows)} by {rows.width}; expected {length} by {width}")
            if (rows.data < 0).any():
                raise ValueError(f"{field} has a negative probability")
            sums = np.bincount(rows.of_entries(), rows.data, minlength=length)
            off = np.abs(sums - 1) > TOLERANCE
            if off.any():
                first = int(np.argmax(off))
                what = self.states[first] if field == "initial" else self._pair(first)
                raise ValueError(f"{field}: probabilities of {what} sum to {sums[first]:.9g}; expected 1")
        if (self.start < 0).any() or abs(self.start.sum() - 1) > TOLERANCE:
            raise ValueError(f"start sums to {self.start.sum():.9g}; expected probabilities that sum to 1")
        for field, array in (("rewards", self.rewards), ("ends", self.ends)):
            if array.shape != self.transitions.data.shape:
                raise ValueError(f"{field} has shape {array.shape}; expected one per transition")
        if not np.isfinite(self.rewards).all():
            raise ValueError("rewards must be finite")

    def _pair(self, row: int) -> str:
        action, state = divmod(row, len(self.states))
        return f"action {self.actions[action]}, state {self.states[state]}"

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

        Rows sum to less than 1 where the episode may end.
        """
        t = self.transitions
        keep = ~self.ends & (t.data > 0)
        return Rows.from_entries(t.of_entries()[keep], t.indices[keep], t.data[keep], (len(t), t.width))

    def showing_initial(self) -> POMDP:
        """The same problem in Gymnasium's timing: o_0 ~ O(.|s_0) is shown before the first action.

        Raises ValueError where observations depend on the action, since there is none before the first.
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


def pomdp_from_arrays(
    transitions: np.ndarray,
    emissions: np.ndarray,
    rewards: np.ndarray,
    *,
    discount: float,
    start: np.ndarray,
    ends: np.ndarray | None = None,
    states: Sequence[str] | None = None,
    actions: Sequence[str] | None = None,
    observations: Sequence[str] | None = None,
    name: str = "",
) -> POMDP:
    """A problem from full arrays: transitions [A, S, S], emissions [A, S, O] (of the state reached).

    `rewards` [A, S], [A, S, S] or [A, S, S, O]; `ends` [S] (entering ends the episode) or [A, S, S].
    """
    A, S, _ = transitions.shape
    O = emissions.shape[-1]
    t = Rows.from_dense(transitions.reshape(A * S, S))
    e = Rows.from_dense(emissions.reshape(A * S, O))
    row, column = t.of_entries(), t.indices
    action, state = np.divmod(row, S)
    r = np.asarray(rewards, np.float64)
    seen = None
    if r.ndim == 4:
        full = r[action, state, column]  # [entries, O]
        expected = (full * emissions[action, column]).sum(-1)
        seen = Rows.from_dense(full)
    elif r.ndim == 3:
        expected = r[action, state, column]
    else:
        expected = r[action, state]
    if ends is None:
        over = np.zeros(len(row), bool)
    else:
        over = ends[column] if ends.ndim == 1 else ends[action, state, column]

    def named(given: Sequence[str] | None, prefix: str, n: int) -> tuple[str, ...]:
        return tuple(given) if given is not None else tuple(f"{prefix}{i}" for i in range(n))

    return POMDP(
        states=named(states, "s", S),
        actions=named(actions, "a", A),
        observations=named(observations, "o", O),
        discount=discount,
        start=start,
        transitions=t,
        emissions=e,
        rewards=expected,
        ends=over,
        seen_rewards=seen,
        name=name,
    )
