"""The value of the car dealer: for a seller that plays it perfectly, and for the one of the logs.

Backward induction over all that can be known at a turn (`belief`), level by level: some 80,000 rows, or
240,000 with what was done last, in a second or two. What nobody understands costs a turn, makes no persona
likelier and tells nothing: it is never better than a look at the stock, and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.dealer.belief import LAST, START, After, Last, after, codes, follow, rows_of
from turnwise.envs.tasks.dealer.logs import AFTER, HABITS
from turnwise.envs.tasks.dealer.rules import ACTS, HORIZON, QUOTES, Act

Choose = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(rows [N, columns], Q of each act [N, A]) -> P of each act [N, A]"""
Table = dict[tuple[int, int], np.ndarray]
"""(turn, code of a row) -> Q of each act [A]"""
_NEVER = 1e-12
"""a chance below it is none: rounding"""
_QUOTES_FROM = len(ACTS) - len(QUOTES)


@dataclass(frozen=True)
class Level:
    """All that can be known before a turn, and what each act leads to."""

    rows: np.ndarray
    """[N, columns], in the order of their codes"""
    earned: np.ndarray
    """[N, A], expected at once"""
    next: list[list[tuple[np.ndarray, np.ndarray]]]
    """of each act: (chance [N], row of the next level [N]) of each way to go on"""

    def action_values(self, after: np.ndarray | None) -> np.ndarray:
        """[N, A], Q, from the values of the next level; None if there is none."""
        q = self.earned.copy()
        if after is not None:
            for a, ways in enumerate(self.next):
                for chance, place in ways:
                    q[:, a] += chance * after[place]
        return q


def levels(start: np.ndarray = START, turns: int = HORIZON, last: Last | None = None) -> list[Level]:
    """The levels of `turns` turns from one row on. `last`: rows say what was done last, in these numbers."""
    found, rows = [], start
    for turn in range(turns):
        if turn == turns - 1:  # whatever is no quote earns nothing any more
            quotes = [after(rows, act).earned for act in QUOTES]
            earned = np.stack([*[np.zeros(len(rows))] * _QUOTES_FROM, *quotes], 1)
            found.append(Level(rows, earned, [[] for _ in ACTS]))
            break
        done = [after(rows, act, last) for act in ACTS]
        level, rows = _joined(rows, done)
        found.append(level)
    return found


def _joined(rows: np.ndarray, done: Sequence[After]) -> tuple[Level, np.ndarray]:
    """A level of what its acts do, and the rows of the next one, each once."""
    ways = [[(np.where(o.chance > _NEVER, o.chance, 0.0), codes(o.rows)) for o in x.outcomes] for x in done]
    different = np.unique(np.concatenate([code[p > 0] for each in ways for p, code in each]))
    places = [
        [(p, np.where(p > 0, np.searchsorted(different, code), 0)) for p, code in each] for each in ways
    ]
    return Level(rows, np.stack([x.earned for x in done], 1), places), rows_of(different)


def evaluate(game: Sequence[Level], choose: Sequence[Choose]) -> tuple[float, list[np.ndarray]]:
    """(expected return from the first row on, Q of each level) of who chooses so at each level."""
    value, found = None, []
    for level, policy in zip(reversed(game), reversed(choose), strict=True):
        q = level.action_values(value)
        value = (policy(level.rows, q) * q).sum(1)
        found.append(q)
    assert value is not None
    return float(value[0]), found[::-1]


def greedy(rows: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The best act, the first of them if there are several."""
    return np.eye(len(ACTS))[q.argmax(1)]


def habits(rows: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The seller of the logs."""
    return np.array(HABITS)[rows[:, LAST]]


@dataclass(frozen=True)
class OptimalSeller:
    """The agent that maximises the expected return. Ties go to the first act."""

    horizon: int = HORIZON
    _others: Table = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"horizon is {self.horizon}; expected at least 1 turn")

    def action_values(self, row: np.ndarray, turn: int) -> np.ndarray:
        """[A], Q of each of `ACTS` in turn number `turn`, from 0; `row` as in `belief.follow`."""
        turn = min(turn, self.horizon - 1)
        key = (turn, int(codes(row)[0]))
        known = _table(self.horizon)
        if key in known:
            return known[key]
        if key not in self._others:  # nothing that the best agent comes to
            self._others.update(_solved(row, turn, self.horizon))
        return self._others[key]

    def act(self, history: Sequence[Message]) -> Act:
        """The best act after a conversation so far (all its messages, text and calls and nothing else)."""
        return ACTS[int(self.action_values(*follow(history)).argmax())]


def _solved(start: np.ndarray, turn: int, horizon: int) -> Table:
    """Q of optimal play from one row before a turn on."""
    game = levels(start, horizon - turn)
    _, values = evaluate(game, [greedy] * len(game))
    return {
        (t, int(code)): q
        for t, (level, x) in enumerate(zip(game, values, strict=True), turn)
        for code, q in zip(codes(level.rows), x, strict=True)
    }


@cache
def _table(horizon: int) -> Table:
    return _solved(START, 0, horizon)


@cache
def optimal_value(horizon: int = HORIZON) -> float:
    """Expected return of the best agent from the first turn."""
    return float(OptimalSeller(horizon).action_values(START, 0).max())


@cache
def _logged(horizon: int) -> tuple[float, float]:
    """Expected returns of the seller of the logs, and of one greedy step on its Q."""
    game = levels(turns=horizon, last=AFTER)
    value, q = evaluate(game, [habits] * horizon)
    return value, evaluate(game, [_fixed(greedy(level.rows, x)) for level, x in zip(game, q, strict=True)])[0]


def _fixed(probabilities: np.ndarray) -> Choose:
    return lambda rows, q: probabilities


def behavior_value(horizon: int = HORIZON) -> float:
    """Expected return of the seller of habits."""
    return _logged(horizon)[0]


def improved_value(horizon: int = HORIZON) -> float:
    """Expected return of one greedy step on that seller's own exact Q, ties to the first act.

    This is as far as a perfect Monte-Carlo critic leads. To get further takes backups through better
    continuations.
    """
    return _logged(horizon)[1]


def quote_value(price: int) -> float:
    """Expected return of a quote before any question, and nothing after it."""
    return float(after(START, QUOTES[price - 1]).earned[0])
