"""A POMDP from functions: what an action does, what is then seen, and what it pays, asked state by state.

Every function is asked once for each combination that can occur, and what it answers is checked there, so
that an error names the function and what it was asked.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from turnwise.envs.pomdp import POMDP, TOLERANCE
from turnwise.envs.rows import Rows
from turnwise.run.errors import InputError

LARGEST = 50_000_000
"""pairs of an action and a state, at most: each is asked"""


def from_functions(
    *,
    states: Sequence[Hashable] | int,
    actions: Sequence[Hashable] | int,
    observations: Sequence[Hashable] | int,
    transition: Any,
    observation: Any,
    reward: Any,
    discount: float,
    start: Any = None,
    ends: Any = None,
    first_observation: Any = None,
    name: str = "",
) -> POMDP:
    """See `POMDP.from_functions`."""
    S, A, O = (_Names(*x) for x in (("states", states), ("actions", actions), ("observations", observations)))
    if len(S) * len(A) > LARGEST:
        raise InputError(f"{len(S):,} states and {len(A):,} actions; expected at most {LARGEST:,} pairs")
    t = _table("transition", transition, (A, S), S, swapped=True)
    e = _table("observation", observation, (A, S), O)
    row = t.of_entries()
    action, state = np.divmod(row, len(S))
    paid, seen = _rewards(reward, (action, state, t.indices), (S, A, O), e)
    over = _ends(ends, S, (action, state, t.indices), A)
    initial = None
    if first_observation is not None:
        initial = _table("first_observation", first_observation, (S,), O)
    try:
        return POMDP(
            states=S.names,
            actions=A.names,
            observations=O.names,
            discount=discount,
            start=_start(start, S),
            transitions=t,
            emissions=e,
            rewards=paid,
            ends=over,
            seen_rewards=seen,
            initial=initial,
            name=name,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


class _Names:
    """The states, actions or observations as the user has them, with their numbers."""

    def __init__(self, field: str, given: Sequence[Hashable] | int) -> None:
        self.field, self.one = field, field.removesuffix("s")
        if isinstance(given, str | Mapping) or not isinstance(given, int | Iterable):
            raise InputError(f"{field} is {given!r}; expected a list of names, or their number")
        self.items = list(range(given)) if isinstance(given, int) else list(given)
        if not self.items:
            raise InputError(f"{field} is empty; expected at least one")
        self.names = tuple(str(x) for x in self.items)
        try:
            self.number: dict[Any, int] = {x: i for i, x in enumerate(self.items)}
        except TypeError as error:
            raise InputError(f"{field}: {error}; expected names, numbers or tuples") from error
        if len(self.number) < len(self.items) or len(set(self.names)) < len(self.names):
            twice = next(x for x in self.names if self.names.count(x) > 1)
            raise InputError(f"{field} has {twice!r} twice; expected different names")

    def __len__(self) -> int:
        return len(self.items)

    def find(self, value: Any) -> int | None:
        """The number of one of them; None if it is none."""
        try:
            return self.number.get(value)
        except TypeError:  # a list or an array has no hash
            return None


def _distribution(answer: Any, names: _Names, asked: str) -> tuple[np.ndarray, np.ndarray]:
    """(numbers, probabilities) of what a function answered: one of `names`, a mapping, or all numbers."""
    sure = names.find(answer)
    if sure is not None:
        return np.array([sure]), np.ones(1)
    if isinstance(answer, Mapping):
        at = [names.find(x) for x in answer]
        if None in at:
            unknown = next(x for x, i in zip(answer, at, strict=True) if i is None)
            raise InputError(f"{asked} names {unknown!r}; expected one of the {names.field}")
        index, p = np.array(at, np.int64), _numbers(list(answer.values()), asked)
    else:
        index, p = np.arange(len(names)), np.zeros(0)
        with suppress(TypeError, ValueError):  # what has no numbers has no shape of theirs either
            p = np.asarray(answer, np.float64)
        if p.shape != (len(names),):
            expected = f"one of the {names.field}, a mapping to probabilities, or {len(names)} probabilities"
            raise InputError(f"{asked} is {_shown(answer)}; expected {expected}")
    if not (p >= 0).all() or not abs(p.sum() - 1) <= TOLERANCE:
        raise InputError(f"{asked} has probabilities that sum to {p.sum():.9g}; expected 1, none below 0")
    return index[p > 0], p[p > 0]


def _numbers(values: Any, asked: str) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{asked} is {_shown(values)}; expected probabilities") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _table(field: str, given: Any, of: tuple[_Names, ...], to: _Names, swapped: bool = False) -> Rows:
    """[rows of `of`, `to`], a table from an array or a function; `swapped`: it is asked (state, action)."""
    sizes = tuple(len(x) for x in of)
    if not callable(given):
        array = _numbers(given, field)
        if array.shape != (*sizes, len(to)):
            by = " by ".join(x.field for x in (*of, to))
            raise InputError(
                f"{field} has shape {array.shape}; expected {(*sizes, len(to))} ({by}), or a function"
            )
        return Rows.from_dense(array.reshape(-1, len(to)))
    indptr, index, data = [0], [], []
    for flat in range(int(np.prod(sizes))):
        at = np.unravel_index(flat, sizes)
        asked = [names.items[int(i)] for names, i in zip(of, at, strict=True)]
        asked = asked[::-1] if swapped else asked
        words = f"{field}({', '.join(map(repr, asked))})"
        columns, p = _distribution(given(*asked), to, words)
        order = np.argsort(columns)
        index.append(columns[order])
        data.append(p[order])
        indptr.append(indptr[-1] + len(p))
    return Rows(np.array(indptr), np.concatenate(index), np.concatenate(data), len(to))


def _rewards(
    given: Any, entries: tuple[np.ndarray, np.ndarray, np.ndarray], names: tuple[_Names, ...], e: Rows
) -> tuple[np.ndarray, Rows | None]:
    """(the reward of each transition, by what is seen after it if it depends on that)."""
    S, A, O = names
    action, state, reached = entries
    s, a, z = len(S), len(A), len(O)
    if not callable(given):
        r = _numbers(given, "reward")
        shapes = [(a, s), (a, s, s), (a, s, s, z)]
        if r.shape not in shapes:
            raise InputError(
                f"reward has shape {r.shape}; expected {' or '.join(map(str, shapes))} (actions by states by "
                "states reached by observations), or a function"
            )
        if r.ndim < 4:
            return (r[action, state] if r.ndim == 2 else r[action, state, reached]), None
        by_sight = r[action, state, reached]
    else:
        many = _arguments(given)
        if many < 4:
            asked: dict[tuple[int, ...], float] = {}
            for key in zip(*(x.tolist() for x in (state, action, reached)[:many]), strict=True):
                if key not in asked:
                    asked[key] = _paid(given, key, (S, A, S))
            keys = zip(*(x.tolist() for x in (state, action, reached)[:many]), strict=True)
            return np.array([asked[key] for key in keys]), None
        by_sight = np.zeros((len(state), z))
        for i, (s0, a0, s1) in enumerate(zip(state.tolist(), action.tolist(), reached.tolist(), strict=True)):
            for o in e.row(a0 * s + s1)[0].tolist():
                by_sight[i, o] = _paid(given, (s0, a0, s1, o), (S, A, S, O))
    chances = np.zeros_like(by_sight)
    position, at = e.entries_of(action * s + reached)
    chances[position, e.indices[at]] = e.data[at]
    return (by_sight * chances).sum(1), Rows.from_dense(by_sight)


def _arguments(f: Callable[..., Any]) -> int:
    """How many of (state, action, next state, observation) a reward function takes."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return 2
    needed = [
        p
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    if not 2 <= len(needed) <= 4:
        raise InputError(
            f"reward takes {len(needed)} arguments; expected (state, action), and maybe the next state and "
            "the observation"
        )
    return len(needed)


def _paid(f: Callable[..., Any], key: tuple[int, ...], of: tuple[_Names, ...]) -> float:
    asked = [names.items[i] for names, i in zip(of, key, strict=False)]
    answer = f(*asked)
    words = f"reward({', '.join(map(repr, asked))})"
    try:
        value = float(answer)
    except (TypeError, ValueError) as error:
        raise InputError(f"{words} is {_shown(answer)}; expected a number") from error
    if not np.isfinite(value):
        raise InputError(f"{words} is {value}; expected a finite number")
    return value


def _start(given: Any, S: _Names) -> np.ndarray:
    """[S], P(s_0): all states alike, one of them, some of them alike, or probabilities."""
    start = np.zeros(len(S))
    if given is None:
        return np.full(len(S), 1 / len(S))
    among = isinstance(given, list | tuple | set | frozenset) and S.find(given) is None
    if among and given and all(S.find(x) is not None for x in given) and not _sums_to_one(given, S):
        at = {S.number[x] for x in given}
        start[sorted(at)] = 1 / len(at)
        return start
    index, p = _distribution(given, S, "start")
    start[index] = p
    return start


def _sums_to_one(given: Iterable[Any], S: _Names) -> bool:
    """Whether a list could be probabilities: as many numbers as states, which sum to 1."""
    values = list(given)
    if len(values) != len(S):
        return False
    numbers = all(isinstance(x, int | float) for x in values)
    return numbers and abs(sum(values) - 1) <= TOLERANCE and min(values) >= 0


def _ends(given: Any, S: _Names, entries: tuple[np.ndarray, np.ndarray, np.ndarray], A: _Names) -> np.ndarray:
    """[entries] bool, whether the episode ends with each transition."""
    action, state, reached = entries
    if given is None:
        return np.zeros(len(state), bool)
    if callable(given):
        return np.array([bool(given(x)) for x in S.items])[reached]
    if isinstance(given, np.ndarray) or (
        isinstance(given, list) and given and isinstance(given[0], list | bool)
    ):
        over = np.asarray(given, bool)
        if over.shape == (len(S),):
            return over[reached]
        if over.shape == (len(A), len(S), len(S)):
            return over[action, state, reached]
        raise InputError(
            f"ends has shape {over.shape}; expected one for each state, or {(len(A), len(S), len(S))}"
        )
    last = [given] if S.find(given) is not None else list(given)
    for x in last:
        if S.find(x) is None:
            raise InputError(f"ends names {x!r}; expected states in which an episode ends")
    over = np.zeros(len(S), bool)
    over[[S.number[x] for x in last]] = True
    return over[reached]
