"""The lower bound on grids: a controller with a node for each point, valued exactly.

1. The node of a point takes the action that the upper bound takes there, and goes on, after each observation,
   with the node of the point that is nearest to the belief after it.
2. Nodes from which the same actions follow for ever are one node.
3. Valuation: the nodes' values in each state, from one linear system. They are those of a policy that can be
   followed, so their maximum is a lower bound of V*, however far the nearest point is.
4. Improvement: at each point the best action, followed after each observation by the node that is best there,
   wherever its own point is; then 2 and 3 again. It is kept if it is worth more at the start.

Sources: Hansen 1998 for policy iteration on controllers; Ji, Parr, Li, Liao & Carin 2007, "Point-based policy
iteration", for doing it at points. We begin with the upper bound's policy, since one that begins with plans
that never look may stay there: it goes on looking, because to look once more is always a little better.

A node belongs to a slice and is valued in its states only. The system's rounding is taken off, as in `upper`:
with H the valuation's operator, w - c is a lower bound for c = max(w - H w, 0) / (1 - g).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from turnwise.exact.alpha_policy import AlphaPolicy
from turnwise.exact.grids.slices import Slices
from turnwise.exact.grids.upper import UpperBound

MOST_UNKNOWNS = 60_000
"""of the valuation's system; a larger controller is not valued"""
MOST_PAIRS = 4e6
"""points times nodes of a slice; more are not compared in an improvement"""


@dataclass(frozen=True)
class Nodes:
    """The nodes of one slice."""

    actions: np.ndarray
    """[m]"""
    follow: np.ndarray
    """[m, O], the node of the slice after each observation; -1 where none can follow"""
    values: np.ndarray
    """[m, n], in each state of the slice"""


class TooLarge(Exception):
    """The controller has too many nodes to be valued at once, or to be compared with all points."""


class Controller:
    """Nodes of every slice, together a policy."""

    def __init__(
        self,
        slices: Slices,
        discount: float,
        observations: int,
        actions: list[np.ndarray],
        follow: list[np.ndarray],
    ) -> None:
        """A node for each entry of `actions` [P_k] and `follow` [P_k, O] of each slice k."""
        self.slices, self.discount, self.observations = slices, discount, observations
        self.nodes: list[Nodes] = []
        self._merge(actions, follow)
        self._value()

    @staticmethod
    def of(upper: UpperBound, observations: int) -> Controller:
        """The policy of an upper bound: its best action at each point, then on from the nearest point."""
        s = upper.slices
        best = upper.best_actions()
        actions = [best[upper.first[k] : upper.first[k + 1]] for k in range(len(s.slices))]
        follow = [np.full((len(a), observations), -1) for a in actions]
        for k, of_slice in enumerate(s.steps):
            for a, of_action in enumerate(of_slice):
                mine = np.flatnonzero(actions[k] == a)
                for o, after, step in of_action if len(mine) else ():
                    joint = upper.grids[k].points[mine] @ step
                    mass = joint.sum(1)
                    # A point on the border may rule out what the slice allows; any node will do there.
                    joint = np.where(mass[:, None] > 0, joint, s.slices[after].corners[0])
                    at, share = upper.grids[after].weights(joint / joint.sum(1, keepdims=True))
                    follow[k][mine, o] = at[np.arange(len(mine)), share.argmax(1)]
        return Controller(s, upper.discount, observations, actions, follow)

    def value(self) -> float:
        """The lower bound at the start."""
        return float(sum(p * (self.nodes[k].values @ b).max() for p, k, b in self.slices.roots))

    def improved(self, points: list[np.ndarray]) -> Controller:
        """The next controller, from backups at points [P, n] of each slice. Raises TooLarge."""
        pairs = max(len(x) * len(nodes.actions) for x, nodes in zip(points, self.nodes, strict=True))
        if pairs > MOST_PAIRS:
            raise TooLarge
        backed = [self._backup(k, x) for k, x in enumerate(points)]
        # A node may be followed that no point has kept: nodes after the points' own are the old ones.
        actions = [np.concatenate([a, old.actions]) for (a, _), old in zip(backed, self.nodes, strict=True)]
        many = [len(x) for x in points]
        follow = []
        for k, (_, new) in enumerate(backed):
            both = np.concatenate([new, self.nodes[k].follow])
            for a, of_action in enumerate(self.slices.steps[k]):
                mine = np.flatnonzero(actions[k] == a)
                for o, after, _ in of_action:
                    both[mine, o] += many[after]
            follow.append(both)
        return Controller(self.slices, self.discount, self.observations, actions, follow)

    def _backup(self, k: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(actions [P], nodes that follow [P, O]) that are best at points of slice k."""
        best, action = np.full(len(points), -np.inf), np.zeros(len(points), np.int64)
        follow = np.full((len(points), self.observations), -1)
        for a, of_action in enumerate(self.slices.steps[k]):
            q = points @ self.slices.rewards[k][a]
            picked = np.full((len(points), self.observations), -1)
            for o, after, step in of_action:
                scores = (points @ step) @ self.nodes[after].values.T
                picked[:, o] = scores.argmax(1)
                q = q + self.discount * scores.max(1)
            better = q > best + 1e-12 * np.abs(q)
            best, action = np.where(better, q, best), np.where(better, a, action)
            follow[better] = picked[better]
        return action, follow

    def _merge(self, actions: list[np.ndarray], follow: list[np.ndarray]) -> None:
        """Set the nodes: those with the same actions for ever become one (the smallest automaton).

        Blocks begin as "same slice, same action" and are split by the blocks that follow, until they stay.
        """
        sizes = [len(a) for a in actions]
        first = np.concatenate([[0], np.cumsum(sizes)])
        action = np.concatenate(actions)
        slice_of = np.repeat(np.arange(len(sizes)), sizes)
        after = np.full((len(action), self.observations), -1)
        for k, of_slice in enumerate(self.slices.steps):
            for a, of_action in enumerate(of_slice):
                mine = first[k] + np.flatnonzero(actions[k] == a)
                for o, to, _ in of_action:
                    after[mine, o] = first[to] + follow[k][mine - first[k], o]
        block = _numbered(np.column_stack([slice_of, action]))
        while True:
            next_blocks = np.where(after >= 0, block[after], -1)
            finer = _numbered(np.column_stack([block, next_blocks]))
            if finer.max() == block.max():
                break
            block = finer
        kept = np.unique(block, return_index=True)[1]  # a node of each block
        rank = np.zeros(block.max() + 1, np.int64)  # of a block within its slice
        for k in range(len(sizes)):
            mine = np.flatnonzero(slice_of[kept] == k)
            rank[mine] = np.arange(len(mine))
        for k, part in enumerate(self.slices.slices):
            mine = kept[slice_of[kept] == k]
            onward = np.where(after[mine] >= 0, rank[block[after[mine]]], -1)
            self.nodes.append(Nodes(action[mine], onward, np.zeros((len(mine), len(part.states)))))

    def _value(self) -> None:
        """Set the values: w = R + g sum over o of P(s', o | s, a) w(node after o, s')."""
        first = np.concatenate([[0], np.cumsum([nodes.values.size for nodes in self.nodes])])
        n = int(first[-1])
        if n > MOST_UNKNOWNS:
            raise TooLarge
        r, row, column, data = np.zeros(n), [], [], []
        for k, nodes in enumerate(self.nodes):
            size = nodes.values.shape[1]
            for a, of_action in enumerate(self.slices.steps[k]):
                mine = np.flatnonzero(nodes.actions == a)
                if not len(mine):
                    continue
                here = first[k] + mine[:, None] * size + np.arange(size)  # [m, n]
                r[here] = self.slices.rewards[k][a]
                for o, after, step in of_action:
                    s, to = np.nonzero(step)
                    wide = step.shape[1]
                    there = first[after] + nodes.follow[mine, o][:, None] * wide + to
                    row.append(here[:, s].ravel())
                    column.append(there.ravel())
                    data.append(np.tile(self.discount * step[s, to], len(mine)))
        step = sparse.csr_matrix((n, n))
        if row:
            entries = (np.concatenate(data), (np.concatenate(row), np.concatenate(column)))
            step = sparse.csr_matrix(entries, shape=(n, n))
        w = splu(sparse.identity(n, format="csc") - step.tocsc()).solve(r)
        w -= np.maximum(w - (r + step @ w), 0.0).max() / (1 - self.discount)
        self.nodes = [
            Nodes(nodes.actions, nodes.follow, w[first[k] : first[k + 1]].reshape(nodes.values.shape))
            for k, nodes in enumerate(self.nodes)
        ]

    def policy(self, states: int, least: float) -> AlphaPolicy:
        """The nodes that are followed from the start, as plans.

        A plan is worth `least` or more in states outside of its slice, where it goes on as it is. What cannot
        be seen after it leads to itself.
        """
        first = np.concatenate([[0], np.cumsum([len(nodes.actions) for nodes in self.nodes])])
        begun = [int(first[k] + (self.nodes[k].values @ b).argmax()) for _, k, b in self.slices.roots]
        rank: dict[int, int] = {j: i for i, j in enumerate(dict.fromkeys(begun))}
        waiting, follow = list(rank), {}
        while waiting:
            j = waiting.pop()
            k = int(np.searchsorted(first, j, "right")) - 1
            i = j - first[k]
            after = np.full(self.observations, j)
            for o, to, _ in self.slices.steps[k][int(self.nodes[k].actions[i])]:
                after[o] = first[to] + self.nodes[k].follow[i, o]
            follow[j] = after
            for x in np.unique(after).tolist():
                if x not in rank:
                    rank[x] = len(rank)
                    waiting.append(x)
        alphas = np.full((len(rank), states), least)
        actions = np.zeros(len(rank), np.int64)
        successors = np.zeros((len(rank), self.observations), np.int32)
        for j, i in rank.items():
            k = int(np.searchsorted(first, j, "right")) - 1
            alphas[i, self.slices.slices[k].states] = self.nodes[k].values[j - first[k]]
            actions[i] = self.nodes[k].actions[j - first[k]]
            successors[i] = [rank[int(x)] for x in follow[j]]
        return AlphaPolicy(alphas, actions, successors)


def _numbered(rows: np.ndarray) -> np.ndarray:
    """[n], the number of each row among the different ones."""
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel()
