"""Which beliefs can be reached, if they lie on a few points, lines and planes.

Beliefs with the same support, the states that are possible, belong together. The unnormalised belief after an
action and an observation is linear in the belief before, so the beliefs of one support that can be reached
lie in a linear space, which is found by following a basis of it. The space cuts the simplex of the support in
a *slice*: a point, a segment or a polygon, if it has one, two or three dimensions. Its corners are beliefs
themselves, and every belief of the slice is a mixture of them.

What is seen for sure parts supports; what stays hidden spans a slice. A position that is known beside a
regime that is not, of two, is a segment for each position, however many positions there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.exact.bounds import matrix
from turnwise.exact.sarsop.search import first_beliefs

MOST_DIMENSIONS = 3
"""of the linear space: the slice is then a polygon"""
MOST_SLICES = 3000
"""more supports than these are not followed"""
MOST_WORK = 3e7
"""numbers that following may touch, some tenths of a second"""
SAME = 1e-9
"""distance from the space at which a belief still counts as in it: rounding"""


@dataclass(frozen=True)
class Slice:
    """Beliefs of one support, and where they lead."""

    states: np.ndarray
    """[n], the support"""
    corners: np.ndarray
    """[c, n], beliefs: one, the two ends of a segment, or those of a polygon in order"""
    basis: np.ndarray
    """[d, n], orthonormal rows that span the space"""


@dataclass(frozen=True)
class Slices:
    """All slices that can be reached, and the steps between them."""

    slices: tuple[Slice, ...]
    roots: tuple[tuple[float, int, np.ndarray], ...]
    """(probability, slice, belief [n]) before the first action"""
    rewards: tuple[np.ndarray, ...]
    """of each slice [A, n], R(s,a) on its states"""
    steps: tuple[tuple[tuple[tuple[int, int, np.ndarray], ...], ...], ...]
    """of each slice and action: (o, slice after it, matrix [n, n'] of P(s', o, goes on | s, a))"""


def reachable_slices(problem: POMDP) -> Slices | None:
    """The slices of a problem; None if some space has more dimensions, or if there are too many slices."""
    found = _Follower(problem)
    if not found.follow():
        return None
    return found.done()


class _Follower:
    """Supports and the bases of their spaces, grown until nothing new is reached."""

    def __init__(self, problem: POMDP) -> None:
        S, A, _ = problem.shape
        t, e = matrix(problem.continuing()), matrix(problem.emissions)
        self.t: list[Any] = [t[a * S : (a + 1) * S] for a in range(A)]
        self.e: list[Any] = [e[a * S : (a + 1) * S].tocsc() for a in range(A)]
        self.problem, self.work = problem, 0.0
        self.number: dict[bytes, int] = {}
        self.states: list[np.ndarray] = []
        self.beliefs: list[list[np.ndarray]] = []  # of each support, those that made its basis [n]
        self.bases: list[np.ndarray] = []
        self.steps: dict[tuple[int, int], dict[int, int]] = {}
        self.waiting: list[tuple[int, np.ndarray]] = []

    def follow(self) -> bool:
        """Whether everything could be followed."""
        self.roots = []
        for p, b in first_beliefs(self.problem):
            k = self.enter(b)
            if k < 0:
                return False
            self.roots.append((p, k, b[self.states[k]]))
        while self.waiting:
            k, belief = self.waiting.pop()
            full = np.zeros(self.problem.shape[0])
            full[self.states[k]] = belief
            for a in range(len(self.t)):
                if not self.follow_action(k, a, full):
                    return False
        return True

    def follow_action(self, k: int, a: int, belief: np.ndarray) -> bool:
        """What can follow one action: each observation's belief into its support."""
        predicted = np.asarray(belief @ self.t[a]).ravel()
        can = np.flatnonzero(predicted)
        seen = self.e[a][can]
        self.work += seen.nnz + len(belief)
        if self.work > MOST_WORK:
            return False
        joint = seen.multiply(predicted[can][:, None]).tocsc()
        after = self.steps.setdefault((k, a), {})
        for o in np.flatnonzero(np.diff(joint.indptr)).tolist():
            here = slice(joint.indptr[o], joint.indptr[o + 1])
            b = np.zeros(len(belief))
            b[can[joint.indices[here]]] = joint.data[here]
            total = b.sum()
            if total <= 0:
                continue
            after[o] = self.enter(b / total)
            if after[o] < 0:
                return False
        return True

    def enter(self, belief: np.ndarray) -> int:
        """The number of the support of a belief [S]; its basis grows if the belief is new. -1: too much."""
        states = np.flatnonzero(belief)
        key = states.tobytes()
        k = self.number.setdefault(key, len(self.states))
        b = belief[states]
        if k == len(self.states):
            if k >= MOST_SLICES:
                return -1
            self.states.append(states)
            self.beliefs.append([])
            self.bases.append(np.zeros((0, len(states))))
        basis = self.bases[k]
        rest = b - basis.T @ (basis @ b)
        rest -= basis.T @ (basis @ rest)  # once more: rounding of the first pass is in the basis too
        self.work += 4 * basis.size
        length = float(np.linalg.norm(rest))
        if length > SAME * float(np.linalg.norm(b)):
            if len(basis) == MOST_DIMENSIONS:
                return -1
            self.bases[k] = np.vstack([basis, rest / length])
            self.beliefs[k].append(b)
            self.waiting.append((k, b))
        return k

    def done(self) -> Slices:
        """Everything that was found, with corners and matrices."""
        r = self.problem.expected_rewards()
        parts = tuple(
            Slice(s, corners_of(np.array(b)), q)
            for s, b, q in zip(self.states, self.beliefs, self.bases, strict=True)
        )
        steps = []
        for k, states in enumerate(self.states):
            of_slice = []
            for a in range(len(self.t)):
                rows = self.t[a][states]
                of_action = []
                for o, after in self.steps[k, a].items():
                    to = self.states[after]
                    chance = np.asarray(self.e[a][to][:, [o]].todense()).ravel()
                    of_action.append((o, after, np.asarray(rows[:, to].todense()) * chance))
                of_slice.append(tuple(of_action))
            steps.append(tuple(of_slice))
        return Slices(parts, tuple(self.roots), tuple(r[:, s] for s in self.states), tuple(steps))


def corners_of(beliefs: np.ndarray) -> np.ndarray:
    """[c, n], the corners of the slice of the simplex that one to three beliefs [d, n] span."""
    first, others = beliefs[0], beliefs[1:] - beliefs[0]
    if len(others) == 0:
        return beliefs.copy()
    q = np.linalg.qr(others.T)[0].T  # [d - 1, n], orthonormal directions inside the slice
    if len(others) == 1:
        # first + x q >= 0 in every state: q has entries of both signs, since they sum to 0.
        with np.errstate(divide="ignore", invalid="ignore"):
            at = -first / q[0]
        found = np.array([[at[q[0] > 0].max()], [at[q[0] < 0].min()]])
    else:
        found = _polygon(first, q)
    corners = np.maximum(first + found @ q, 0.0)
    return corners / corners.sum(1, keepdims=True)


def _polygon(first: np.ndarray, q: np.ndarray) -> np.ndarray:
    """[c, 2], the corners of {x: first + x q >= 0}: a large square, cut along each state's line."""
    ring = [np.array(c, float) for c in ((-3, -3), (3, -3), (3, 3), (-3, 3))]  # beliefs are within 2 of it
    for free, slope in zip(first, q.T, strict=True):
        value = [float(free + slope @ p) for p in ring]
        cut: list[np.ndarray] = []
        for i, p in enumerate(ring):
            j = (i + 1) % len(ring)
            if value[i] >= 0:
                cut.append(p)
            if (value[i] >= 0) != (value[j] >= 0):
                cut.append(p + (ring[j] - p) * (value[i] / (value[i] - value[j])))
        ring = cut
    kept = [p for i, p in enumerate(ring) if np.linalg.norm(p - ring[i - 1]) > SAME]
    return np.array(kept)
