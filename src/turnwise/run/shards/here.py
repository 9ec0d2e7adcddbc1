"""Work divided into shards, done in this process one after another.

What a shard gives follows from what all share and from its own number: its seed, its part of the work. So
the result depends on how many shards there are, and on nothing that happens to them: not on who does which,
on how many do them at once, or on one that is done again because a machine was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np

P = TypeVar("P")
R = TypeVar("R")


class Workers(Protocol):
    """What does the shards of a piece of work."""

    def each(
        self,
        do: Callable[[Any, P], R],
        shared: Any,
        parts: Sequence[P],
        done: Callable[[int], None] = lambda i: None,
    ) -> list[R]:
        """`do(shared, part)` of each part, in their order; `done` hears of the number of each as it ends.

        `do` changes nothing that others see, and is a function of a module. An error in one is raised here,
        and the rest is not done.
        """
        ...


class Here:
    """One shard after another, in this process."""

    def each(
        self,
        do: Callable[[Any, P], R],
        shared: Any,
        parts: Sequence[P],
        done: Callable[[int], None] = lambda i: None,
    ) -> list[R]:
        """As `Workers` says."""
        found = []
        for i, part in enumerate(parts):
            found.append(do(shared, part))
            done(i)
        return found


def divided(n: int, shards: int) -> list[range]:
    """0 .. n-1 as at most `shards` ranges whose lengths differ by one at most: 7 in 3 are 3, 2 and 2."""
    count = min(n, shards)
    ends = [(i * n + count - 1) // count for i in range(count + 1)]
    return [range(a, b) for a, b in pairwise(ends)]


def shard_seed(seed: int, shard: int) -> int:
    """The seed of a shard, below 2^63: others for each, and the same on any machine."""
    state = np.random.SeedSequence((seed, 13, shard)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def spread(
    workers: Workers,
    do: Callable[[Any, range], Sequence[R]],
    shared: Any,
    n: int,
    shards: int,
    progress: Callable[[int], None] | None = None,
) -> list[R]:
    """What `do(shared, part)` gives of each of `shards` parts of 0 .. n-1, one after another in one list.

    `progress` hears how many of the n are done.
    """
    parts = divided(n, shards)
    done = counting(parts, progress or (lambda so_far: None))
    return [x for found in workers.each(do, shared, parts, done) for x in found]


def counting(parts: Sequence[range], at: Callable[[int], None]) -> Callable[[int], None]:
    """What turns "shard i has ended" into how many of the things in all shards are done."""
    so_far = 0

    def done(shard: int) -> None:
        nonlocal so_far
        so_far += len(parts[shard])
        at(so_far)

    return done
