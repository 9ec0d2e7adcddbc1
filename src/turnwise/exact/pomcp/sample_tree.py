"""The search tree for a simulator, in plain Python (POMCP). `planner` has the algorithm and its sources."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from turnwise.exact.pomcp.tree import TRIES, Simulator, rollout_weights, topped_up
from turnwise.run.errors import InputError


@dataclass
class Node:
    """A history h: what was done and seen since the root."""

    counts: np.ndarray
    """[A], N(h, a)"""
    values: np.ndarray
    """[A], V(h, a), the mean return of the simulations that took a here"""
    children: dict[tuple[int, Hashable], Node] = field(default_factory=dict)
    """by (action, observation)"""
    particles: list[Any] = field(default_factory=list)
    """states in which simulations came by: a sample of P(s | h)"""


class SampleTree:
    """A tree of Python objects over a `Simulator`. Beliefs are particles: unweighted lists of states."""

    def __init__(
        self,
        problem: Simulator,
        *,
        exploration: float,
        horizon: int,
        particles: int,
        policy: Callable[[Any], np.ndarray] | None,
        legal: Callable[[Any], np.ndarray] | None,
    ) -> None:
        self.problem, self.exploration, self.horizon = problem, exploration, horizon
        self.particles, self.policy, self.legal = particles, policy, legal
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
            child = node.children.get((action, observation))
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
        child = self.root.children.get((action, observation), None) or self._node()
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
