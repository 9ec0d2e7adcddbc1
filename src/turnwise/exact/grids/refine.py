"""Both bounds on grids that grow finer, for problems whose reachable beliefs lie on points, lines and planes.

There a grid has all beliefs in reach at once, where a search visits them one after the other: two hidden
regimes that stay with .95 take a search thousands of beliefs, and a grid a few hundred points.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.exact.alpha_policy import AlphaPolicy
from turnwise.exact.grids.plans import Controller, TooLarge
from turnwise.exact.grids.slices import reachable_slices
from turnwise.exact.grids.upper import UpperBound

COARSEST = 8
"""cells on an edge, to begin with"""
MOST_POINTS = 150_000
"""finer grids are not made"""
ROUNDS = 4
"""improvements of a controller on one grid, at most"""
CLOSE = 0.1
"""share of the gap that an improvement must close for another to be tried"""


@dataclass(frozen=True)
class Round:
    """What one grid gave."""

    lower: float
    uppers: tuple[float, ...]
    """of each belief before the first action, in the order of `first_beliefs`"""
    upper: float
    policy: AlphaPolicy | None
    """worth at least `lower`; None if no controller was valued yet"""
    points: int


def rounds(problem: POMDP, fib: np.ndarray, until: float) -> Iterator[Round]:
    """Bounds from one grid after the other, each better than the last; nothing if beliefs fill more.

    `fib` [A, S]: an upper bound of Q to begin with. Ends where the next grid would be too large, or would not
    be done at `until` (of `time.perf_counter`). The discount is below 1.
    """
    slices = reachable_slices(problem)
    if slices is None:
        return
    S, _, O = problem.shape
    g, r = problem.discount, problem.expected_rewards()
    least = min(float(r.min()), 0.0) / (1 - g)
    upper, best = UpperBound(slices, g, fib, COARSEST), None
    while True:
        began = time.perf_counter()
        upper.improve(until)
        uppers = tuple(float(upper.at(k, b[None])[0]) for _, k, b in slices.roots)
        top = float(sum(p * u for (p, *_), u in zip(slices.roots, uppers, strict=True)))
        best = _best(best, upper, O, top, until)
        policy = None if best is None else best.policy(S, least)
        lower = -math.inf if best is None else best.value()
        yield Round(lower, uppers, top, policy, len(upper.values))
        now = time.perf_counter()
        grows = 4 if max(len(s.corners) for s in slices.slices) > 2 else 2
        if len(upper.values) * grows > MOST_POINTS or now + 1.5 * grows * (now - began) > until:
            return
        upper = upper.refined(fib)


def _best(
    best: Controller | None, upper: UpperBound, observations: int, top: float, until: float
) -> Controller | None:
    """The best of what is known, of the upper bound's policy, and of improvements of it."""
    points = [grid.points for grid in upper.grids]
    try:
        plans = Controller.of(upper, observations)
        best = plans if best is None or plans.value() > best.value() else best
        for _ in range(ROUNDS):
            if time.perf_counter() > until:
                break
            plans = best.improved(points)
            gained = plans.value() - best.value()
            best = plans if gained > 0 else best
            if gained <= CLOSE * (top - best.value()):
                break
    except TooLarge:
        pass
    return best
