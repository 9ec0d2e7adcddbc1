"""A clone of the logged agent by regression: what it meant, from all that was exchanged before.

    p(a | h) = softmax(W x(h)),    min_W  -sum log p(a | h) + penalty |W|^2 / 2

x(h) counts every exchange of the talk (an act and its answer), and says what was seen last, what was done
last, and which turn it is: multinomial logistic regression. An agent that goes by how often it heard what is
cloned from a few hundred talks, where a recurrent network would need thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse
from scipy.special import log_softmax

from turnwise.data.acts.pack import ActSymbols
from turnwise.data.acts.talks import ActLogs, ActTalk
from turnwise.rollout.acts.chooser import Choice, Prefix, draw

PENALTIES = (0.3, 3.0, 30.0)
"""to choose from, by talks kept apart"""
APART = 0.2
"""share of the talks that are"""
ITERATIONS = 200
"""of L-BFGS, at most"""


@dataclass(frozen=True)
class ExchangeActs:
    """Draws acts by a regression on what was exchanged."""

    weights: np.ndarray
    """[F, A]"""
    symbols: ActSymbols
    turns: int
    """turns that are told apart; later ones are as the last"""
    penalty: float = PENALTIES[1]

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        """Draw one act for each talk."""
        x = features([(t.first, t.acts, t.answers) for t in talks], self.symbols, self.turns)
        p = np.exp(log_softmax(np.asarray(x @ self.weights), axis=1))
        return [Choice(draw(row, rng), row) for row, rng in zip(p, rngs, strict=True)]


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


def features(
    talks: Sequence[tuple[int, np.ndarray, np.ndarray]], symbols: ActSymbols, turns: int
) -> sparse.csr_array:
    """[N, F], of talks under way (opening, acts, answers)."""
    A, O, S = symbols.acts, symbols.answers, symbols.seen
    rows, columns = [], []
    for i, (first, acts, answers) in enumerate(talks):
        seen = symbols.observations(first, answers)[-1]
        last = acts[-1] if len(acts) else A
        own = [seen, S + last, S + A + 1 + min(len(acts), turns - 1)]
        exchanged = S + A + 1 + turns + acts * O + answers
        rows += [i] * (len(own) + len(exchanged))
        columns += [*own, *exchanged.tolist()]
    shape = (len(talks), S + A + 1 + turns + A * O)
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


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
