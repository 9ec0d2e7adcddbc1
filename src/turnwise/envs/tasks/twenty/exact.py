"""The value of the guessing game: for an asker who plays it perfectly, and for the whimsical one of its logs.

Without noise, what is known is the set S of objects that fit, all as likely. With n turns left its cost is

    C_n(S) = min( 1 + sum over yes, no of |S'| / |S| C_{n-1}(S'),            over the attributes
                  (|S| - 1) / |S| (1 + C_{n-1}(S without o)) )               over the objects o of S

A game in which any split of S could be asked for costs less; its value depends on |S| alone, and bounds C
from below, so that most branches need not be looked at. The optimum of 32 objects meets that bound: no table
of attributes at all makes a cheaper game.

The noisy game is valued in `noisy`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.twenty.logs import ASK_ANY, GUESS_ANY, GUESS_LIKELIEST, contradicted
from turnwise.envs.tasks.twenty.rules import ASKS, ATTRIBUTES, GUESSES, HORIZON, NAMES, TRUE, Act
from turnwise.envs.tasks.twenty.words import ANSWERER, read_act

ALL = (1 << len(NAMES)) - 1
"""sets of objects are bits of an integer"""
_YES = [sum(1 << o for o in range(len(NAMES)) if TRUE[o][k]) for k in range(len(ATTRIBUTES))]
_EPS = 1e-12


@cache
def cheapest(n: int, left: int) -> float:
    """The cost of n objects with so many turns left, if any split of them could be asked for."""
    if n == 1 or left == 0:
        return 0.0
    guess = (n - 1) / n * (1 + cheapest(n - 1, left - 1))
    asks = [
        1 + (a * cheapest(a, left - 1) + (n - a) * cheapest(n - a, left - 1)) / n
        for a in range(1, n // 2 + 1)
    ]
    return min(guess, *asks)


@dataclass(frozen=True)
class OptimalAsker:
    """The agent with the least expected cost over `horizon` turns. Ties go to the first act."""

    horizon: int = HORIZON
    _costs: dict[tuple[int, int], tuple[float, Act]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"horizon is {self.horizon}; expected at least 1 turn")

    def cost(self, fits: int = ALL, left: int | None = None) -> float:
        """Expected turns that are paid for, if the object is one of these, with so many turns left."""
        return self._solved(fits, self.horizon if left is None else left)[0]

    def best(self, fits: int, left: int | None = None) -> Act:
        """The best act."""
        return self._solved(fits, self.horizon if left is None else left)[1]

    def act(self, history: Sequence[Message]) -> Act:
        """The best act after a conversation so far (all its messages, text and nothing else)."""
        heard, guessed, turns = follow(history)
        return self.best(_fitting(heard, guessed), max(1, self.horizon - turns))

    def turns_for(self, thing: int) -> int:
        """The turns that are paid for if the object is `thing`."""
        fits, paid = ALL, 0
        while paid < self.horizon:
            act = self.best(fits, self.horizon - paid)
            if act == GUESSES[thing]:
                return paid
            if act.kind == "guess":
                fits &= ~(1 << act.which)
            else:
                fits &= _YES[act.which] if TRUE[thing][act.which] else ~_YES[act.which]
            paid += 1
        return paid

    def _solved(self, fits: int, left: int) -> tuple[float, Act]:
        n = fits.bit_count()
        if left == 0 or n == 1:
            return 0.0, GUESSES[fits.bit_length() - 1]
        if (fits, left) not in self._costs:
            self._costs[fits, left] = self._search(fits, n, left)
        return self._costs[fits, left]

    def _search(self, fits: int, n: int, left: int) -> tuple[float, Act]:
        """Branches in the order of their bounds, until no bound is below the best that was found."""
        options = []
        for act in ASKS:
            yes = fits & _YES[act.which]
            a = yes.bit_count()
            if 0 < a < n:
                bound = 1 + (a * cheapest(a, left - 1) + (n - a) * cheapest(n - a, left - 1)) / n
                options.append((bound, act, ((yes, a), (fits & ~yes, n - a))))
        bound = (n - 1) / n * (1 + cheapest(n - 1, left - 1))
        for act in GUESSES:
            if fits >> act.which & 1:
                options.append((bound, act, ((fits & ~(1 << act.which), n - 1),)))
        best, chosen = math.inf, options[0][1]
        for bound, act, parts in sorted(options, key=lambda option: option[0]):
            if bound >= best - _EPS:
                break
            paid = 1.0 if act.kind == "ask" else (n - 1) / n
            cost = paid + sum(m * self._solved(part, left - 1)[0] for part, m in parts) / n
            if cost < best - _EPS:
                best, chosen = cost, act
        return best, chosen


def follow(history: Sequence[Message]) -> tuple[list[tuple[int, bool]], set[int], int]:
    """(answers about attributes, wrong guesses, turns so far) of a conversation under way, from its texts."""
    heard: list[tuple[int, bool]] = []
    guessed: set[int] = set()
    act, turns = None, 0
    for message in history:
        if message.role == "assistant":
            act, turns = read_act(message.content), turns + 1
        elif act is not None and (said := ANSWERER.read(message.content)) in ("yes", "no"):
            if act.kind == "ask":
                heard.append((act.which, said == "yes"))
            elif act.kind == "guess":
                guessed.add(act.which)
    return heard, guessed, turns


def _fitting(heard: Sequence[tuple[int, bool]], guessed: set[int]) -> int:
    """The objects that fit all answers; those that fit most, if none does."""
    against = contradicted(heard)
    left = [o for o in range(len(NAMES)) if o not in guessed] or list(range(len(NAMES)))
    least = min(against[o] for o in left)
    return sum(1 << o for o in left if against[o] == least)


@cache
def optimal_value(horizon: int = HORIZON) -> float:
    """Expected return of the best asker of the game without noise."""
    return -OptimalAsker(horizon).cost()


@cache
def behavior_value(horizon: int = HORIZON) -> float:
    """Expected return of the whimsical asker of the game without noise, exactly.

    Its chance to hit the object depends on nothing but the set of attributes that it has asked for, since it
    forgets its guesses: backwards over all 2^14 sets, for each object.
    """
    sets = np.arange(1 << len(ATTRIBUTES))
    code = np.array([sum(1 << k for k, true in enumerate(row) if true) for row in TRUE])
    total = 0.0
    for thing in range(len(NAMES)):
        fitting = sum(((code[thing] ^ other) & sets == 0).astype(int) for other in code)  # [2^14]
        hit = GUESS_ANY / len(NAMES) + GUESS_LIKELIEST / fitting
        value = np.zeros(len(sets))
        for _ in range(horizon):
            asked = sum(value[sets | 1 << k] for k in range(len(ATTRIBUTES))) / len(ATTRIBUTES)
            missed = 1 - ASK_ANY - hit
            value = -(1 - hit) + ASK_ANY * asked + missed * value
        total += float(value[0])
    return total / len(NAMES)


@cache
def expert_turns() -> tuple[int, ...]:
    """The turns that the best asker pays for, of each object: what a planning gap is measured from."""
    asker = OptimalAsker()
    return tuple(asker.turns_for(thing) for thing in range(len(NAMES)))
