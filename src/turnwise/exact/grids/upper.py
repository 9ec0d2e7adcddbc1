"""The upper bound on grids: V*, being convex, lies below what is interpolated between upper bounds of it.

    V(x) <- max_a R(x,a) + g sum_o P(o|x,a) sum_p w_p(x_ao) V(p)        x a point of a grid, p of a cell

Source: Lovejoy 1991, "Computationally feasible bounds for partially observed Markov decision processes". The
operator T is that of a Markov decision process on the points, so policy iteration solves it in a few systems.

Why the result is a bound although a system is solved by rounding: T is monotone and shifts by g c what is
shifted by c. So V + c >= T(V + c) for c = max(T V - V, 0) / (1 - g), and whatever is above its image under T
is above the fixed point of T, which is above V*.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from turnwise.exact.grids.cells import Grid
from turnwise.exact.grids.slices import Slices

MOST_UNKNOWNS = 60_000
"""points up to which systems are solved; beyond, values are iterated"""
ROUNDS = 30
"""of policy iteration, at most"""
SWEEPS = 400


class UpperBound:
    """Values at the points of all slices' grids; each is an upper bound of V* there."""

    def __init__(self, slices: Slices, discount: float, fib: np.ndarray, m: int) -> None:
        """`fib` [A, S]: an upper bound of Q to begin with. `m`: cells on an edge."""
        self.slices, self.discount = slices, discount
        self.grids = [Grid.on(part, m) for part in slices.slices]
        self.first = np.concatenate([[0], np.cumsum([len(g.points) for g in self.grids])])
        begun = [
            (g.points @ fib[:, part.states].T).max(1)
            for g, part in zip(self.grids, slices.slices, strict=True)
        ]
        self.values = np.concatenate(begun)
        self.rewards, self.steps = self._process()

    def _process(self) -> tuple[np.ndarray, Any]:
        """(R [A, P], g times the weights [A*P, P] of points after each)."""
        A, P = len(self.slices.rewards[0]), int(self.first[-1])
        rewards = np.concatenate(
            [r @ g.points.T for r, g in zip(self.slices.rewards, self.grids, strict=True)], axis=1
        )
        row, column, data = [], [], []
        for k, of_slice in enumerate(self.slices.steps):
            points = self.grids[k].points
            for a, of_action in enumerate(of_slice):
                for _, after, step in of_action:
                    joint = points @ step  # [P_k, n']
                    mass = joint.sum(1)
                    can = np.flatnonzero(mass > 0)
                    at, share = self.grids[after].weights(joint[can] / mass[can, None])
                    row.append(np.repeat(a * P + self.first[k] + can, at.shape[1]))
                    column.append((self.first[after] + at).ravel())
                    data.append((self.discount * mass[can, None] * share).ravel())
        if not row:
            return rewards, sparse.csr_matrix((A * P, P))
        entries = (np.concatenate(data), (np.concatenate(row), np.concatenate(column)))
        return rewards, sparse.csr_matrix(entries, shape=(A * P, P))

    def _q(self, values: np.ndarray) -> np.ndarray:
        return self.rewards + (self.steps @ values).reshape(self.rewards.shape)

    def improve(self, until: float) -> None:
        """Lower the values to the fixed point, as far as time allows (`until`, of `time.perf_counter`)."""
        P = len(self.values)
        chosen = np.full(P, -1)
        if P > MOST_UNKNOWNS:
            for _ in range(SWEEPS):
                self.values = np.minimum(self.values, self._q(self.values).max(0))
                if time.perf_counter() > until:
                    return
        values = self.values
        for _ in range(ROUNDS if P <= MOST_UNKNOWNS else 0):
            if time.perf_counter() > until:
                break
            q = self._q(values)
            best = q.argmax(0)
            # An action is changed only for one that is better by more than rounding, so that this ends.
            if (chosen >= 0).all():
                better = q.max(0) > q[chosen, np.arange(P)] + 1e-12 * (1 + np.abs(values))
                best = np.where(better, best, chosen)
                if not better.any():
                    break
            chosen = best
            of_policy = self.steps[chosen * P + np.arange(P)]
            system = sparse.identity(P, format="csc") - of_policy.tocsc()
            values = splu(system).solve(self.rewards[chosen, np.arange(P)])
        over = np.maximum(self._q(values).max(0) - values, 0.0).max() / (1 - self.discount)
        self.values = np.minimum(self.values, values + over)

    def best_actions(self) -> np.ndarray:
        """[P], the action that the bound takes at each point."""
        return self._q(self.values).argmax(0)

    def at(self, k: int, beliefs: np.ndarray) -> np.ndarray:
        """[N], the bound at beliefs [N, n] of slice k."""
        points, share = self.grids[k].weights(beliefs)
        return (self.values[self.first[k] + points] * share).sum(1)

    def refined(self, fib: np.ndarray) -> UpperBound:
        """The bound on a grid twice as fine, beginning with the values of this one."""
        m = max(g.parts for g in self.grids)
        finer = UpperBound(self.slices, self.discount, fib, 2 * m)
        begun = np.concatenate([self.at(k, g.points) for k, g in enumerate(finer.grids)])
        finer.values = np.minimum(finer.values, begun)
        return finer
