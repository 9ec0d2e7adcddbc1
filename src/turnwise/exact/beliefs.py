"""Bayes' filter for many lanes at once: what is believed after each action and observation.

    b'(s') = O(o|a,s') sum_s T(s'|s,a) b(s) / P(o|b,a)     Kaelbling, Littman & Cassandra 1998, section 3.3

Only transitions that go on count: who is asked for a belief knows that the episode has not ended.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from turnwise.envs.pomdp import POMDP
from turnwise.exact.bounds import matrix


class BeliefFilter:
    """Beliefs are sparse rows [N, S]."""

    def __init__(self, problem: POMDP):
        S, A, _ = problem.shape
        t, e = matrix(problem.continuing()), matrix(problem.emissions)
        self.problem = problem
        self.transitions = [t[a * S : (a + 1) * S] for a in range(A)]
        self._seen: list[Any] = [e[a * S : (a + 1) * S] for a in range(A)]

    def first(self, observations: np.ndarray) -> Any:
        """[N, S] before the first action, after `observations` [N] (ignored where nothing is shown first)."""
        p, n = self.problem, len(observations)
        start = sparse.csr_matrix(np.tile(p.start, (n, 1)))
        if p.initial is None:
            return start
        shown = np.asarray(matrix(p.initial)[start.indices, observations[_rows(start)]]).ravel()
        start.data = start.data * shown
        return _normalised(start)[0]

    def predicted(self, beliefs: Any, action: int) -> Any:
        """[N, S] P(s', the episode goes on | b, a), before anything is seen."""
        return sparse.csr_matrix(beliefs @ self.transitions[action])

    def seen(self, predicted: Any, action: int, observations: np.ndarray) -> Any:
        """[N, S] P(s', o, the episode goes on | b, a): its row sums are P(o|b,a) where no episode ends."""
        joint = predicted.copy()
        factor = self._seen[action][joint.indices, observations[_rows(joint)]]
        joint.data = joint.data * np.asarray(factor).ravel()
        return joint

    def update(self, beliefs: Any, actions: np.ndarray, observations: np.ndarray) -> Any:
        """[N, S] after `actions` [N] and `observations` [N]; ValueError for what cannot be seen."""
        parts, order = [], []
        for a in np.unique(actions):
            here = np.flatnonzero(actions == a)
            joint = self.seen(self.predicted(beliefs[here], a), a, observations[here])
            after, mass = _normalised(joint)
            if (mass <= 0).any():
                o = observations[here[int(np.argmin(mass))]]
                raise ValueError(
                    f"{self.problem.observations[o]} cannot be seen after {self.problem.actions[a]} there"
                )
            parts.append(after)
            order.append(here)
        back = np.argsort(np.concatenate(order), kind="stable")
        return sparse.csr_matrix(sparse.vstack(parts).tocsr()[back])


def entropy(beliefs: Any) -> np.ndarray:
    """[N], in nats, of sparse rows [N, S]."""
    p = beliefs.data
    terms = -p * np.log(np.where(p > 0, p, 1.0))
    return np.bincount(_rows(beliefs), terms, minlength=beliefs.shape[0])


def _rows(m: Any) -> np.ndarray:
    return np.repeat(np.arange(m.shape[0]), np.diff(m.indptr))


def _normalised(m: Any) -> tuple[Any, np.ndarray]:
    """Rows that sum to 1, and what they summed to."""
    mass = np.bincount(_rows(m), m.data, minlength=m.shape[0])
    m.data = m.data / np.where(mass > 0, mass, 1.0)[_rows(m)]
    m.eliminate_zeros()
    return m, mass
