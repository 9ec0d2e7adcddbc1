"""Episodes of a policy of alpha vectors: what it earns by Monte Carlo, what it knows, what looking is worth.

    entropy of a step  H(b), nats
    given up           max_a R(b,a) - R(b, a_taken): immediate reward that was not taken
    value of the look  g (sum_o P(o|b,a) V(b_ao) - V(sum_o P(o|b,a) b_ao)): what seeing o is worth, compared
                       with going on without it (value of information, Howard 1966). V is the maximum over the
                       policy's vectors, which is convex, so this is never negative (Jensen)
    shown more         what of that the action given up would not have shown (`_shown_more`)

An action *pays to look* if it gives something up, and it shows something of worth that the action given up
would not have shown. Where every action shows the same, one that gives something up does so to get somewhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.alpha_policy import RANDOM, AlphaPolicy
from turnwise.exact.beliefs import BeliefFilter, entropy

TAIL = 1e-4
"""Episodes are followed until a reward is discounted to this share of itself."""
MOST_STEPS = 5000
"""largest number of steps of an episode"""
NOTHING = 1e-9
"""a reward or a value below this is rounding"""
ROUNDING = 1e-11
"""share of a value below which the difference of two sums is rounding"""


@dataclass(frozen=True)
class Simulation:
    """The result of `simulate`."""

    returns: np.ndarray
    """[N], the discounted return of each episode"""
    tail: float
    """largest return that could have followed in an episode that was cut, in units of the return"""
    steps: int

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of the mean."""
        return float(self.returns.std(ddof=1) / math.sqrt(len(self.returns)))

    def agrees(self, lower: float, upper: float) -> bool:
        """Whether the mean lies within the bounds, give or take 3 standard errors and the tail."""
        room = 3 * self.standard_error + self.tail + 1e-9
        return lower - room <= self.mean <= upper + room


def horizon_of(problem: POMDP) -> tuple[int, float]:
    """(steps to follow an episode for, largest return that can follow after them)."""
    g, largest = problem.discount, float(np.abs(problem.rewards).max(initial=0.0))
    if g == 1 or largest == 0:
        return MOST_STEPS, 0.0
    if g == 0:
        return 1, 0.0
    steps = min(MOST_STEPS, math.ceil(math.log(TAIL) / math.log(g)))
    return steps, largest * g**steps / (1 - g)


def simulate(
    problem: POMDP,
    policy: AlphaPolicy,
    rng: np.random.Generator,
    episodes: int,
    progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Act on beliefs in `episodes` episodes at once; `progress(steps done, steps in all)` is called."""
    walk = _Walk(problem, policy, rng, episodes)
    steps, tail = horizon_of(problem)
    t = 0
    while t < steps and walk.running.any():
        walk.step()
        t += 1
        if progress is not None:
            progress(t, steps)
    return Simulation(walk.returns, tail if walk.running.any() else 0.0, t)


class _Walk:
    """Lanes under way, each with its belief and, at discount 1, the plan that it follows.

    At a discount below 1 the plan is chosen anew at every belief, which is worth at least as much. At
    discount 1 it must be followed (`AlphaPolicy` says why).
    """

    def __init__(self, problem: POMDP, policy: AlphaPolicy, rng: np.random.Generator, lanes: int):
        self.problem, self.policy, self.rng = problem, policy, rng
        self.env, self.filter = TabularEnv(problem), BeliefFilter(problem)
        self.beliefs = self.filter.first(self.env.reset(rng, lanes))
        self.running = np.ones(lanes, bool)
        self.returns = np.zeros(lanes)
        self.weight = 1.0
        self.actions = np.zeros(lanes, np.int64)
        self.plans = np.zeros(lanes, np.int64)  # 1 + the plan of each lane; 0: none yet

    def choose(self) -> None:
        """Set `actions` [N]: those of the best plans at the beliefs, or of the plans that are followed."""
        at = np.flatnonzero(self.running)
        if self.problem.discount < 1 or self.policy.successors is None or not self.plans.any():
            self.plans[at] = 1 + self.policy.best(self.beliefs[at])
        chosen = self.policy.actions[self.plans[at] - 1]
        drawn = self.rng.integers(len(self.problem.actions), size=len(at))
        self.actions[at] = np.where(chosen == RANDOM, drawn, chosen)

    def step(self) -> tuple[np.ndarray, np.ndarray]:
        """Choose and take actions; (observations, rewards), both [N]."""
        self.choose()
        return self.follow()

    def follow(self) -> tuple[np.ndarray, np.ndarray]:
        """Take the actions that `choose` set, and update beliefs; (observations, rewards), both [N]."""
        step = self.env.step(self.actions)
        self.returns += np.where(self.running, self.weight * step.rewards, 0.0)
        self.weight *= self.problem.discount
        self.running = self.running & ~step.terminated
        over = step.terminated | step.truncated
        if over.any():
            self.env.reset_lanes(over)
        at = np.flatnonzero(self.running)
        if len(at):
            after = self.filter.update(self.beliefs[at], self.actions[at], step.observations[at])
            # Lanes that are over keep any row; nothing reads it.
            pick = np.zeros(len(self.running), np.int64)
            pick[at] = np.arange(len(at))
            self.beliefs = after[pick]
            if self.policy.successors is not None:
                self.plans[at] = 1 + self.policy.successors[self.plans[at] - 1, step.observations[at]]
        return step.observations, step.rewards


@dataclass(frozen=True)
class WatchedSteps:
    """The steps of a few episodes in the order taken: arrays of one length, one entry per step and lane."""

    time: np.ndarray
    lane: np.ndarray
    action: np.ndarray
    observation: np.ndarray
    reward: np.ndarray
    entropy: np.ndarray
    """entropy of the belief before the step, nats"""
    given_up: np.ndarray
    """immediate reward that was not taken"""
    look: np.ndarray
    """value of the look, in units of the return"""
    more: np.ndarray
    """what of it the action given up would not have shown; 0 where nothing is given up"""

    @property
    def pays(self) -> np.ndarray:
        """bool, whether immediate reward is given up for something that only this action shows."""
        return (self.given_up > NOTHING) & (self.look > NOTHING) & (self.more > NOTHING)


def watch(
    problem: POMDP,
    policy: AlphaPolicy,
    rng: np.random.Generator,
    episodes: int,
    steps: int,
    until: float = math.inf,
) -> WatchedSteps:
    """Follow a few episodes for `steps` steps at most, and note what each step knew and gained.

    After `until` (of `time.perf_counter`) no step but the first is begun.
    """
    walk = _Walk(problem, policy, rng, episodes)
    r = problem.expected_rewards()
    rows: list[tuple[np.ndarray, ...]] = []
    for t in range(steps):
        at = np.flatnonzero(walk.running)
        if not len(at) or (t and time.perf_counter() > until):
            break
        walk.choose()
        beliefs: Any = walk.beliefs[at]
        actions = walk.actions[at].copy()
        now = np.asarray(beliefs @ r.T)  # [n, A]
        given_up = now.max(1) - now[np.arange(len(at)), actions]
        look, more = np.empty(len(at)), np.zeros(len(at))
        for a in np.unique(actions):
            here = np.flatnonzero(actions == a)
            look[here] = _value_of_looking(walk.filter, policy, beliefs[here], int(a))
            asked = here[(given_up[here] > NOTHING) & (look[here] > NOTHING)]
            if len(asked):
                more[asked] = _shown_more(walk.filter, policy, beliefs[asked], int(a), now[asked])
        observations, rewards = walk.follow()
        columns = (np.full(len(at), t), at, actions, observations[at], rewards[at], entropy(beliefs))
        rows.append((*columns, given_up, look, more))
    return WatchedSteps(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def _value_of_looking(filter: BeliefFilter, policy: AlphaPolicy, beliefs: Any, action: int) -> np.ndarray:
    """[N], the value of the look after `action`."""
    predicted = filter.predict(beliefs, action)
    blind = np.asarray(predicted @ policy.alphas.T).max(1)
    worth = _seeing(filter, policy, predicted, action) - blind
    return filter.problem.discount * np.maximum(worth, 0.0)  # rounding may fall below 0


def _seeing(filter: BeliefFilter, policy: AlphaPolicy, predicted: Any, action: int) -> np.ndarray:
    """[N], sum_o P(o|b,a) V(b_ao) for states predicted [N, S] and what `action` shows of them.

    P(o|b,a) V(b_ao) is V at the unnormalised b_ao, since vectors are linear: nothing needs to be divided.
    """
    seeing = np.zeros(predicted.shape[0])
    for o in range(len(filter.problem.observations)):
        joint = filter.joint(predicted, action, np.full(predicted.shape[0], o))
        if joint.data.any():
            seeing += np.asarray(joint @ policy.alphas.T).max(1)
    return seeing


def _shown_more(
    filter: BeliefFilter, policy: AlphaPolicy, beliefs: Any, action: int, now: np.ndarray
) -> np.ndarray:
    """[N], the worth of what `action` shows and the action given up would not have shown.

    `now` [N, A] is R(b, a); given up is the largest, c. c might show as much in two ways, and whichever it is
    worse at counts, because an action can show more by how it looks and by where it looks from:

    - of the state that the action leads to: o ~ O(.|a,s') beside o ~ O(.|c,s'), with the same s' ~ T(.|b,a)
    - of the state before: o ~ P(.|s,a) beside o ~ P(.|s,c), each followed by T(.|s,a) unseen

    Both are differences of the same sum over the same set of vectors, and exactly 0 up to rounding if a and c
    show the same. If several actions are given up, the one that shows most counts.
    """
    g, S = filter.problem.discount, beliefs.shape[1]
    predicted = filter.predict(beliefs, action)
    later = np.asarray(filter.transitions[action] @ policy.alphas.T)  # [S, n], V's vectors before the step

    def through_before(a: int, at: np.ndarray) -> np.ndarray:
        shown = filter.shown(a)  # [S, O + 1], P(o|s,a); the last column is the end
        weighted = [beliefs[at].multiply(shown[:, o].reshape(1, S)) @ later for o in range(shown.shape[1])]
        return np.sum([np.asarray(w).max(1) for w in weighted], 0)

    more = np.full(beliefs.shape[0], np.inf)
    for c in range(now.shape[1]):
        at = np.flatnonzero(now[:, c] >= now.max(1) - NOTHING)
        if c == action or not len(at):
            continue
        after = _seeing(filter, policy, predicted[at], action)
        by_eyes = after - _seeing(filter, policy, predicted[at], c)
        by_place = through_before(action, at) - through_before(c, at)
        worth = g * np.maximum(by_eyes, by_place)
        worth[worth <= ROUNDING * np.abs(after)] = 0.0
        more[at] = np.minimum(more[at], worth)
    return more
