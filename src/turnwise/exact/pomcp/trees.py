"""The two trees of `pomcp.py`: arrays for a written-out problem, nodes of Python for a simulator."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.envs.tabular import JOINT_LIMIT, Joint, Outcomes, Staged, joint_outcomes
from turnwise.exact.beliefs import BeliefFilter
from turnwise.exact.pomcp import kernels
from turnwise.run.errors import InputError

TRIES = 32
"""draws per particle wanted, at most, when particles are replaced"""


class BeliefLost(InputError):
    """No particle agrees with what was seen."""


class Simulator(Protocol):
    """A problem that can be drawn from; states are never written to, observations can be keys."""

    actions: int
    """how many"""
    discount: float

    def start(self, rng: np.random.Generator) -> Any:
        """A first state."""
        ...

    def step(self, state: Any, action: int, rng: np.random.Generator) -> tuple[Any, Hashable, float, bool]:
        """(state, observation, reward, terminated)"""
        ...


class Tree(Protocol):
    """Histories from a root that moves on."""

    @property
    def states(self) -> np.ndarray | list[Any]:
        """What simulations begin from."""
        ...

    @property
    def counts(self) -> np.ndarray:
        """[A], N(h, a) at the root."""
        ...

    @property
    def values(self) -> np.ndarray:
        """[A], V(h, a) at the root."""
        ...

    def begin(self, observation: int | None, rng: np.random.Generator) -> None:
        """Forget everything; `observation` is what was shown first."""
        ...

    def simulate(self, simulations: int, rng: np.random.Generator) -> None:
        """Search from the root."""
        ...

    def follow(self, action: int, observation: Any, rng: np.random.Generator) -> None:
        """The child becomes the root, its belief what the root's has become."""
        ...


class TableTree:
    """Compiled. The root's belief is exact, or (`particles` > 0) an unweighted set of states."""

    def __init__(
        self,
        problem: POMDP,
        *,
        exploration: float,
        horizon: int,
        particles: int,
        policy: np.ndarray | None,
        legal: np.ndarray | None,
    ) -> None:
        S, A, _ = problem.shape
        t, e = problem.transitions, problem.emissions
        mask = np.zeros((0, A), bool) if legal is None else np.asarray(legal) != 0
        weights = np.zeros((0, A))
        if policy is not None or legal is not None:
            weights = _rollout_weights(policy, legal, (S, A))
        self.problem, self.particles = problem, particles
        self.model = kernels.Model(
            S, A, float(problem.discount), horizon, float(exploration),
            t.indptr, t.indices, _sums(t), problem.rewards, problem.ends,
            e.indptr, e.indices, _sums(e), np.cumsum(weights, 1), mask,
        )  # fmt: skip
        self.filter = BeliefFilter(problem)
        self.states: np.ndarray = np.zeros(0, np.int32)
        self.outcomes = outcomes(problem) if particles else None
        self.tree = _room(self._empty(1), 1, horizon if particles else 0)

    def _empty(self, nodes: int) -> kernels.Tree:
        A = self.model.actions
        return kernels.Tree(
            np.array([1, 0]), np.zeros(nodes, np.int64), np.zeros((nodes, A), np.int64), np.zeros((nodes, A)),
            np.full((nodes, A), -1), np.full(nodes, -1), np.full(nodes, -1), np.full(nodes, -1),
            np.zeros(0, np.int32), np.zeros(0, np.int64),
        )  # fmt: skip

    @property
    def counts(self) -> np.ndarray:
        """[A]"""
        return self.tree.counts[0].copy()

    @property
    def values(self) -> np.ndarray:
        """[A]"""
        return self.tree.values[0].copy()

    def begin(self, observation: int | None, rng: np.random.Generator) -> None:
        """The first belief, as particles where it is not kept exactly."""
        if (observation is None) != (self.problem.initial is None):
            shown = "nothing" if self.problem.initial is None else "an observation"
            raise InputError(
                f"the problem shows {shown} before the first action, but {observation} was given"
            )
        self._clear()
        self.belief = self.filter.first(np.array([-1 if observation is None else observation]))
        self.states, self.sums = self.belief.indices.astype(np.int32), np.cumsum(self.belief.data)
        if self.particles:
            u = rng.random(self.particles) * self.sums[-1]
            place = np.minimum(np.searchsorted(self.sums, u, "right"), len(self.sums) - 1)
            self._believe(self.states[place])

    def _believe(self, states: np.ndarray) -> None:
        self.states, self.sums = states, np.arange(1.0, len(states) + 1)

    def _clear(self) -> None:
        t = self.tree
        t.used[:] = 1, 0
        t.visits[0], t.counts[0], t.values[0], t.first[0], t.sibling[0] = 0, 0, 0.0, -1, -1

    def simulate(self, simulations: int, rng: np.random.Generator) -> None:
        """Arrays are made to hold what may be added."""
        self.tree = _room(self.tree, simulations, 0)
        left = simulations
        while left:
            left -= kernels.simulate(self.model, self.tree, self.states, self.sums, left, rng)
            if left:
                self.tree = _room(self.tree, 0, self.model.horizon)

    def follow(self, action: int, observation: int, rng: np.random.Generator) -> None:
        """Bayes' rule, or the particles of the child and more of their kind by rejection."""
        t = self.tree
        child = int(t.first[0, action])
        while child >= 0 and t.seen[child] != observation:
            child = int(t.sibling[child])
        if self.particles:
            here = t.place[: t.used[kernels.PARTICLES]] == child
            found = t.particle[: len(here)][here]
            names = self.problem.actions[action], self.problem.observations[observation]
            more = self._redrawn(action, observation, self.particles - len(found), rng)
            self._believe(_enough(np.concatenate([found, more]), self.particles, names, rng))
        else:
            self.belief = self.filter.update(self.belief, np.array([action]), np.array([observation]))
            self.states, self.sums = self.belief.indices.astype(np.int32), np.cumsum(self.belief.data)
        if child < 0:
            self._clear()
        else:
            self._keep(child)

    def _redrawn(self, action: int, observation: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
        """Successors of the root's particles that go with the observation, `wanted` if they can be found."""
        found = [np.zeros(0, np.int32)]
        assert self.outcomes is not None
        for _ in range(TRIES):
            if wanted <= 0:
                break
            rows = action * self.model.states + rng.choice(self.states, self.particles).astype(np.int64)
            after, seen, _, ends = self.outcomes.draw(rng, rows)
            found.append(after[(seen == observation) & ~ends].astype(np.int32)[:wanted])
            wanted -= len(found[-1])
        return np.concatenate(found)

    def _keep(self, root: int) -> None:
        """Keep the part below a node, which becomes node 0; parents stay before their children."""
        t, n = self.tree, int(self.tree.used[kernels.NODES])
        parent = t.parent[:n].copy()
        parent[: root + 1] = np.arange(root + 1)
        while (parent[parent] != parent).any():
            parent = parent[parent]
        kept = np.flatnonzero(parent == root)
        name = np.full(n + 1, -1)
        name[kept] = np.arange(len(kept))  # the last entry gives -1 for -1
        if len(t.place):
            p = int(t.used[kernels.PARTICLES])
            place = name[t.place[:p]]
            stay = place > 0
            p = int(stay.sum())
            t.particle[:p], t.place[:p] = t.particle[: len(stay)][stay], place[stay]
            t.used[kernels.PARTICLES] = p
        m = len(kept)
        for array in (t.visits, t.counts, t.values, t.seen):
            array[:m] = array[kept]
        for array in (t.first, t.sibling, t.parent):
            array[:m] = name[array[kept]]
        t.sibling[0] = t.parent[0] = -1
        t.used[kernels.NODES] = m


def _room(t: kernels.Tree, nodes: int, particles: int) -> kernels.Tree:
    """The same tree in arrays that hold so many more, at least twice as long where they must grow."""
    grown = {}
    for name, array in t._asdict().items():
        if name == "used":
            continue
        used, more = (t.used[1], particles) if name in ("particle", "place") else (t.used[0], nodes)
        if used + more > len(array):
            grown[name] = np.zeros((max(used + more, 2 * len(array)), *array.shape[1:]), array.dtype)
            grown[name][:used] = array[:used]
    return t._replace(**grown)


def outcomes(problem: POMDP) -> Outcomes:
    """What `TabularEnv` draws from."""
    return Joint.of(problem) if joint_outcomes(problem) <= JOINT_LIMIT else Staged(problem)


def _sums(rows: Rows) -> np.ndarray:
    """[entries], probabilities summed up within each row."""
    total = np.append(0.0, np.cumsum(rows.data))
    return total[1:] - np.repeat(total[rows.indptr[:-1]], np.diff(rows.indptr))


def _rollout_weights(policy: Any, legal: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Probabilities along the last axis: `policy` (None: all alike) among the legal actions (None: all)."""
    weights = np.ones(shape)
    for name, given in (("policy", policy), ("legal", legal)):
        if given is not None:
            given = np.asarray(given, np.float64)
            if given.shape != shape or (given < 0).any():
                raise InputError(f"{name} has shape {given.shape}; expected {shape}, none below 0")
            weights = weights * given
    total = weights.sum(-1, keepdims=True)
    if not (total > 0).all():
        raise InputError("policy and legal leave no action in some state; expected one at least in each")
    return weights / total


def _enough(found: Any, wanted: int, names: tuple[Any, Any], rng: np.random.Generator) -> Any:
    """`found`, some of them again where they are fewer than wanted."""
    if len(found) == 0:
        raise BeliefLost(
            f"all particles are gone: none of {TRIES * wanted:,} draws shows {names[1]} after {names[0]}; "
            "expected more `particles` (or `exact_belief=True` where the problem is written out), and a "
            "simulator under which what happened is possible"
        )
    again = rng.integers(len(found), size=max(0, wanted - len(found)))
    if isinstance(found, list):
        return [*found, *(found[i] for i in again)]
    return np.concatenate([found, found[again]])


@dataclass
class Node:
    """A history."""

    counts: np.ndarray
    """[A]"""
    values: np.ndarray
    """[A]"""
    children: dict[tuple[int, Hashable], Node] = field(default_factory=dict)
    particles: list[Any] = field(default_factory=list)


class SampleTree:
    """Plain Python around a simulator; beliefs are particles."""

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
        """[A]"""
        return self.root.counts.copy()

    @property
    def values(self) -> np.ndarray:
        """[A]"""
        return self.root.values.copy()

    def begin(self, observation: int | None, rng: np.random.Generator) -> None:
        """Particles from the simulator's start."""
        if observation is not None:
            raise InputError("a simulator shows nothing before the first action; expected no observation")
        self.root = self._node()
        self.root.particles = [self.problem.start(rng) for _ in range(self.particles)]

    def simulate(self, simulations: int, rng: np.random.Generator) -> None:
        """One after another."""
        for _ in range(simulations):
            self._simulate(self.root.particles[rng.integers(len(self.root.particles))], rng)

    def _simulate(self, state: Any, rng: np.random.Generator) -> None:
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
        """An action not tried, at random; else the largest V(h,a) + c sqrt(log N(h) / N(h,a))."""
        allowed = np.arange(self.problem.actions)
        if self.legal is not None:
            allowed = np.flatnonzero(self.legal(state))
        n = node.counts[allowed]
        if (n == 0).any():
            return int(rng.choice(allowed[n == 0]))
        width = self.exploration * math.sqrt(math.log(node.counts.sum()))
        return int(allowed[np.argmax(node.values[allowed] + width / np.sqrt(n))])

    def _weights(self, state: Any) -> np.ndarray:
        policy = None if self.policy is None else self.policy(state)
        legal = None if self.legal is None else self.legal(state)
        return _rollout_weights(policy, legal, (self.problem.actions,))

    def _rollout(self, state: Any, depth: int, rng: np.random.Generator) -> float:
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
        """The particles of the child and more of their kind by rejection."""
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
        child.particles = _enough(child.particles, self.particles, (f"action {action}", observation), rng)
        self.root = child
