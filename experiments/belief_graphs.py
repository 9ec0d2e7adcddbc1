"""Short POMDPs whose beliefs can be counted: any policy that remembers, its exact value and its logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import t_maze, tiger
from turnwise.envs.rows import Rows
from turnwise.envs.tabular import TabularEnv

Policy = tuple[np.ndarray, ...]
"""of each step: [nodes, A], probability of each action"""


@dataclass(frozen=True)
class Layer:
    """All situations before one step. A node is a belief, and what was seen last."""

    beliefs: np.ndarray
    """[N, S]"""
    seen: np.ndarray
    """[N], the last observation; O if there was none"""
    pays: np.ndarray
    """[N, A], expected reward"""
    goes: np.ndarray
    """[N, A, O], probability that this is seen and the episode goes on"""
    after: np.ndarray
    """[N, A, O] int, the node of the next layer; 0 where that cannot be"""


@dataclass(frozen=True)
class Graph:
    """A problem whose episodes truly end after so many steps, at the latest."""

    problem: POMDP
    layers: tuple[Layer, ...]
    begins: np.ndarray
    """[O+1] int, the node of the first layer by what is shown first"""
    chances: np.ndarray
    """[nodes of the first layer]"""

    @staticmethod
    def of(problem: POMDP, horizon: int) -> Graph:
        """All nodes that some policy reaches."""
        S, A, O = problem.shape
        goes = problem.continuing().dense().reshape(A, S, S)
        sees = problem.emissions.dense().reshape(A, S, O)
        shown = np.ones((S, 1)) if problem.initial is None else problem.initial.dense()
        joint = (problem.start[:, None] * shown).T  # [first symbols, S]
        symbols = np.flatnonzero(joint.sum(1))
        seen = np.array([O]) if problem.initial is None else symbols
        begins = np.zeros(O + 1, np.int64)
        begins[seen] = np.arange(len(seen))
        chances = joint[symbols].sum(1)
        beliefs, layers = joint[symbols] / chances[:, None], []
        for _ in range(horizon):
            reached = np.einsum("ns,ast,ato->naot", beliefs, goes, sees)  # [N, A, O, S]
            mass = reached.sum(3)
            where = np.argwhere(mass > 1e-12)
            now = reached[tuple(where.T)] / mass[tuple(where.T)][:, None]
            # Logarithms tell beliefs apart that are all but certain.
            names = np.column_stack([np.round(np.log(np.maximum(now, 1e-300)), 6), where[:, 2]])
            _, first, node = np.unique(names, axis=0, return_index=True, return_inverse=True)
            after = np.zeros(mass.shape, np.int64)
            after[tuple(where.T)] = node.reshape(-1)
            pays = beliefs @ problem.expected_rewards().T
            layers.append(Layer(beliefs, seen, pays, np.where(mass > 1e-12, mass, 0.0), after))
            beliefs, seen = now[first], where[first, 2]
        return Graph(problem, tuple(layers), begins, chances)

    def values(self, policy: Policy | None) -> tuple[list[np.ndarray], float]:
        """(Q [N, A] of each layer, the value) of a policy; None: the best."""
        q: list[np.ndarray] = []
        v = np.zeros(1)
        for k in reversed(range(len(self.layers))):
            layer = self.layers[k]
            ahead = v[layer.after] if q else np.zeros(layer.after.shape)
            now = layer.pays + self.problem.discount * (layer.goes * ahead).sum(2)
            q.insert(0, now)
            v = now.max(1) if policy is None else (policy[k] * now).sum(1)
        return q, float(self.chances @ v)

    def optimal(self) -> Policy:
        """The best actions, all alike if there are several."""
        among = [(q >= q.max(1, keepdims=True) - 1e-9).astype(float) for q in self.values(None)[0]]
        return tuple(a / a.sum(1, keepdims=True) for a in among)

    def seeing(self, table: np.ndarray) -> Policy:
        """The policy that goes by the last observation alone; `table` [O+1, A]."""
        return tuple(table[layer.seen] for layer in self.layers)

    def episodes(self, policy: Policy, count: int, rng: np.random.Generator) -> Episodes:
        """Episodes of a policy, in the problem itself: beliefs are only looked up."""
        env, A = TabularEnv(self.problem), len(self.layers)
        node = self.begins[env.reset(rng, count)]
        running = np.ones(count, bool)
        nodes, acts = np.zeros((2, count, A), np.int64)
        rewards, mask = np.zeros((count, A)), np.zeros((count, A), bool)
        for k, layer in enumerate(self.layers):
            below = np.cumsum(policy[k][node], axis=1)
            drawn = (rng.random(count)[:, None] * below[:, -1:] >= below).sum(1)
            did = np.where(running, drawn, 0)
            step = env.step(did)
            nodes[:, k], acts[:, k], mask[:, k] = np.where(running, node, 0), did, running
            rewards[:, k] = np.where(running, step.rewards, 0.0)
            running = running & ~step.terminated
            if step.terminated.any():
                env.reset_lanes(step.terminated)
            node = np.where(running, layer.after[node, did, step.observations], 0)
            if not running.any():
                break
        return Episodes(nodes, acts, rewards, mask)


@dataclass(frozen=True)
class Episodes:
    """`B` episodes of up to `A` steps. Behind the end all numbers are 0."""

    nodes: np.ndarray
    """[B, A] int"""
    acts: np.ndarray
    """[B, A] int"""
    rewards: np.ndarray
    """[B, A]"""
    mask: np.ndarray
    """[B, A] bool"""

    def at(self, of_nodes: Sequence[np.ndarray]) -> np.ndarray:
        """[B, A, ...], what stands at each node that was reached, one array of nodes for each layer."""
        return np.stack([x[self.nodes[:, k]] for k, x in enumerate(of_nodes)], axis=1)

    def some(self, rows: np.ndarray) -> Episodes:
        """Those episodes alone, in that order."""
        return Episodes(self.nodes[rows], self.acts[rows], self.rewards[rows], self.mask[rows])


def mixed(share: float, first: Policy, second: Policy) -> Policy:
    """At each step the second policy by a coin that falls so in `share` of cases, else the first."""
    return tuple((1 - share) * a + share * b for a, b in zip(first, second, strict=True))


def tilted(behavior: Policy, q: Sequence[np.ndarray], beta: float) -> Policy:
    """behavior x exp(beta q), normalised."""
    found = (p * np.exp(beta * (x - x.max(1, keepdims=True))) for p, x in zip(behavior, q, strict=True))
    return tuple(w / w.sum(1, keepdims=True) for w in found)


@dataclass(frozen=True)
class Task:
    """A problem, how long its episodes are, and who acts in its logs."""

    problem: POMDP
    horizon: int
    habits: tuple[tuple[float, ...], ...]
    """[O+1][A], of an agent that goes by the last observation: the last row is for none yet"""
    betas: tuple[float, ...]
    """of near, middle and far targets, per unit of return"""


def tiger_with_an_end() -> POMDP:
    """Tiger whose episode ends with an opened door."""
    problem = tiger()
    action = problem.transitions.of_entries() // len(problem.states)
    return replace(problem, ends=action > 0, name="tiger with an end")


def t_maze_with_a_poor_sign(length: int = 4, right: float = 0.9) -> POMDP:
    """A T-maze whose sign is misread in a tenth of all looks, each time anew: it pays to stay and look again.

    The sign is shown first. Of later turns in the corridor nothing is told but that it is the corridor.
    """
    problem = t_maze(length)
    sees = problem.emissions.dense().reshape(4, len(problem.states), 5)
    sees[:, :2, :2] = [[right, 1 - right], [1 - right, right]]
    emissions = Rows.from_dense(sees.reshape(-1, 5))
    return replace(problem, emissions=emissions, name="t-maze with a poor sign").showing_initial()


TASKS = {
    "tiger": Task(
        tiger_with_an_end(),
        8,
        ((0.5, 0.2, 0.3), (0.5, 0.3, 0.2), (0.6, 0.2, 0.2)),
        (0.02, 0.05, 0.2),
    ),
    "t-maze": Task(
        t_maze_with_a_poor_sign(),
        12,
        (*[(0.15, 0.15, 0.55, 0.15)] * 3, (0.3, 0.3, 0.2, 0.2), *[(0.25, 0.25, 0.25, 0.25)] * 2),
        (0.5, 1.5, 5.0),
    ),
}
WORLDS = {
    "tiger-sees": ("tiger", False),
    "tiger-remembers": ("tiger", True),
    "t-maze-sees": ("t-maze", False),
    "t-maze-remembers": ("t-maze", True),
}
"""(task, whether the logged agent remembers)"""
TARGETS = ("near", "middle", "far", "optimal")
COIN = 0.3
"""how often an agent that remembers does what is best"""


@cache
def graph(task: str) -> Graph:
    """All situations of a task."""
    return Graph.of(TASKS[task].problem, TASKS[task].horizon)


@cache
def behavior_of(task: str, memory: bool) -> Policy:
    """Who acts in the logs: by the last observation, or sometimes by all that was seen."""
    habits = graph(task).seeing(np.array(TASKS[task].habits))
    return mixed(COIN, habits, graph(task).optimal()) if memory else habits


@cache
def targets_of(task: str, memory: bool) -> dict[str, Policy]:
    """Whose value is asked for."""
    behavior, (q, _) = behavior_of(task, memory), graph(task).values(None)
    betas = zip(("near", "middle", "far"), TASKS[task].betas, strict=True)
    return {name: tilted(behavior, q, beta) for name, beta in betas} | {"optimal": graph(task).optimal()}


@cache
def truth_of(task: str, memory: bool, name: str) -> float:
    """The exact value of a target, or of the behaviour."""
    policy = behavior_of(task, memory) if name == "behaviour" else targets_of(task, memory)[name]
    return graph(task).values(policy)[1]
