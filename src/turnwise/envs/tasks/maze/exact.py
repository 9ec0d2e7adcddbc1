"""The value of the maze: for a walker who plays it perfectly, and for the strolling walker of its logs.

Moves are certain and every start is as likely, so all that a walker can know is a set of cells, each as
likely as the others: two cells that look alike block the same moves, and no move takes both to one place.
From the first sights 25 sets are reached if the cell is told, and 44 if walls alone are. With n messages left

    V_n(set) = max over moves of sum over what is seen next of P(it) (reward + V_{n-1}(set after it)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.maze.rules import (
    GOAL,
    HORIZON,
    MOVES,
    NONE,
    STARTS,
    Cell,
    Move,
    Observed,
    Sight,
    after,
    earned,
    sight,
)
from turnwise.envs.tasks.maze.words import read_act, read_observation

Belief = frozenset[Cell]
"""the cells that one may be in, all as likely"""
LOGGED_SOLVER = 0.15
"""how often the walker of the logs makes a best move; else it makes any move at random"""
_TIE = 1e-9


def by_sight(cells: Sequence[Cell] | Belief, observed: Observed) -> dict[Sight, Belief]:
    """The cells apart by what is seen from them."""
    found: dict[Sight, set[Cell]] = {}
    for cell in cells:
        found.setdefault(sight(cell, observed), set()).add(cell)
    return {seen: frozenset(group) for seen, group in found.items()}


@cache
def moved(belief: Belief, move: Move, observed: Observed) -> tuple[float, dict[Sight, Belief]]:
    """(expected reward, belief by what is seen after it) of a move; a walk that arrives sees no more."""
    there = [after(cell, move) for cell in belief]
    reward = sum(earned(cell, move) for cell in there) / len(belief)
    return reward, by_sight([cell for cell in there if cell != GOAL], observed)


@cache
def reachable(observed: Observed) -> tuple[Belief, ...]:
    """Every belief that a walker can come to hold."""
    found = dict.fromkeys(by_sight(STARTS, observed).values())
    waiting = list(found)
    for belief in waiting:
        for move in MOVES:
            for new in moved(belief, move, observed)[1].values():
                if new not in found:
                    found[new] = None
                    waiting.append(new)
    return tuple(found)


@dataclass(frozen=True)
class OptimalWalker:
    """The agent that maximises the expected return over `horizon` messages. Ties go to the first move."""

    observed: Observed = "full"
    horizon: int = HORIZON
    _values: list[dict[Belief, float]] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"horizon is {self.horizon}; expected at least 1 message")
        beliefs = reachable(self.observed)
        self._values.append(dict.fromkeys(beliefs, 0.0))
        for left in range(1, self.horizon + 1):
            self._values.append({b: max(self._all(b, left).values()) for b in beliefs})

    def value(self, belief: Belief, left: int | None = None) -> float:
        """Expected return from a belief, with so many messages left; at first, all."""
        return self._values[self.horizon if left is None else left][belief]

    def action_values(self, belief: Belief, left: int | None = None) -> list[float]:
        """Q of each of `MOVES`."""
        q = self._all(belief, self.horizon if left is None else left)
        return [q[move] for move in MOVES]

    def best(self, belief: Belief, left: int | None = None) -> list[Move]:
        """The best moves, all of them."""
        q = self.action_values(belief, left)
        return [move for move, x in zip(MOVES, q, strict=True) if x > max(q) - _TIE]

    def act(self, history: Sequence[Message]) -> Move:
        """The best move after a conversation so far (all its messages, text and nothing else)."""
        turns = sum(m.role == "assistant" for m in history)
        return self.best(follow(history, self.observed), max(1, self.horizon - turns))[0]

    def _all(self, belief: Belief, left: int) -> dict[Move, float]:
        q = {}
        for move in (*MOVES, NONE):
            reward, beliefs = moved(belief, move, self.observed)
            then = self._values[left - 1]
            q[move] = reward + sum(len(b) * then[b] for b in beliefs.values()) / len(belief)
        return q


def follow(history: Sequence[Message], observed: Observed) -> Belief:
    """The cells that fit a conversation under way. What no cell fits is left out of account."""
    belief: Belief = frozenset(STARTS)
    move: Move | None = None
    for message in history:
        if message.role == "assistant":
            move = read_act(message.content)
        elif (seen := read_observation(message.content, observed)) is not None:
            options = by_sight(belief, observed) if move is None else moved(belief, move, observed)[1]
            belief, move = options.get(seen, belief), None
    return belief


@cache
def best_moves(belief: Belief, observed: Observed) -> tuple[Move, ...]:
    """Those of an optimal walker who has all the time that it needs."""
    return tuple(_patient(observed).best(belief))


@cache
def _patient(observed: Observed) -> OptimalWalker:
    return OptimalWalker(observed)


def behavior_probabilities(belief: Belief, observed: Observed) -> list[float]:
    """The probability with which the strolling walker makes each of `MOVES`: 15% best ones, 85% any.

    It goes by what was told alone, so that whoever has read the conversation knows as much.
    """
    best = best_moves(belief, observed)
    any_move = (1 - LOGGED_SOLVER) / len(MOVES)
    return [any_move + (LOGGED_SOLVER / len(best) if move in best else 0.0) for move in MOVES]


@cache
def optimal_value(observed: Observed = "full", horizon: int = HORIZON) -> float:
    """Expected return of the best walker, who has seen where it starts before its first move."""
    walker = OptimalWalker(observed, horizon)
    first = by_sight(STARTS, observed).values()
    return sum(len(b) * walker.value(b) for b in first) / len(STARTS)


@cache
def behavior_value(observed: Observed = "full", horizon: int = HORIZON) -> float:
    """Expected return of the strolling walker, if nothing but the horizon cuts its walk."""
    beliefs = reachable(observed)
    value = dict.fromkeys(beliefs, 0.0)
    for _ in range(horizon):
        new = {}
        for belief in beliefs:
            total = 0.0
            for move, p in zip(MOVES, behavior_probabilities(belief, observed), strict=True):
                reward, then = moved(belief, move, observed)
                total += p * (reward + sum(len(b) * value[b] for b in then.values()) / len(belief))
            new[belief] = total
        value = new
    first = by_sight(STARTS, observed).values()
    return sum(len(b) * value[b] for b in first) / len(STARTS)
