"""A clone of the logged agent by regression: what it meant, from all that was exchanged before.

    p(a | h) = softmax(W x(h)),    min_W  -sum log p(a | h) + penalty |W|^2 / 2

x(h) are the counts of `rollout/acts/imitation/exchanges.py`: multinomial logistic regression. An agent that
goes by how often it heard what is cloned from a few hundred talks, where a recurrent network would need
thousands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, sparse
from scipy.special import log_softmax

from turnwise.data.acts.pack import ActSymbols
from turnwise.data.acts.talks import ActLogs, ActTalk
from turnwise.rollout.acts.imitation.exchanges import ExchangeActs, features

PENALTIES = (0.3, 3.0, 30.0)
"""to choose from, by talks kept apart"""
APART = 0.2
"""share of the talks that are"""
ITERATIONS = 200
"""of L-BFGS, at most"""


def exchange_acts(
    logs: ActLogs, talks: Sequence[ActTalk], *, penalty: float | None = None, seed: int = 0
) -> ExchangeActs:
    """The regression of `talks` of the logs; `penalty` None is chosen on a part of them kept apart."""
    symbols = ActSymbols.of(logs)
    turns = max(len(t) for t in talks)
    order = np.random.default_rng(seed).permutation(len(talks))
    stop = round(APART * len(talks)) if len(talks) >= 10 else 0
    parts = [[talks[i] for i in order[stop:]], [talks[i] for i in order[:stop]]]
    (x, acts), apart = (decisions(part, symbols, turns) for part in parts)
    best = PENALTIES[1] if penalty is None else penalty
    if stop and penalty is None:
        tried = {penalty: _fitted(x, acts, symbols.acts, penalty) for penalty in PENALTIES}
        best = min(tried, key=lambda penalty: _loss(tried[penalty], *apart, 0.0)[0])
    everything = decisions(talks, symbols, turns)
    return ExchangeActs(_fitted(*everything, symbols.acts, best), symbols, turns, best)


def decisions(
    talks: Sequence[ActTalk], symbols: ActSymbols, turns: int
) -> tuple[sparse.csr_array, np.ndarray]:
    """(features of every decision of the talks, the act that was done [N])."""
    before = [(t.first, t.acts[:k], t.answers[:k]) for t in talks for k in range(len(t))]
    acts = np.concatenate([t.acts for t in talks]) if talks else np.zeros(0, np.int64)
    return features(before, symbols, turns), acts


def _fitted(x: sparse.csr_array, acts: np.ndarray, size: int, penalty: float) -> np.ndarray:
    """[F, A], the weights of least loss. It is convex, and the start does not matter."""
    shape = (x.shape[1], size)  # pyright: ignore[reportOptionalSubscript]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _loss(flat.reshape(shape), x, acts, penalty)
        return value, slope.ravel()

    start = np.zeros(shape[0] * shape[1])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    return found.x.reshape(shape)


def _loss(
    weights: np.ndarray, x: sparse.csr_array, acts: np.ndarray, penalty: float
) -> tuple[float, np.ndarray]:
    """(nats, with the penalty; their gradient [F, A])"""
    logp = log_softmax(np.asarray(x @ weights), axis=1)
    here = np.arange(len(acts))
    wrong = np.exp(logp)
    wrong[here, acts] -= 1
    value = -logp[here, acts].sum() + penalty * (weights**2).sum() / 2
    return float(value), np.asarray(x.T @ wrong) + penalty * weights
