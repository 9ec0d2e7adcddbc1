"""The search tree for a simulator, in plain Python (POMCP, POMCPOW). `planner` has the algorithms."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from turnwise.exact.pomcp.tree import TRIES, Simulator, WeighingSimulator, rollout_weights, topped_up
from turnwise.run.errors import InputError

NEVER, ALL = 50, 0.95
"""so many different observations, and no fewer than this share of all, mean that they do not repeat"""
ENOUGH = 20.0
"""particles that count, (sum of w)^2 / sum of w^2, below which more are drawn"""


@dataclass
class Node:
    """A history h: what was done and seen since the root."""

    counts: np.ndarray
    """[A], N(h, a)"""
    values: np.ndarray
    """[A], V(h, a), the mean return of the simulations that took a here"""
    children: dict[tuple[int, Hashable], Node] = field(default_factory=dict)
    """by (action, observation), where observations repeat"""
    particles: list[Any] = field(default_factory=list)
    """states in which simulations came by: a sample of P(s | h)"""
    drawn: dict[int, list[Branch]] = field(default_factory=dict)
    """by action, where observations do not repeat: some that were drawn"""


@dataclass
class Branch:
    """One observation of those that do not repeat, and the history behind it."""

    observation: Any
    node: Node
    visits: int = 0
    sums: list[float] = field(default_factory=list)
    """weights of `node.particles`, the likelihoods of the observation there, summed up"""


class SampleTree:
    """A tree of Python objects over a `Simulator`.

    Beliefs are particles: lists of states. If the simulator has a `likelihood`, those inside the tree are
    weighted by it (POMCPOW), and those at the root are weighted and drawn anew when the agent sees something.
    """

    def __init__(
        self,
        problem: Simulator,
        *,
        exploration: float,
        horizon: int,
        particles: int,
        policy: Callable[[Any], np.ndarray] | None,
        legal: Callable[[Any], np.ndarray] | None,
        widening: tuple[float, float],
    ) -> None:
        self.problem, self.exploration, self.horizon = problem, exploration, horizon
        self.particles, self.policy, self.legal = particles, policy, legal
        self.weighs = problem if isinstance(problem, WeighingSimulator) else None
        self.widening = widening
        self.root = self._node()

    def _node(self) -> Node:
        A = self.problem.actions
        return Node(np.zeros(A, np.int64), np.zeros(A))

    @property
    def states(self) -> list[Any]:
        """The root's particles."""
        return self.root.particles

    @property
    def counts(self) -> np.ndarray:
        """[A], N(h, a) at the root."""
        return self.root.counts.copy()

    @property
    def values(self) -> np.ndarray:
        """[A], V(h, a) at the root."""
        return self.root.values.copy()

    def begin(self, observation: int | None, rng: np.random.Generator) -> None:
        """Forget everything; draw particles from the simulator's start."""
        if observation is not None:
            raise InputError("a simulator shows nothing before the first action; expected no observation")
        self.root = self._node()
        self.root.particles = [self.problem.start(rng) for _ in range(self.particles)]

    def simulate(self, simulations: int, rng: np.random.Generator) -> None:
        """Run simulations, each from a particle of the root."""
        for _ in range(simulations):
            self._simulate(self.root.particles[rng.integers(len(self.root.particles))], rng)
        self._expect_repeats()

    def _expect_repeats(self) -> None:
        """InputError if simulations never saw the same twice: a tree of them never looks a step ahead."""
        made, children = int(self.root.counts.sum()), len(self.root.children)
        if self.weighs is None and children >= NEVER and children >= ALL * made:
            raise InputError(
                f"observations do not repeat: {children:,} simulations saw {children:,} different ones; "
                "expected a simulator with `likelihood(observation, action, state)`, which weights particles"
            )

    def _simulate(self, state: Any, rng: np.random.Generator) -> None:
        """SIMULATE of Silver & Veness, algorithm 1, as a loop: down to a new history, a rollout, back up."""
        path: list[tuple[Node, int, float]] = []
        node, value = self.root, 0.0
        while True:
            action = self._chosen(node, state, rng)
            state, observation, reward, ended = self.problem.step(state, action, rng)
            path.append((node, action, reward))
            if ended or len(path) == self.horizon:
                break
            if self.weighs is not None:
                branch, new = self._branch(node, action, observation, rng)
                weight = float(self.weighs.likelihood(branch.observation, action, state))
                branch.node.particles.append(state)
                branch.sums.append((branch.sums[-1] if branch.sums else 0.0) + weight)
                if new or branch.sums[-1] <= 0:
                    value = self._rollout(state, len(path), rng)
                    break
                at = bisect.bisect_right(branch.sums, rng.random() * branch.sums[-1])
                state = branch.node.particles[min(at, len(branch.sums) - 1)]
                node = branch.node
                continue
            child = self._child(node, action, observation)
            if child is None:
                # A new history is valued by a rollout. Its first visit is not counted there: no action of the
                # tree was chosen, so N(h) stays the sum of N(h, a).
                child = node.children[action, observation] = self._node()
                child.particles.append(state)
                value = self._rollout(state, len(path), rng)
                break
            child.particles.append(state)
            node = child
        for node, action, reward in reversed(path):
            value = reward + self.problem.discount * value
            node.counts[action] += 1
            node.values[action] += (value - node.values[action]) / node.counts[action]

    def _child(self, node: Node, action: int, observation: Any) -> Node | None:
        try:
            return node.children.get((action, observation))
        except TypeError as e:  # an array, say
            raise InputError(
                f"an observation is {type(observation).__name__}, which cannot be the key of a dict; "
                "expected one that can, or a simulator with `likelihood(observation, action, state)`"
            ) from e

    def _branch(
        self, node: Node, action: int, observation: Any, rng: np.random.Generator
    ) -> tuple[Branch, bool]:
        """(a branch under the action, whether it is new).

        There are k N(h, a)^p of them at most; then one that is there is drawn by how often it was taken, and
        the simulation goes on as if it had seen that one.
        """
        branches = node.drawn.setdefault(action, [])
        k, power = self.widening
        if len(branches) <= k * node.counts[action] ** power:
            branches.append(Branch(observation, self._node(), 1))
            return branches[-1], True
        visits = np.cumsum([b.visits for b in branches])
        branch = branches[int(np.searchsorted(visits, rng.random() * visits[-1], "right"))]
        branch.visits += 1
        return branch, False

    def _chosen(self, node: Node, state: Any, rng: np.random.Generator) -> int:
        """An action that was not tried, at random; else the largest V(h,a) + c sqrt(log N(h) / N(h,a))."""
        allowed = np.arange(self.problem.actions)
        if self.legal is not None:
            allowed = np.flatnonzero(self.legal(state))
        n = node.counts[allowed]
        if (n == 0).any():
            return int(rng.choice(allowed[n == 0]))
        width = self.exploration * math.sqrt(math.log(node.counts.sum()))
        return int(allowed[np.argmax(node.values[allowed] + width / np.sqrt(n))])

    def _weights(self, state: Any) -> np.ndarray:
        """[A], the probabilities with which a rollout acts in a state."""
        policy = None if self.policy is None else self.policy(state)
        legal = None if self.legal is None else self.legal(state)
        return rollout_weights(policy, legal, (self.problem.actions,))

    def _rollout(self, state: Any, depth: int, rng: np.random.Generator) -> float:
        """The discounted return of the rollout policy from a state at `depth` to the horizon."""
        total, weight = 0.0, 1.0
        for _ in range(depth, self.horizon):
            action = int(np.searchsorted(np.cumsum(self._weights(state))[:-1], rng.random(), "right"))
            state, _, reward, ended = self.problem.step(state, action, rng)
            total += weight * reward
            if ended:
                break
            weight *= self.problem.discount
        return total

    def follow(self, action: int, observation: Hashable, rng: np.random.Generator) -> None:
        """The child becomes the root. Its particles are refilled: step from the old root, keep what fits.

        These draws have the right distribution, P(s' | h, a, o); only if even they are too few do particles
        repeat.
        """
        if self.weighs is not None:
            self._weighted(action, observation, rng)
            return
        child = self._child(self.root, action, observation) or self._node()
        wanted = self.particles - len(child.particles)
        for _ in range(TRIES * self.particles):
            if wanted <= 0:
                break
            state = self.root.particles[rng.integers(len(self.root.particles))]
            state, seen, _, ended = self.problem.step(state, action, rng)
            if seen == observation and not ended:
                child.particles.append(state)
                wanted -= 1
        child.particles = topped_up(child.particles, self.particles, (f"action {action}", observation), rng)
        self.root = child

    def _weighted(self, action: int, observation: Any, rng: np.random.Generator) -> None:
        """A fresh root: particles stepped on, weighted by the likelihood, drawn anew by their weights.

        What was grown below belongs to other observations. Draws are evenly spaced along the weights
        (systematic resampling), so that a particle of weight w comes w n times, give or take one.
        """
        assert self.weighs is not None
        states, weights = [], []
        for _ in range(TRIES):
            for state in self.root.particles:
                after, _, _, ended = self.problem.step(state, action, rng)
                if not ended:
                    states.append(after)
                    weights.append(float(self.weighs.likelihood(observation, action, after)))
            w = np.array(weights)
            if not np.isfinite(w).all() or (w < 0).any():
                raise InputError(
                    f"likelihood gave {w[~(w >= 0)][:1] or w.max()}; expected numbers of 0 or more"
                )
            if w.sum() > 0 and w.sum() ** 2 / (w**2).sum() >= ENOUGH:
                break
        if not weights or not w.sum() > 0:
            topped_up([], self.particles, (f"action {action}", observation), rng)  # which says what to do
        sums = np.cumsum(w)
        at = (np.arange(self.particles) + rng.random()) / self.particles * sums[-1]
        self.root = self._node()
        self.root.particles = [
            states[i] for i in np.minimum(np.searchsorted(sums, at, "right"), len(sums) - 1)
        ]
