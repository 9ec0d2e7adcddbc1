"""Planning while acting, by simulations from what is believed: PO-UCT and POMCP.

Every simulation draws a state of the belief and walks down a tree of histories h, choosing

    argmax_a V(h,a) + c sqrt(log N(h) / N(h,a))        UCB1; actions not tried yet come first

until it meets a history that is new, which joins the tree and is valued by a rollout of a policy without
memory. On the way back V(h,a) becomes the mean of the discounted returns that were met. The agent takes
argmax_a V(h,a); what it then sees makes a child the root, and the tree below it is kept.

Two doors. A `POMDP` is simulated on its tables by compiled loops, from the exact belief (PO-UCT) or from
particles (POMCP). Anything with the three members of `Simulator` is simulated in Python, from particles.

Source: Silver & Veness 2010, "Monte-Carlo planning in large POMDPs", algorithm 1; Auer et al. 2002 for UCB1.
How we differ: the exact belief as the root's; particles run out of are replaced by rejection from the last
belief, and are drawn again where even these are few, instead of by a transformation made for the problem;
rewards of written-out problems are expectations over what is seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.exact.bounds import mdp_q
from turnwise.exact.pomcp.trees import BeliefLost, SampleTree, Simulator, TableTree, Tree, outcomes
from turnwise.run.errors import InputError

__all__ = ["BeliefLost", "Config", "Planner", "Simulator", "TabularSimulator", "informed", "plan_episodes"]

PerState = np.ndarray | Callable[[Any], np.ndarray]
"""[S, A] of a written-out problem, or [A] of each state of a simulator"""


@dataclass(frozen=True)
class Config:
    """What a move costs and how it is looked for."""

    simulations: int = 1000
    """for each move"""
    exploration: float | None = None
    """c, in units of the return; None: largest less smallest reward of a written-out problem"""
    precision: float = 0.01
    """simulations end where gamma^depth is below it"""
    horizon: int | None = None
    """steps that simulations take, at most; None: as `precision` says. At discount 1 it must be given"""
    exact_belief: bool = True
    """draw from the exact belief (PO-UCT); False, and with simulators always: from particles (POMCP)"""
    particles: int = 1000
    """how many states stand for a belief, at least"""

    def __post_init__(self) -> None:
        for name in ("simulations", "particles"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 < self.precision < 1:
            raise InputError(f"precision is {self.precision}; expected a number between 0 and 1")
        if self.horizon is not None and self.horizon < 1:
            raise InputError(f"horizon is {self.horizon}; expected at least 1 step")
        if self.exploration is not None and not self.exploration >= 0:
            raise InputError(f"exploration is {self.exploration}; expected 0 or more")

    def steps(self, discount: float) -> int:
        """How far a simulation looks."""
        if discount == 1 and self.horizon is None:
            raise InputError("at discount 1 simulations end at a horizon only; expected `horizon` in steps")
        by_precision = math.inf
        if discount < 1:
            by_precision = 1 if discount == 0 else math.ceil(math.log(self.precision) / math.log(discount))
        return int(min(by_precision, math.inf if self.horizon is None else self.horizon))


class Planner:
    """One agent: `act`, then `observe` what followed, until the episode ends; `begin` starts another.

    `policy` acts in rollouts, by default at random: weights [S, A] for a `POMDP`, for a simulator a function
    of the state that gives weights [A]. `legal`, likewise, says which actions may be taken, by default all.
    What is legal must be known to the agent: where it differs between states that the agent cannot tell
    apart, simulations see more than the agent will. A policy may look at the state; values of rollouts are
    too high then by what seeing is worth, until the tree has grown over them.
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
        """A new episode; `observation` is what the problem shows first, None where it shows nothing."""
        self._tree.begin(observation, self._rng)
        self._begun = True

    def act(self) -> int:
        """Run the simulations of one move; the action of the largest value."""
        if not self._begun:
            raise InputError("the problem shows an observation first; expected `begin(observation)` before")
        self._tree.simulate(self.config.simulations, self._rng)
        return int(np.nanargmax(self.values))

    def observe(self, action: int, observation: Any) -> None:
        """`action` was taken (it need not be what `act` said) and `observation` seen; the episode goes on.

        Raises `BeliefLost` where no particle is left, ValueError where an exact belief rules it out.
        """
        self._tree.follow(action, observation, self._rng)

    @property
    def counts(self) -> np.ndarray:
        """[A], how often each action was tried at the present history."""
        return self._tree.counts

    @property
    def values(self) -> np.ndarray:
        """[A], mean return of each action there; NaN: not tried."""
        return np.where(self._tree.counts > 0, self._tree.values, np.nan)

    @property
    def states(self) -> np.ndarray | list[Any]:
        """What simulations begin from: states of an exact belief, or particles, some of them equal."""
        return self._tree.states


def _tree(
    problem: POMDP | Simulator, config: Config, policy: PerState | None, legal: PerState | None
) -> Tree:
    """The door that fits."""
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
        problem, exploration=c, horizon=horizon, particles=config.particles, policy=policy, legal=legal
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
    """A written-out problem as a `Simulator`; what it shows first is left out."""

    def __init__(self, problem: POMDP) -> None:
        self.problem, self._outcomes = problem, outcomes(problem)
        self.actions, self.discount = len(problem.actions), problem.discount

    def start(self, rng: np.random.Generator) -> int:
        """s_0"""
        return int(rng.choice(len(self.problem.start), p=self.problem.start))

    def step(self, state: int, action: int, rng: np.random.Generator) -> tuple[int, int, float, bool]:
        """s', o, reward, ends"""
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
    """Discounted returns [episodes] of a planner in the problem itself, `steps` long at most.

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
    """What is seen before the first action."""
    if not isinstance(problem, POMDP) or problem.initial is None:
        return None
    seen, p = problem.initial.row(state)
    return int(rng.choice(seen, p=p))
