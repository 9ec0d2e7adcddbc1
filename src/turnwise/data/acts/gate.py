"""Acts read off words alone: a multinomial logistic regression on the sentences whose acts are known.

A sentence that was never said is the act that its words make likeliest, if they do so clearly enough. How
clear is enough is learnt too: sentences are left out of the regression in turn, and above the confidence
`sure` at least `RIGHT` of them are read as what they are. Below it nobody should guess, since whatever plans
with the acts believes them.
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
STRENGTH = 30.0
"""inverse of the penalty on squared weights"""


@dataclass(frozen=True)
class Gate:
    """`weights` [D, A] and `constants` [A] of the regression; `sure`: the least chance that is believed."""

    weights: np.ndarray
    constants: np.ndarray
    sure: float

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
        for k in range(FOLDS):
            test, train = fold == k, fold != k
            if len(np.unique(y[train])) < 2 or not test.any():
                continue
            part = _fitted(x[train], y[train], weights[train], size)
            chances = softmax(part.logits(x[test]), axis=1)
            sureness[test] = chances.max(1)
            right[test] = chances.argmax(1) == y[test]
        order = np.argsort(-sureness, kind="stable")
        share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
        good = np.flatnonzero(share >= RIGHT)
        sure = float(sureness[order][good[-1]]) if len(good) else 1.0
        weights, constants = _fitted(x, y, weights, size)
        return Gate(weights, constants, min(sure, 1 - 1e-6))

    def chances(self, vectors: Any) -> np.ndarray:
        """[n, A], how likely each act is."""
        return softmax(_Fit(self.weights, self.constants).logits(vectors), axis=1)

    def read(self, vectors: Any) -> tuple[np.ndarray, np.ndarray]:
        """(act, distance), each [n]; a distance of 1 is one that is just believed."""
        chances = self.chances(vectors)
        acts = chances.argmax(1)
        return acts, self.distance(chances[np.arange(len(acts)), acts])

    def distance(self, chance: np.ndarray) -> np.ndarray:
        """How far a sentence is from an act that has such a chance."""
        return (1 - chance) / (1 - self.sure)


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
