"""Optimal values with certified bounds, by point-based search: SARSOP (Kurniawati, Hsu & Lee, RSS 2008).

    V*(b) = max over a of [ R(b,a) + g sum over o of P(o|b,a) V*(b_ao) ]

The lower bound is a set of alpha vectors, each the value of a plan that can be followed; it starts with plans
that never look. The upper bound is a sawtooth through beliefs (Hauskrecht 2000); it starts with the fast
informed bound. Every trial walks from the start to where the two are far apart and improves both on the
way back. In the paper's terms (figure 1): SAMPLE is the walk down, BACKUP the way back.

How we differ
- The prediction of V* that steers the walk (section III.C) is the upper bound itself; the paper learns one by
  sorting beliefs into bins.
- Beliefs that are reached twice are one node: a graph where the paper has a tree.
- An action's children are made when its upper bound becomes the largest, not when its belief is first met.
- A search that has not ended after a second looks whether reachable beliefs lie on points, lines and planes.
  If so, grids bound the value everywhere on them at once (`grids`), and the search goes on from there.
- PRUNE (section III.D) is left out while searching. A node looks at each vector once, so an old vector costs
  nothing; and plans go on with old vectors, which therefore must stay. The policy that is returned holds only
  the best plan and those that it goes on with.

The rest of the room: `search` one search, `trials` the walk and the backups, `node_bounds` the two bounds,
`graph` beliefs and their children, `arrays` the layout of it all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from turnwise.envs.pomdp import POMDP
from turnwise.exact.alpha_policy import AlphaPolicy
from turnwise.exact.grids.refine import rounds
from turnwise.exact.sarsop.search import Search, compile_kernels
from turnwise.run.errors import SettingError

TRACE = 1.1
"""The trace gets a row each time the search has taken this factor longer: even steps on a logarithmic
axis."""
PROGRESS_SECONDS = 0.1
"""time between calls of `progress`"""
FIRST_SHARE = 0.3
"""share of the deadline that the first bounds may take"""
MOST_NUMBERS = 2e7
"""numbers of a policy's vectors beyond which it is not taken in: some 300 MB with its copy"""
PATIENCE = 1.0
"""seconds of search before grids are tried"""


@dataclass(frozen=True)
class Solution:
    """The result of a search: `lower` <= V* <= `upper`, both in units of the return."""

    lower: float
    upper: float
    seconds: float
    """time of the search and of its first bounds, without compilation (once on a machine)"""
    trials: int
    """walks down and up"""
    beliefs: int
    """number of different beliefs that the search made"""
    policy: AlphaPolicy
    """worth at least `lower`"""
    trace: tuple[tuple[float, float, float], ...]
    """(seconds, lower, upper) over time"""
    stopped: str
    """why the search ended: "gap", "trials", "deadline" or "interrupted" """
    points: int = 0
    """points of the finest grid that proved anything; 0 if no grid did"""

    @property
    def searched(self) -> bool:
        """False if time was over before the search began: the bounds are the first ones."""
        return self.trials > 0 or self.points > 0

    @property
    def gap(self) -> float:
        """upper - lower"""
        return self.upper - self.lower


def solve(
    problem: POMDP,
    *,
    gap: float = 1e-3,
    deadline: float | None = 60.0,
    most: int | None = None,
    progress: Callable[[float, float, float], None] | None = None,
) -> Solution:
    """Search until the bounds of V* are within `gap` (units of the return) or `deadline` seconds are over.

    After `most` trials, if that is given, it ends too: a deadline leaves it to the machine how far it comes.

    V* is the optimal value at the start. If the problem shows an initial observation, it is that of an agent
    that sees it. Ctrl-C ends the search with the best so far. `progress(seconds, lower, upper)` is called
    about ten times a second. Raises `Unbounded` at discount 1 if returns need not be finite, SettingError for
    a deadline that is not above 0, and for a gap that is not above 0 without a deadline.
    """
    if deadline is not None and not deadline > 0:
        raise SettingError("deadline", deadline, "a number of seconds above 0")
    if deadline is None and most is None and not gap > 0:
        raise SettingError("gap", gap, "a number above 0 if there is no deadline")
    compile_kernels()
    run = _Run(problem, gap, deadline, most, progress)
    try:
        run.until_done()
    except KeyboardInterrupt:
        run.stopped = "interrupted"
    return run.solution()


class _Run:
    """A search under way, with its clock and its trace."""

    def __init__(
        self,
        problem: POMDP,
        gap: float,
        deadline: float | None,
        most: int | None,
        progress: Callable[[float, float, float], None] | None,
    ) -> None:
        self.began = self.reported = time.perf_counter()
        self.until = math.inf if deadline is None else self.began + deadline
        self.problem, self.gap, self.most, self.progress = problem, gap, most, progress
        self.trace: list[tuple[float, float, float]] = []
        self.trials, self.stopped, self.points = 0, "", 0
        share = math.inf if deadline is None else self.began + FIRST_SHARE * deadline
        self.search = Search(problem, until=share)
        # Grids come second: what a short search settles needs none, and has fewer plans.
        waits = PATIENCE if deadline is None else min(PATIENCE, 0.2 * deadline)
        self.grids_at = self.began + waits if most is None and problem.discount < 1 else math.inf

    def until_done(self) -> None:
        """Trials, and grids in between, until there is a reason to stop."""
        while not self._over():
            now = time.perf_counter()
            if now >= self.grids_at:
                self.grids_at = math.inf
                self._on_grids()
                continue
            # Half of today's gap, not the final one: walks that aim too far go deep where little is to be
            # gained.
            lower, upper = self.search.bounds()
            limited = self.until - now if self.until < math.inf else None
            self.search.trial(0.5 * max(upper - lower, self.gap), limited)
            self.trials += 1

    def _over(self) -> bool:
        """Whether to stop, and why; notes and tells the bounds."""
        lower, upper = self.search.bounds()
        now = time.perf_counter()
        if upper - lower <= self.gap:
            self.stopped = "gap"
        elif self.most is not None and self.trials >= self.most:
            self.stopped = "trials"
        elif now >= self.until:
            self.stopped = "deadline"
        seconds = now - self.began
        if not self.trace or self.stopped or seconds > self.trace[-1][0] * TRACE:
            self.trace.append((seconds, lower, upper))
        if self.progress is not None and not self.stopped and now - self.reported > PROGRESS_SECONDS:
            self.reported = now
            self.progress(seconds, lower, upper)
        return bool(self.stopped)

    def _on_grids(self) -> None:
        """Take in what grids prove, if reachable beliefs lie on points, lines and planes."""
        s = self.search
        for found in rounds(self.problem, s.model.fib, self.until):
            plans = found.policy
            if plans is not None and plans.alphas.size <= MOST_NUMBERS and found.lower > s.bounds()[0]:
                s.add_plans(plans)
            s.lower_roots(found.uppers)
            self.points = found.points
            if self._over():
                return

    def solution(self) -> Solution:
        """What was found."""
        lower, upper = self.search.bounds()
        if lower > upper:
            raise RuntimeError(
                f"bounds crossed, {lower} above {upper}: a fault of the solver, not of the problem"
            )
        seconds = time.perf_counter() - self.began
        if self.stopped == "interrupted":
            self.trace.append((seconds, lower, upper))
        s = self.search
        policy, trace = s.policy(), tuple(self.trace)
        return Solution(
            lower, upper, seconds, self.trials, s.beliefs, policy, trace, self.stopped, self.points
        )
