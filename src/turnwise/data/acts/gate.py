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
SENTENCES = 12_000
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
        if len(np.unique(acts)) < 2 or len(acts) < FEW:
            return None
        logits = left_out(vectors, acts, counts, size, seed)
        chances = softmax(logits, axis=1)
        sureness, right = chances.max(1), chances.argmax(1) == acts
        order = np.argsort(-sureness, kind="stable")
        share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
        good = np.flatnonzero(share >= RIGHT)
        sure = float(sureness[order][good[-1]]) if len(good) else 1.0
        weights = weights_of(counts)
        shares = shares_of(acts, weights, size)
        heat = _heat(logits, acts, weights, shares)
        rows = _some(counts, np.random.default_rng(seed))
        fit = fitted(vectors[rows], acts[rows], weights[rows], size)
        return Gate(fit[0], fit[1], min(sure, 1 - 1e-6), heat, shares)

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
        return evidence_at(logits, self.heat, self.shares)

    def distance(self, chance: np.ndarray) -> np.ndarray:
        """How far a sentence is from an act that has such a chance."""
        return (1 - chance) / (1 - self.sure)


def left_out(
    vectors: Any, acts: np.ndarray, counts: np.ndarray, size: int, seed: int, folds: int = FOLDS
) -> np.ndarray:
    """[M, A], logits of each sentence by a regression on others: how it would be read had nobody said it."""
    rng = np.random.default_rng(seed)
    fold = rng.permutation(len(acts)) % folds
    weights = weights_of(counts)
    logits = np.tile(np.log(shares_of(acts, weights, size)), (len(acts), 1))
    for k in range(folds):
        test, train = fold == k, np.flatnonzero(fold != k)
        train = train[_some(counts[train], rng)]
        if len(np.unique(acts[train])) > 1 and test.any():
            part = fitted(vectors[train], acts[train], weights[train], size)
            logits[test] = part.logits(vectors[test])
    return logits


def weights_of(counts: np.ndarray) -> np.ndarray:
    """[M] of mean 1: a sentence that was said a hundred times is worth ten."""
    weights = np.sqrt(counts.astype(float))
    return weights / weights.mean()


def shares_of(acts: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """[A] of the acts, none of them 0."""
    shares = np.bincount(acts, weights=weights, minlength=size) + 1.0
    return shares / shares.sum()


def _some(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places of as many sentences as a regression learns from, those said often rather than others."""
    if len(counts) <= SENTENCES:
        return np.arange(len(counts))
    return np.sort(rng.choice(len(counts), SENTENCES, replace=False, p=counts / counts.sum()))


def evidence_at(logits: np.ndarray, heat: float, shares: np.ndarray) -> np.ndarray:
    """[n, A], P(words | act) up to a factor in each row, at a heat; its mean over `shares` is 1."""
    # Acts that no sentence has are about as unlikely as words can make them: nothing is infinitely so.
    told = np.maximum(logits - np.log(shares), (logits - np.log(shares)).max(1, keepdims=True) - MOST)
    return softmax(heat * told + np.log(shares), axis=1) / shares


def _heat(logits: np.ndarray, y: np.ndarray, weights: np.ndarray, shares: np.ndarray) -> float:
    """The heat at which acts `y` [n] of sentences that the regression did not see are likeliest."""
    rows = np.arange(len(y))

    def missed(heat: float) -> float:
        chances = evidence_at(logits, heat, shares)[rows, y] * shares[y]
        return -float((weights * np.log(np.maximum(chances, 1e-12))).sum())

    # A grid and no search: there is little to gain by the second digit, and it cannot fail.
    return min(HEATS, key=missed)


class _Fit(tuple):
    """(weights, constants)."""

    def __new__(cls, weights: np.ndarray, constants: np.ndarray) -> _Fit:
        return super().__new__(cls, (weights, constants))

    def logits(self, vectors: Any) -> np.ndarray:
        return np.asarray(vectors @ self[0]) + self[1]


def fitted(x: Any, y: np.ndarray, weights: np.ndarray, size: int) -> _Fit:
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
