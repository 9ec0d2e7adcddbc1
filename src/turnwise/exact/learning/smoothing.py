"""Imagined counts: what a thin row is pulled towards, and how hard.

A row of a state and an action (its observations, last answers, rewards, its hazard of ending) is pulled
towards the row of the action in all states, and that towards the row of all actions: the more data a row
has, the less it is pulled. Both are frequencies in the data, so they are fixed while EM runs. Transitions
and the start are pulled towards all states alike.

    prior(x | a, s) = strength * m_a(x)
    m_a(x) = (n_a(x) + m(x)) / (n_a + 1)
    m(x) = (n(x) + 1/X) / (n + 1)

(a hierarchical Dirichlet prior with its means estimated from the data; MacKay & Peto 1995.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnwise.exact.learning.kernels import Steps, Tables


def prior_of(steps: Steps, sizes: Sequence[int], strength: float, phases: int | None = None) -> Tables:
    """Imagined counts for `sizes` (S, A, O, F, B), `strength` of them in a row; 0: none.

    `phases`: states of one class (neighbours), which alone become one another; None: any becomes any. States
    that are the only one of their class have no transitions to count.
    """
    S, A, O, F, B = sizes
    ends = np.zeros(len(steps.actions), bool)
    last = steps.offsets[1:] - 1
    ends[last] = steps.ended
    clock = np.zeros(len(ends), bool)
    if steps.longest:
        clock[last] = steps.ended & (np.diff(steps.offsets) == steps.longest)
    own, on = ends & ~clock, ~ends
    where = {0: on, 1: own if own.any() else ends, 2: clock}
    observed = _means(steps.actions[on], steps.observations[on], A, O)
    answered = np.stack([_means(steps.actions[where[k]], steps.observations[where[k]], A, O) for k in (1, 2)])
    paid = np.stack([_means(steps.actions[where[k]], steps.bins[where[k]], A, B) for k in (0, 1, 2)])
    hazard = _means(steps.actions[~clock], on[~clock].astype(np.int64), A, 2)  # [A, 2], of ending and of not
    if not own.any():
        hazard = np.broadcast_to([0.0, 1.0], (A, 2))  # nothing ends by itself
    seen = np.bincount(steps.firsts, minlength=F) + 1 / F
    k = strength
    return Tables(
        start=np.full(S, k / S),
        firsts=k * np.repeat(seen[:, None] / seen.sum(), S, 1),
        transitions=k * _within_classes(A, S, phases),
        emissions=k * np.repeat(observed[:, :, None], S, 2),
        ends=k * np.repeat(hazard[:, None, :], S, 1),
        lasts=k * np.repeat(answered[..., None], S, 3),
        bins=k * np.repeat(paid[..., None], S, 3),
    )


def _within_classes(A: int, S: int, phases: int | None) -> np.ndarray:
    """[A, S, S], alike to all states of the same class, 0 to others; [A, 0, 0] if every state is a class."""
    if phases == 1:
        return np.empty((A, 0, 0))
    m = phases or S
    return np.tile(np.kron(np.eye(S // m), np.full((m, m), 1 / m)), (A, 1, 1))


def _means(actions: np.ndarray, symbols: np.ndarray, A: int, X: int) -> np.ndarray:
    """[A, X], how often each symbol follows each action, pulled towards how often it follows any."""
    n = np.bincount(actions * np.int64(X) + symbols, minlength=A * X).reshape(A, X).astype(np.float64)
    shared = (n.sum(0) + 1 / X) / (n.sum() + 1)
    return (n + shared) / (n.sum(1, keepdims=True) + 1)
