"""Episodes of a policy of alpha vectors: what it earns by Monte Carlo, what it knows, what looking is worth.

    entropy of a step  H(b), nats
    given up           max_a R(b,a) - R(b, a_taken): immediate reward that was not taken
    value of the look  g (sum_o P(o|b,a) V(b_ao) - V(sum_o P(o|b,a) b_ao)): what seeing o is worth, compared
                       with going on without it (value of information, Howard 1966). V is the maximum over the
                       policy's vectors, which is convex, so this is never negative (Jensen)

An action *pays to look* if it gives something up and its look is worth more than nothing.
"""

from __future__ import annotations

import math
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
        if self.problem.discount < 1 or not self.plans.any():
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


def watch(
    problem: POMDP, policy: AlphaPolicy, rng: np.random.Generator, episodes: int, steps: int
) -> WatchedSteps:
    """Follow a few episodes for `steps` steps at most, and note what each step knew and gained."""
    walk = _Walk(problem, policy, rng, episodes)
    r = problem.expected_rewards()
    rows: list[tuple[np.ndarray, ...]] = []
    for t in range(steps):
        at = np.flatnonzero(walk.running)
        if not len(at):
            break
        walk.choose()
        beliefs: Any = walk.beliefs[at]
        actions = walk.actions[at].copy()
        now = np.asarray(beliefs @ r.T)  # [n, A]
        given_up = now.max(1) - now[np.arange(len(at)), actions]
        look = np.empty(len(at))
        for a in np.unique(actions):
            here = np.flatnonzero(actions == a)
            look[here] = _value_of_looking(walk.filter, policy, beliefs[here], int(a))
        observations, rewards = walk.follow()
        columns = (np.full(len(at), t), at, actions, observations[at], rewards[at], entropy(beliefs))
        rows.append((*columns, given_up, look))
    return WatchedSteps(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def _value_of_looking(filter: BeliefFilter, policy: AlphaPolicy, beliefs: Any, action: int) -> np.ndarray:
    """[N], the value of the look after `action`.

    P(o|b,a) V(b_ao) is V at the unnormalised b_ao, since vectors are linear: nothing needs to be divided.
    """
    predicted = filter.predict(beliefs, action)
    blind = np.asarray(predicted @ policy.alphas.T).max(1)
    seeing = np.zeros(beliefs.shape[0])
    for o in range(len(filter.problem.observations)):
        joint = filter.joint(predicted, action, np.full(beliefs.shape[0], o))
        if joint.data.any():
            seeing += np.asarray(joint @ policy.alphas.T).max(1)
    return filter.problem.discount * np.maximum(seeing - blind, 0.0)  # rounding may fall below 0
