"""The search tree for a written-out problem: arrays, grown by compiled simulations (PO-UCT, POMCP).

`planner` has the algorithm and its sources, `kernels` the layout of the arrays and the simulations. This file
keeps the belief at the root and moves the root on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.envs.tabular import JOINT_LIMIT, Joint, Outcomes, Staged, joint_outcomes
from turnwise.exact.beliefs import BeliefFilter
from turnwise.exact.pomcp import kernels
from turnwise.exact.pomcp.tree import TRIES, rollout_weights, topped_up
from turnwise.run.errors import InputError


class TableTree:
    """A tree of arrays over a problem's tables. Node 0 is the root.

    The root's belief is exact, or, if `particles` > 0, an unweighted set of states. Either way simulations
    draw from `states` by `sums`, weights that are summed up.
    """

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
        # No rows stand for "all legal" and "uniform": the kernels then skip the lookup.
        mask = np.zeros((0, A), bool) if legal is None else np.asarray(legal) != 0
        weights = np.zeros((0, A))
        if policy is not None or legal is not None:
            weights = rollout_weights(policy, legal, (S, A))
        self.problem, self.particles = problem, particles
        self.model = kernels.Model(
            S, A, float(problem.discount), horizon, float(exploration),
            t.indptr, t.indices, _cumulative(t), problem.rewards, problem.ends,
            e.indptr, e.indices, _cumulative(e), np.cumsum(weights, 1), mask,
        )  # fmt: skip
        self.filter = BeliefFilter(problem)
        self.belief: Any = None  # [1, S] sparse, of the root; with particles only that of the beginning
        self.states: np.ndarray = np.zeros(0, np.int32)
        self.sums = np.zeros(0)
        self.outcomes = outcomes(problem) if particles else None
        self.tree = _with_room(self._root_alone(), 1, horizon if particles else 0)

    def _root_alone(self) -> kernels.Tree:
        A = self.model.actions
        return kernels.Tree(
            used=np.array([1, 0]), visits=np.zeros(1, np.int64), counts=np.zeros((1, A), np.int64),
            values=np.zeros((1, A)), first=np.full((1, A), -1), sibling=np.full(1, -1), parent=np.full(1, -1),
            seen=np.full(1, -1), particle=np.zeros(0, np.int32), place=np.zeros(0, np.int64),
        )  # fmt: skip

    @property
    def counts(self) -> np.ndarray:
        """[A], N(h, a) at the root."""
        return self.tree.counts[0].copy()

    @property
    def values(self) -> np.ndarray:
        """[A], V(h, a) at the root."""
        return self.tree.values[0].copy()

    def begin(self, observation: int | None, rng: np.random.Generator) -> None:
        """Forget everything; take up the first belief, exactly or as particles."""
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
            # the last sum may be below u by rounding
            place = np.minimum(np.searchsorted(self.sums, u, "right"), len(self.sums) - 1)
            self._set_particles(self.states[place])

    def _set_particles(self, states: np.ndarray) -> None:
        """Begin simulations from these states, each as likely as the others."""
        self.states, self.sums = states, np.arange(1.0, len(states) + 1)

    def _clear(self) -> None:
        """A root without children or counts. What the arrays hold behind it is overwritten in time."""
        t = self.tree
        t.used[:] = 1, 0
        t.visits[0], t.counts[0], t.values[0], t.first[0], t.sibling[0] = 0, 0, 0.0, -1, -1

    def simulate(self, simulations: int, rng: np.random.Generator) -> None:
        """Run simulations from the root, with arrays made long enough before: kernels cannot grow them."""
        # A simulation adds one node at most, but up to `horizon` particles, so their room is made bit by bit.
        self.tree = _with_room(self.tree, simulations, 0)
        left = simulations
        while left:
            left -= kernels.simulate(self.model, self.tree, self.states, self.sums, left, rng)
            if left:
                self.tree = _with_room(self.tree, 0, self.model.horizon)

    def follow(self, action: int, observation: int, rng: np.random.Generator) -> None:
        """The child becomes the root, its belief by Bayes' rule or from the child's particles, refilled."""
        t = self.tree
        child = int(t.first[0, action])
        while child >= 0 and t.seen[child] != observation:
            child = int(t.sibling[child])
        if self.particles:
            here = t.place[: t.used[kernels.PARTICLES]] == child
            found = t.particle[: len(here)][here]
            names = self.problem.actions[action], self.problem.observations[observation]
            more = self._rejection(action, observation, self.particles - len(found), rng)
            self._set_particles(topped_up(np.concatenate([found, more]), self.particles, names, rng))
        else:
            self.belief = self.filter.update(self.belief, np.array([action]), np.array([observation]))
            self.states, self.sums = self.belief.indices.astype(np.int32), np.cumsum(self.belief.data)
        if child < 0:
            self._clear()
        else:
            self._keep(child)

    def _rejection(self, action: int, observation: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
        """Up to `wanted` states: step from particles of the root, keep those that show the observation."""
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
        """Keep the tree below a node, which becomes node 0; the rest is freed.

        Nodes are numbered as they were made, so a parent comes before its children, and that stays so.
        """
        t, n = self.tree, int(self.tree.used[kernels.NODES])
        # Which nodes are below `root`? Nodes up to it are made their own parents; then each node jumps to its
        # parent's parent until nothing moves (pointer doubling: log2(depth) rounds, no recursion). A node
        # ends at its first ancestor that is not newer than `root`: at `root` itself if it is below it.
        parent = t.parent[:n].copy()
        parent[: root + 1] = np.arange(root + 1)
        while (parent[parent] != parent).any():
            parent = parent[parent]
        kept = np.flatnonzero(parent == root)  # old numbers, rising; kept[0] is root
        renumbered = np.full(n + 1, -1)  # old number -> new number; the last entry maps -1 ("none") to -1
        renumbered[kept] = np.arange(len(kept))
        if len(t.place):
            p = int(t.used[kernels.PARTICLES])
            place = renumbered[t.place[:p]]
            stay = place > 0  # not the new root's own (place 0): `follow` has taken them as the belief
            p = int(stay.sum())
            t.particle[:p], t.place[:p] = t.particle[: len(stay)][stay], place[stay]
            t.used[kernels.PARTICLES] = p
        m = len(kept)
        for array in (t.visits, t.counts, t.values, t.seen):
            array[:m] = array[kept]
        for array in (t.first, t.sibling, t.parent):  # these hold node numbers
            array[:m] = renumbered[array[kept]]
        t.sibling[0] = t.parent[0] = -1
        t.used[kernels.NODES] = m


def _with_room(t: kernels.Tree, nodes: int, particles: int) -> kernels.Tree:
    """The same tree with room for so many more nodes and particles; what must grow at least doubles."""
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
    """The sampler that `TabularEnv` would draw steps from."""
    return Joint.of(problem) if joint_outcomes(problem) <= JOINT_LIMIT else Staged(problem)


def _cumulative(rows: Rows) -> np.ndarray:
    """[entries], probabilities summed up within each row, to draw from a row by bisection."""
    total = np.append(0.0, np.cumsum(rows.data))
    return total[1:] - np.repeat(total[rows.indptr[:-1]], np.diff(rows.indptr))
