"""What is known exactly of negotiations: the best divisions of a scenario, and values against the script.

The script looks at its own values, at the number of its turn and at the offer that stands, and at nothing
else. So backward induction over the utterances computes the value of any policy of that kind against it, for
all 5,295 scenarios at once: arrays [I, J, S] over the values of side a, the values of side b (with the same
items) and the shares of side a. Pairs of values that the rules exclude are computed too, and left out of the
means.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from turnwise.envs.tasks.negotiation.game import MAX_UTTERANCES
from turnwise.envs.tasks.negotiation.scenarios import (
    Scenario,
    Triple,
    divisions,
    points,
    possible_counts,
    possible_scenarios,
    possible_values,
    remainder,
)
from turnwise.envs.tasks.negotiation.script import (
    ACCEPTS_IN_WORDS,
    LEAVES,
    PATIENCE,
    REFUSES,
    demands,
    offers,
)
from turnwise.envs.tasks.table import Side


def worths(scenario: Scenario) -> list[tuple[int, int]]:
    """(points of side a, points of side b) of every division of the items."""
    s = scenario
    return [
        (points(s.values_a, share), points(s.values_b, remainder(s.counts, share)))
        for share in divisions(s.counts)
    ]


def frontier(scenario: Scenario) -> list[tuple[int, int]]:
    """The Pareto frontier: points (a, b) of the divisions that no other division betters, by rising a."""
    found = set(worths(scenario))
    return sorted(p for p in found if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in found))


def best_joint(scenario: Scenario) -> int:
    """The most points that both sides together can have."""
    return max(a + b for a, b in worths(scenario))


def best_points(scenario: Scenario, partner_least: int = 0) -> int:
    """The most points that side a can have if side b gets at least `partner_least`.

    With 0 it is 10, everything. ValueError if no division gives side b so much.
    """
    mine = [a for a, b in worths(scenario) if b >= partner_least]
    if not mine:
        raise ValueError(f"partner_least is {partner_least}; expected at most 10, what everything is worth")
    return max(mine)


class _Values(NamedTuple):
    """Expected points of side a before an utterance, by where the talk stands."""

    none: np.ndarray
    """[I, J]: no offer of the other side stands"""
    offered: np.ndarray
    """[I, J, S]: the other side has offered a division that gives side a the share"""
    accepted: np.ndarray
    """[I, J, S]: the other side has said yes to the speaker's offer of that division"""


class _Items:
    """Everything about the scenarios with the same items, as arrays."""

    def __init__(self, counts: Triple) -> None:
        values, shares = possible_values(counts), divisions(counts)
        self.counts, self.values, self.shares = counts, values, shares
        self.worth = np.array([[points(v, s) for s in shares] for v in values], float)  # [I, S]
        index = {v: i for i, v in enumerate(values)}
        self.possible = np.zeros((len(values), len(values)), bool)  # [I, J]: the rules allow the pair
        for s in possible_scenarios(counts):
            self.possible[index[s.values_a], index[s.values_b]] = True
        shape = (len(values), len(values), len(shares))
        self.points_a = np.broadcast_to(self.worth[:, None, :], shape)  # [I, J, S]
        # Shares are in lexicographic order, so the remainder of the first share is the last one, and so on.
        self.points_b = np.broadcast_to(self.worth[None, :, ::-1], shape)  # [I, J, S], by the share of a
        self.over = _Values(np.zeros(shape[:2]), np.zeros(shape), np.zeros(shape))

    @cache  # noqa: B019 -- a handful of demands for each of 28 objects that live as long as the process
    def offer_odds(self, demand: int) -> np.ndarray:
        """[I, S]: the probability that the script asks for each share, given its values and the demand."""
        found = np.zeros_like(self.worth)
        for i, v in enumerate(self.values):
            chosen = offers(self.counts, v, demand)
            found[i, [self.shares.index(s) for s in chosen]] = 1 / len(chosen)
        return found

    def script(self, side: Side, turn: int, after: _Values) -> _Values:
        """The backup of a turn of the script: `act_probabilities` in arrays. `turn` counts its own turns."""
        leaves = LEAVES if turn >= PATIENCE else 0.0
        own = self.points_a if side == "a" else self.points_b
        none, offered = np.zeros_like(after.none), np.zeros_like(after.offered)
        for demand in demands(turn):
            odds = self.offer_odds(demand)  # [I, S] by the speaker's values and share
            if side == "a":
                counter = np.einsum("is,ijs->ij", odds, after.offered)
            else:
                # `after` goes by the share of side a: the remainder of what side b asks for.
                counter = np.einsum("js,ijs->ij", odds[:, ::-1], after.offered)
            none += (1 - leaves) * counter
            haggle = (1 - leaves) * (REFUSES * after.none + (1 - REFUSES) * counter)  # [I, J]
            take = ACCEPTS_IN_WORDS * after.accepted + (1 - ACCEPTS_IN_WORDS) * self.points_a
            offered += np.where(own >= demand, take, haggle[..., None])
        n = len(demands(turn))
        return _Values(none / n, offered / n, self.points_a)

    def best(self, side: Side, turn: int, after: _Values) -> _Values:
        """The backup of a turn of side a that knows all: close if that pays, else the best that follows.

        To say nothing plain leaves no offer of its own on the table, as to refuse does.
        """
        none = np.maximum(after.offered.max(-1), after.none)
        close = np.maximum(self.points_a, none[..., None])
        return _Values(none, close, close)

    def first_offer(self, side: Side, turn: int, after: _Values) -> _Values:
        """The backup of a turn of side a that refuses until an offer stands, and takes the first one."""
        return _Values(after.none, self.points_a, self.points_a)

    def value(self, agent: Callable[[Side, int, _Values], _Values]) -> np.ndarray:
        """[I, J]: expected points of side a against the script, half the time with the first word."""
        total = np.zeros_like(self.over.none)
        for first in (0, 1):  # 0: side a has the first word
            values = self.over
            for n in reversed(range(MAX_UTTERANCES)):
                mine = n % 2 == first
                # From the last utterance back to the first: each turns the values after it into those before.
                values = agent("a", n // 2, values) if mine else self.script("b", n // 2, values)
            total += values.none / 2
        return total


@cache
def _items() -> tuple[_Items, ...]:
    return tuple(_Items(counts) for counts in possible_counts())


def script_points(scenario: Scenario) -> float:
    """Expected points of side a in a scenario if the script speaks for both sides."""
    return _at(scenario, _script_tables())


def informed_points(scenario: Scenario) -> float:
    """Expected points of side a in a scenario against the script, if it knows the values of side b."""
    return _at(scenario, _informed_tables())


def script_value() -> float:
    """Expected points of the script against itself: the mean return of its logs."""
    return _mean(_script_tables())


def informed_value() -> float:
    """Expected points of the best policy that sees the partner's values: no policy can have more.

    A policy that does not see them has to find them out, and cannot reach this in general.
    """
    return _mean(_informed_tables())


def first_offer_value() -> float:
    """Expected points of the policy that takes the first offer it hears."""
    return _mean(_first_offer_tables())


@cache
def _script_tables() -> tuple[np.ndarray, ...]:
    return tuple(items.value(items.script) for items in _items())


@cache
def _informed_tables() -> tuple[np.ndarray, ...]:
    return tuple(items.value(items.best) for items in _items())


@cache
def _first_offer_tables() -> tuple[np.ndarray, ...]:
    return tuple(items.value(items.first_offer) for items in _items())


def _mean(tables: tuple[np.ndarray, ...]) -> float:
    """Over scenarios as they are drawn: counts uniformly, then the pairs that the rules allow with them."""
    each = [table[items.possible].mean() for items, table in zip(_items(), tables, strict=True)]
    return float(np.mean(each))


def _at(scenario: Scenario, tables: tuple[np.ndarray, ...]) -> float:
    items = possible_counts().index(scenario.counts)
    values = possible_values(scenario.counts)
    return float(tables[items][values.index(scenario.values_a), values.index(scenario.values_b)])
