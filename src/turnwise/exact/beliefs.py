"""Bayes' filter for many lanes at once: the belief after each action and observation.

    b'(s') = O(o|a,s') sum_s T(s'|s,a) b(s) / P(o|b,a)     Kaelbling, Littman & Cassandra 1998, section 3.3

Only transitions after which the episode goes on count: an agent that still acts knows that it has not ended.

Beliefs are sparse rows [N, S] (CSR): of thousands of states a belief often has a handful. Lanes with the same
action are updated together, as one sparse matrix product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from turnwise.envs.pomdp import POMDP
from turnwise.exact.bounds import matrix


class BeliefFilter:
    """The filter of one problem. Beliefs are sparse rows [N, S], one per lane."""

    def __init__(self, problem: POMDP):
        S, A, _ = problem.shape
        t, e = matrix(problem.continuing()), matrix(problem.emissions)
        self.problem = problem
        self.transitions = [t[a * S : (a + 1) * S] for a in range(A)]
        self._emissions: list[Any] = [e[a * S : (a + 1) * S] for a in range(A)]
        self._shown: dict[int, np.ndarray] = {}  # what `shown` has computed

    def first(self, observations: np.ndarray) -> Any:
        """[N, S], the beliefs before the first action, given `observations` [N] if the problem shows any."""
        p, n = self.problem, len(observations)
        start = sparse.csr_matrix(np.tile(p.start, (n, 1)))
        if p.initial is None:
            return start
        shown = np.asarray(matrix(p.initial)[start.indices, observations[_rows(start)]]).ravel()
        start.data = start.data * shown
        return _normalised(start)[0]

    def shown(self, action: int) -> np.ndarray:
        """[S, O + 1], P(o, the episode goes on | s, a) of the state before; the last column: it ends."""
        if action not in self._shown:
            seen = np.asarray((self.transitions[action] @ self._emissions[action]).todense())
            self._shown[action] = np.column_stack([seen, np.maximum(1.0 - seen.sum(1), 0.0)])
        return self._shown[action]

    def predict(self, beliefs: Any, action: int) -> Any:
        """[N, S], P(s', the episode goes on | b, a), before anything is seen."""
        return sparse.csr_matrix(beliefs @ self.transitions[action])

    def joint(self, predicted: Any, action: int, observations: np.ndarray) -> Any:
        """[N, S], P(s', o, the episode goes on | b, a). Its row sums are P(o|b,a) if no episode ends.

        `predicted` is from `predict`, `observations` [N] is what each lane sees.
        """
        joint = predicted.copy()
        factor = self._emissions[action][joint.indices, observations[_rows(joint)]]
        joint.data = joint.data * np.asarray(factor).ravel()
        return joint

    def update(self, beliefs: Any, actions: np.ndarray, observations: np.ndarray) -> Any:
        """[N, S], the beliefs after `actions` and `observations` [N]; ValueError for what cannot be seen."""
        parts, order = [], []
        for a in np.unique(actions):
            here = np.flatnonzero(actions == a)
            joint = self.joint(self.predict(beliefs[here], a), a, observations[here])
            after, mass = _normalised(joint)
            if (mass <= 0).any():
                o = observations[here[int(np.argmin(mass))]]
                raise ValueError(
                    f"{self.problem.observations[o]} cannot be seen after {self.problem.actions[a]}; "
                    "expected what has a probability at the belief"
                )
            parts.append(after)
            order.append(here)
        # Parts are in the order of actions; bring the rows back into that of lanes.
        back = np.argsort(np.concatenate(order), kind="stable")
        return sparse.csr_matrix(sparse.vstack(parts).tocsr()[back])


def entropy(beliefs: Any) -> np.ndarray:
    """[N], the entropy in nats of each of the sparse rows [N, S]."""
    p = beliefs.data
    terms = -p * np.log(np.where(p > 0, p, 1.0))
    return np.bincount(_rows(beliefs), terms, minlength=beliefs.shape[0])


def _rows(m: Any) -> np.ndarray:
    """[entries], the row of each entry."""
    return np.repeat(np.arange(m.shape[0]), np.diff(m.indptr))


def _normalised(m: Any) -> tuple[Any, np.ndarray]:
    """(rows divided by their sums, the sums [N]); `m` is changed."""
    mass = np.bincount(_rows(m), m.data, minlength=m.shape[0])
    m.data = m.data / np.where(mass > 0, mass, 1.0)[_rows(m)]
    m.eliminate_zeros()
    return m, mass
