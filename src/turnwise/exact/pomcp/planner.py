"""Planning while acting, by simulations from what is believed: PO-UCT and POMCP.

Every simulation draws a state of the belief and walks down a tree of histories h, choosing

    argmax_a V(h,a) + c sqrt(log N(h) / N(h,a))        UCB1; actions not tried yet come first

until it meets a history that is new. That one joins the tree and is valued by a rollout: the return of a
policy without memory. On the way back V(h,a) becomes the mean of the discounted returns that came through it.
The agent takes argmax_a V(h,a). What it then sees makes a child the root, and the tree below it is kept.

Two kinds of problem. A `POMDP` is simulated on its tables by compiled loops (`table_tree`, `kernels`), from
the exact belief (PO-UCT) or from particles (POMCP). A `Simulator` is simulated in Python (`sample_tree`),
from particles.

Where observations do not repeat (numbers with noise), a tree of them never looks two steps ahead. A simulator
with a `likelihood` is therefore searched with few observations under each action, and states inside the tree
are weighted by how likely they make them (POMCPOW); what the agent sees weights the root's particles. Without
a likelihood such a simulator is refused.

Sources: Silver & Veness 2010, "Monte-Carlo planning in large POMDPs", algorithm 1; Auer, Cesa-Bianchi &
Fischer 2002 for UCB1; Sunberg & Kochenderfer 2018, "Online algorithms for POMDPs with continuous state,
action, and observation spaces", algorithm 2 (POMCPOW), with actions that can be counted.

How we differ
- The belief at the root is exact if the problem is written out (unless particles are asked for).
- Missing particles are drawn by rejection from the last belief; if these are too few, some are repeated. The
  paper moves particles by a transformation that is written for each problem.
- Rewards of written-out problems are expectations over what is seen, which has the same mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.exact.bounds import mdp_q
from turnwise.exact.pomcp.sample_tree import SampleTree
from turnwise.exact.pomcp.table_tree import TableTree, outcomes
from turnwise.exact.pomcp.tree import BeliefLost, Simulator, Tree, WeighingSimulator
from turnwise.run.errors import InputError, SettingError

__all__ = [
    "BeliefLost",
    "Config",
    "Planner",
    "Simulator",
    "TabularSimulator",
    "WeighingSimulator",
    "informed",
    "plan_episodes",
]

PerState = np.ndarray | Callable[[Any], np.ndarray]
"""an array [S, A] for a written-out problem, or for a simulator a function from a state to [A]"""


@dataclass(frozen=True)
class Config:
    """How much is searched before each move, and how."""

    simulations: int = 1000
    """simulations before each move"""
    exploration: float | None = None
    """c, in units of the return. None: largest less smallest reward of a written-out problem"""
    precision: float = 0.01
    """simulations end at the depth where discount^depth falls below this"""
    horizon: int | None = None
    """steps that simulations take, at most. None: as `precision` says. At discount 1 it must be given"""
    exact_belief: bool = True
    """draw from the exact belief (PO-UCT); False, and with simulators always: from particles (POMCP)"""
    particles: int = 1000
    """number of states that stand for a belief, at least"""
    widening: float = 4.0
    """k, with simulators that have a `likelihood`: an action has up to k N(h,a)^p observations"""
    widening_power: float = 0.2
    """p"""

    def __post_init__(self) -> None:
        if not self.widening > 0:
            raise SettingError("widening", self.widening, "a number above 0")
        if not 0 <= self.widening_power <= 1:
            raise SettingError("widening_power", self.widening_power, "a number from 0 to 1")
        for name in ("simulations", "particles"):
            if getattr(self, name) < 1:
                raise SettingError(name, getattr(self, name), "1 or more")
        if not 0 < self.precision < 1:
            raise SettingError("precision", self.precision, "a number between 0 and 1")
        if self.horizon is not None and self.horizon < 1:
            raise SettingError("horizon", self.horizon, "1 step or more")
        if self.exploration is not None and not self.exploration >= 0:
            raise SettingError("exploration", self.exploration, "0 or more")

    def steps(self, discount: float) -> int:
        """The number of steps that a simulation looks ahead."""
        if discount == 1 and self.horizon is None:
            raise SettingError(
                "horizon", None, "a number of steps: at discount 1 nothing else ends a simulation"
            )
        by_precision = math.inf
        if discount < 1:
            by_precision = 1 if discount == 0 else math.ceil(math.log(self.precision) / math.log(discount))
        return int(min(by_precision, math.inf if self.horizon is None else self.horizon))


class Planner:
    """One agent: `act`, then `observe` what followed, until the episode ends; `begin` starts another.

    `policy` acts in rollouts, by default at random: weights [S, A] for a `POMDP`, for a simulator a function
    from a state to weights [A]. It may look at the state. Values of rollouts are then too high by what seeing
    is worth, until the tree has grown over them.

    `legal`, of the same form, says which actions may be taken, by default all. The agent must know what is
    legal: if it differs between states that the agent cannot tell apart, simulations see more than the agent.
    """

    def __init__(
        self,
        problem: POMDP | Simulator,
        config: Config,
        rng: np.random.Generator,
        *,
        policy: PerState | None = None,
        legal: PerState | None = None,
    ) -> None:
        self.config, self._rng = config, rng
        self._tree, self._begun = _tree(problem, config, policy, legal), False
        if not isinstance(problem, POMDP) or problem.initial is None:
            self.begin()

    def begin(self, observation: int | None = None) -> None:
        """Start an episode; `observation` is what the problem shows first, None if it shows nothing."""
        self._tree.begin(observation, self._rng)
        self._begun = True

    def act(self) -> int:
        """Run the simulations of one move; return the action of the largest value."""
        if not self._begun:
            raise InputError(
                "the problem shows an observation first; expected `begin(observation)` before `act`"
            )
        self._tree.simulate(self.config.simulations, self._rng)
        return int(np.nanargmax(self.values))

    def observe(self, action: int, observation: Any) -> None:
        """Move on: `action` was taken (it need not be the one of `act`), `observation` was seen.

        Raises `BeliefLost` if no particle is left, ValueError if the exact belief rules the observation out.
        """
        self._tree.follow(action, observation, self._rng)

    @property
    def counts(self) -> np.ndarray:
        """[A], how often simulations tried each action at the present history."""
        return self._tree.counts

    @property
    def values(self) -> np.ndarray:
        """[A], the mean return of each action there; NaN if it was not tried."""
        return np.where(self._tree.counts > 0, self._tree.values, np.nan)

    @property
    def states(self) -> np.ndarray | list[Any]:
        """The states that simulations begin from: those of the exact belief, or particles, maybe repeated."""
        return self._tree.states


def _tree(
    problem: POMDP | Simulator, config: Config, policy: PerState | None, legal: PerState | None
) -> Tree:
    """The tree for this kind of problem, with settings that fit it."""
    horizon, c = config.steps(problem.discount), config.exploration
    if isinstance(problem, POMDP):
        if callable(policy) or callable(legal):
            raise InputError(
                "policy or legal is a function; expected arrays [S, A] for a written-out problem"
            )
        if c is None:
            possible = problem.rewards[problem.transitions.data > 0]
            c = float(possible.max() - possible.min())
        particles = 0 if config.exact_belief else config.particles
        return TableTree(
            problem, exploration=c, horizon=horizon, particles=particles, policy=policy, legal=legal
        )
    if c is None:
        raise InputError(
            "exploration is not given; expected a number for a simulator, about the range of its returns"
        )
    if isinstance(policy, np.ndarray) or isinstance(legal, np.ndarray):
        raise InputError("policy or legal is an array; expected functions of the state for a simulator")
    return SampleTree(
        problem,
        exploration=c,
        horizon=horizon,
        particles=config.particles,
        policy=policy,
        legal=legal,
        widening=(config.widening, config.widening_power),
    )


def informed(problem: POMDP, share: float = 0.5) -> np.ndarray:
    """[S, A], a policy for rollouts: with probability `share` what is best if the state is seen, else any.

    Its values promise too much, a random policy's far too little. Half of each does better than either on
    RockSample and Tag (docs/how-to/pomcp.md).
    """
    q = mdp_q(problem)
    best = (q >= q.max(0) - 1e-9 * np.abs(q).max()).astype(float)
    return (share * best / best.sum(0) + (1 - share) / len(q)).T


class TabularSimulator:
    """A written-out problem as a `Simulator`. An observation before the first action is left out."""

    def __init__(self, problem: POMDP) -> None:
        self.problem, self._outcomes = problem, outcomes(problem)
        self.actions, self.discount = len(problem.actions), problem.discount

    def start(self, rng: np.random.Generator) -> int:
        """Draw s_0."""
        return int(rng.choice(len(self.problem.start), p=self.problem.start))

    def step(self, state: int, action: int, rng: np.random.Generator) -> tuple[int, int, float, bool]:
        """Draw (s', o, reward, whether the episode ended)."""
        row = np.array([action * len(self.problem.states) + state])
        after, seen, reward, ends = self._outcomes.draw(rng, row)
        return int(after[0]), int(seen[0]), float(reward[0]), bool(ends[0])


def plan_episodes(
    problem: POMDP | Simulator,
    config: Config,
    episodes: int,
    rng: np.random.Generator,
    *,
    steps: int,
    policy: PerState | None = None,
    legal: PerState | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> np.ndarray:
    """Discounted returns [episodes] of a planner that acts in the problem itself, for `steps` steps at most.

    `progress(episode, return)` is called after each.
    """
    planner = Planner(problem, config, rng, policy=policy, legal=legal)
    world: Simulator = TabularSimulator(problem) if isinstance(problem, POMDP) else problem
    returns = np.zeros(episodes)
    for i in range(episodes):
        state, weight = world.start(rng), 1.0
        planner.begin(_shown(problem, state, rng))
        for _ in range(steps):
            action = planner.act()
            state, observation, reward, ended = world.step(state, action, rng)
            returns[i] += weight * reward
            weight *= problem.discount
            if ended:
                break
            planner.observe(action, observation)
        if progress is not None:
            progress(i, float(returns[i]))
    return returns


def _shown(problem: POMDP | Simulator, state: Any, rng: np.random.Generator) -> int | None:
    """Draw the observation before the first action, None if there is none."""
    if not isinstance(problem, POMDP) or problem.initial is None:
        return None
    seen, p = problem.initial.row(state)
    return int(rng.choice(seen, p=p))
