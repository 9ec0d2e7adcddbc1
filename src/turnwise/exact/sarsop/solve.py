"""Optimal values with certified bounds, by point-based search: SARSOP (Kurniawati, Hsu & Lee, RSS 2008).

The lower bound is a set of alpha vectors, each the value of a plan that can be followed; it starts with plans
that never look. The upper bound is a sawtooth through beliefs (Hauskrecht 2000), which starts with the fast
informed bound. Every trial walks from the start to where the two are far apart and improves both on the
way back. How we differ: the upper bound itself predicts values (no bins); beliefs reached twice are one
node; an action's children are made when its upper bound becomes the largest; no vector is pruned while
searching, since a node looks at each only once, and what is returned are the plans that the best one goes
on with.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from turnwise.envs.pomdp import POMDP
from turnwise.exact.alpha_policy import AlphaPolicy
from turnwise.exact.sarsop.search import Search, compile_kernels

TRACE = 1.1
"""a row is added to the trace when this factor more time has gone by"""
TALK = 0.1
"""seconds between calls of `progress`"""


@dataclass(frozen=True)
class Solution:
    """What a search came to: `lower` <= V* <= `upper`, both in units of the return."""

    lower: float
    upper: float
    seconds: float
    """of the search and of the bounds that it starts from; compilation, once on a machine, not counted"""
    trials: int
    beliefs: int
    """nodes of the search"""
    policy: AlphaPolicy
    """worth at least `lower`"""
    trace: tuple[tuple[float, float, float], ...]
    """(seconds, lower, upper) as they went"""
    stopped: str
    """why the search ended: "gap", "deadline" or "interrupted" """

    @property
    def gap(self) -> float:
        """upper - lower"""
        return self.upper - self.lower


def solve(
    problem: POMDP,
    *,
    gap: float = 1e-3,
    deadline: float | None = 60.0,
    progress: Callable[[float, float, float], None] | None = None,
) -> Solution:
    """Search until the bounds of V* are within `gap` (units of the return) or `deadline` seconds are over.

    V* is the optimal value at the start; where the problem shows an initial observation, that of an agent
    that sees it. Ctrl-C ends the search with the best so far. `progress(seconds, lower, upper)` is called
    about ten times a second. Raises `Unbounded` at discount 1 where returns need not be finite.
    """
    compile_kernels()
    began = spoke = time.perf_counter()
    trace: list[tuple[float, float, float]] = []
    search, trials, stopped = Search(problem), 0, ""
    while True:
        try:
            lower, upper = search.bounds()
            now = time.perf_counter()
            if upper - lower <= gap:
                stopped = "gap"
            elif deadline is not None and now - began >= deadline:
                stopped = "deadline"
            if not trace or stopped or now - began > trace[-1][0] * TRACE:
                trace.append((now - began, lower, upper))
            if stopped:
                break
            if progress is not None and now - spoke > TALK:
                spoke = now
                progress(now - began, lower, upper)
            search.trial(0.5 * max(upper - lower, gap))
            trials += 1
        except KeyboardInterrupt:
            stopped = "interrupted"
            break
    lower, upper = search.bounds()
    if lower > upper:
        raise RuntimeError(f"bounds crossed, {lower} above {upper}: a fault of the solver, not the problem")
    seconds = time.perf_counter() - began
    if stopped == "interrupted":
        trace.append((seconds, lower, upper))
    return Solution(lower, upper, seconds, trials, search.beliefs, search.policy(), tuple(trace), stopped)
