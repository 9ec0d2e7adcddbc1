"""What lies on the table: items, private values, divisions, and the scenarios that the rules allow.

The rules are those of Lewis et al. 2017 (arXiv:1706.05125), section 3.1: five to seven items of three kinds,
values that sum to 10 for each side, no item that is worthless to both, and some item that both value.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

ITEMS = ("book", "hat", "ball")
TOTAL = 10  # what all items together are worth to a side
FEWEST, MOST = 5, 7  # items on the table
MOST_OF_A_KIND = 4  # no scenario of the corpus has more, and none has a kind without an item

Triple = tuple[int, int, int]  # one number for each kind of item, in the order of ITEMS


def triple(numbers: Sequence[int]) -> Triple:
    """Three numbers as a `Triple`. ValueError for any other number of them."""
    first, second, third = numbers
    return first, second, third


def divisions(counts: Triple) -> list[Triple]:
    """Every share that one side can have, the other having the rest; the first item varies slowest."""
    return [(i, j, k) for i, j, k in itertools.product(*(range(c + 1) for c in counts))]


def remainder(counts: Triple, share: Triple) -> Triple:
    """What is left for the other side."""
    return triple([c - k for c, k in zip(counts, share, strict=True)])


def points(values: Triple, share: Triple) -> int:
    """Sum of the values of the items in a share."""
    return sum(v * k for v, k in zip(values, share, strict=True))


def pareto_optimal(counts: Triple, values_a: Triple, values_b: Triple, points_a: int, points_b: int) -> bool:
    """Whether no division of all the items gives both sides at least as much and one of them more."""
    for share in divisions(counts):
        a, b = points(values_a, share), points(values_b, remainder(counts, share))
        if a >= points_a and b >= points_b and (a, b) != (points_a, points_b):
            return False
    return True


@dataclass(frozen=True)
class Scenario:
    """Two sides at one table: what there is, and what it is worth to each."""

    counts: Triple
    values_a: Triple
    values_b: Triple

    def swapped(self) -> Scenario:
        """The same table with the sides exchanged."""
        return Scenario(self.counts, self.values_b, self.values_a)


Draw = Callable[[np.random.Generator], Scenario]
"""how a new game gets its scenario"""


@cache
def possible_counts() -> tuple[Triple, ...]:
    """The 28 ways to lay items on the table, sorted."""
    each = itertools.product(range(1, MOST_OF_A_KIND + 1), repeat=len(ITEMS))
    return tuple(triple(counts) for counts in each if FEWEST <= sum(counts) <= MOST)


@cache
def possible_values(counts: Triple) -> tuple[Triple, ...]:
    """The private values that a side can have of these items, sorted."""
    each = itertools.product(range(TOTAL + 1), repeat=len(ITEMS))
    return tuple(triple(values) for values in each if points(triple(values), counts) == TOTAL)


@cache
def possible_scenarios(counts: Triple) -> tuple[Scenario, ...]:
    """The scenarios with these items: 35 to 513 of them, 5,295 over all counts.

    At least one side values each item, and both sides value at least one: so not both can have 10 points.
    """
    pairs = itertools.product(possible_values(counts), repeat=2)
    return tuple(
        Scenario(counts, a, b)
        for a, b in pairs
        if all(x or y for x, y in zip(a, b, strict=True)) and any(x and y for x, y in zip(a, b, strict=True))
    )


def draw_scenario(rng: np.random.Generator) -> Scenario:
    """Counts uniformly, then values uniformly among the pairs that the rules allow with them."""
    counts = possible_counts()[int(rng.integers(len(possible_counts())))]
    scenarios = possible_scenarios(counts)
    return scenarios[int(rng.integers(len(scenarios)))]


def one_of(scenarios: Sequence[Scenario]) -> Draw:
    """Draws one of these, uniformly."""
    return lambda rng: scenarios[int(rng.integers(len(scenarios)))]
