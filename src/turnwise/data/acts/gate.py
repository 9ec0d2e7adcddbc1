"""Acts read off words alone: a multinomial logistic regression on the sentences whose acts are known.

A sentence that was never said is the act that its words make likeliest, if they do so clearly enough. How
clear is enough is learnt too: sentences are left out of the regression in turn, and above the confidence
`sure` at least `RIGHT` of them are read as what they are. Below it nobody should guess, since whatever plans
with the acts believes them.

Whoever can weigh evidence need not decide. Words x are then evidence for each act,

    P(x | act) ~ P(act | x) / P(act),        P(act | x) ~ softmax(heat (logits - ln P(act))) P(act)

with the `heat` at which sentences that were left out are likeliest (Platt 1999; Guo et al. 2017 call its
inverse a temperature): 0 if words that were never seen tell nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

RIGHT = 0.9
"""share of unseen sentences that are to be read rightly"""
SENTENCES = 6000
"""sentences, at most, that the regression learns from"""
FEW = 12
"""sentences, at least: of fewer nobody could say how clear is enough"""
FOLDS = 4
HEATS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25)
"""to choose from"""
MOST = 30.0
"""nats of evidence for one act above another, at most"""
STRENGTH = 30.0
"""inverse of the penalty on squared weights"""


@dataclass(frozen=True)
class Gate:
    """`weights` [D, A] and `constants` [A] of the regression; `sure`: the least chance that is believed.

    `heat`: what the regression says of unseen words, as a share of what it believes; `shares` [A] of the acts
    among the sentences that it has learnt from.
    """

    weights: np.ndarray
    constants: np.ndarray
    sure: float
    heat: float
    shares: np.ndarray

    @classmethod
    def learn(cls, vectors: Any, acts: np.ndarray, counts: np.ndarray, size: int, seed: int) -> Gate | None:
        """From sentences [M, D], their acts and counts; None if they are few, or all are one act."""
        rng = np.random.default_rng(seed)
        rows = np.arange(len(acts))
        if len(rows) > SENTENCES:
            rows = np.sort(rng.choice(rows, SENTENCES, replace=False, p=counts / counts.sum()))
        x, y = vectors[rows], acts[rows]
        weights = np.sqrt(counts[rows].astype(float))
        weights /= weights.mean()
        if len(np.unique(y)) < 2 or len(y) < FEW:
            return None
        fold = rng.permutation(len(rows)) % FOLDS
        sureness, right = np.zeros(len(rows)), np.zeros(len(rows), bool)
        shares = np.bincount(y, weights=weights, minlength=size) + 1.0
        shares /= shares.sum()
        logits = np.tile(np.log(shares), (len(rows), 1))
        for k in range(FOLDS):
            test, train = fold == k, fold != k
            if len(np.unique(y[train])) < 2 or not test.any():
                continue
            part = _fitted(x[train], y[train], weights[train], size)
            logits[test] = part.logits(x[test])
            chances = softmax(logits[test], axis=1)
            sureness[test] = chances.max(1)
            right[test] = chances.argmax(1) == y[test]
        order = np.argsort(-sureness, kind="stable")
        share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
        good = np.flatnonzero(share >= RIGHT)
        sure = float(sureness[order][good[-1]]) if len(good) else 1.0
        heat = _heat(logits, y, weights, shares)
        weights, constants = _fitted(x, y, weights, size)
        return Gate(weights, constants, min(sure, 1 - 1e-6), heat, shares)

    def chances(self, vectors: Any) -> np.ndarray:
        """[n, A], how likely each act is."""
        return softmax(_Fit(self.weights, self.constants).logits(vectors), axis=1)

    def read(self, vectors: Any) -> tuple[np.ndarray, np.ndarray]:
        """(act, distance), each [n]; a distance of 1 is one that is just believed."""
        chances = self.chances(vectors)
        acts = chances.argmax(1)
        return acts, self.distance(chances[np.arange(len(acts)), acts])

    def evidence(self, vectors: Any) -> np.ndarray:
        """[n, A], P(words | act) up to a factor in each row, of which the mean over `shares` is 1."""
        logits = _Fit(self.weights, self.constants).logits(vectors)
        return _evidence(logits, self.heat, self.shares)

    def distance(self, chance: np.ndarray) -> np.ndarray:
        """How far a sentence is from an act that has such a chance."""
        return (1 - chance) / (1 - self.sure)


def _evidence(logits: np.ndarray, heat: float, shares: np.ndarray) -> np.ndarray:
    """[n, A], see `Gate.evidence`."""
    # Acts that no sentence has are about as unlikely as words can make them: nothing is infinitely so.
    told = np.maximum(logits - np.log(shares), (logits - np.log(shares)).max(1, keepdims=True) - MOST)
    return softmax(heat * told + np.log(shares), axis=1) / shares


def _heat(logits: np.ndarray, y: np.ndarray, weights: np.ndarray, shares: np.ndarray) -> float:
    """The heat at which acts `y` [n] of sentences that the regression did not see are likeliest."""
    rows = np.arange(len(y))

    def missed(heat: float) -> float:
        chances = _evidence(logits, heat, shares)[rows, y] * shares[y]
        return -float((weights * np.log(np.maximum(chances, 1e-12))).sum())

    # A grid and no search: there is little to gain by the second digit, and it cannot fail.
    return min(HEATS, key=missed)


class _Fit(tuple):
    """(weights, constants)."""

    def __new__(cls, weights: np.ndarray, constants: np.ndarray) -> _Fit:
        return super().__new__(cls, (weights, constants))

    def logits(self, vectors: Any) -> np.ndarray:
        return np.asarray(vectors @ self[0]) + self[1]


def _fitted(x: Any, y: np.ndarray, weights: np.ndarray, size: int) -> _Fit:
    """The regression, with a chance of about none for acts that no sentence has."""
    model = LogisticRegression(C=STRENGTH, max_iter=200, tol=1e-3).fit(x, y, sample_weight=weights)
    coefficients, constants = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # one row for the second class against the first
        coefficients, constants = (
            np.vstack([-coefficients, coefficients]) / 2,
            np.append(-constants, constants) / 2,
        )
    w = np.zeros((x.shape[1], size), np.float32)
    b = np.full(size, -30.0, np.float32)
    w[:, model.classes_], b[model.classes_] = coefficients.T, constants
    return _Fit(w, b)
