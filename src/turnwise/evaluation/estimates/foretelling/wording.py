"""How each act was worded, as numbers that say nothing of the act itself.

A message is its words (tf-idf of the most frequent words and pairs of words), less the mean message of the
same act, along the directions in which messages of one act differ most: z [M, D]. Of two messages z * z' is
above 0 where they have the same words for their acts, whichever acts these are.
"""

from __future__ import annotations

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from turnwise.evaluation.estimates.foretelling.told import MOST_SYMBOLS, Told, pooled

WORDS = 200
"""words and pairs of words, the most frequent ones"""
DIRECTIONS = 10
"""in which messages of one act differ"""
FLAT = 1e-9
"""variance of tf-idf below which a direction is none"""


def worded_alike(told: Told) -> bool:
    """Whether every act always has the same words: then they tell nothing."""
    return len(set(zip(told.acts.tolist(), told.texts, strict=True))) == len(np.unique(told.acts))


def directions(told: Told, learnt: np.ndarray) -> np.ndarray:
    """z [M, D], in standard deviations; the words, the means and the directions are those of the decisions
    `learnt`. D is 0 if nothing varies."""
    reader = TfidfVectorizer(ngram_range=(1, 2), max_features=WORDS, token_pattern=r"\w+|[^\w\s]+")
    try:
        reader.fit([told.texts[i] for i in learnt.tolist()])
    except ValueError:  # there is not one word
        return np.zeros((len(told.texts), 0))
    x = reader.transform(told.texts).toarray()
    acts = told.acts
    count = np.bincount(acts[learnt], minlength=told.symbols[0])
    sums = np.zeros((told.symbols[0], x.shape[1]))
    np.add.at(sums, acts[learnt], x[learnt])
    x = x - (sums / np.maximum(count, 1)[:, None])[acts]
    x[count[acts] == 0] = 0.0  # nothing is known of how such an act is worded
    variance, turn = np.linalg.eigh(x[learnt].T @ x[learnt] / len(learnt))
    kept = np.flatnonzero(variance > FLAT)[::-1][:DIRECTIONS]
    return x @ turn[:, kept] / np.sqrt(variance[kept])


def by_act(told: Told, z: np.ndarray) -> np.ndarray:
    """[M, A D], the words of this message, for each act apart."""
    acts, A = pooled(told.acts, MOST_SYMBOLS)
    return (np.eye(A)[acts][:, :, None] * z[:, None, :]).reshape(len(acts), A * z.shape[1])


def crossed(told: Told, z: np.ndarray) -> np.ndarray:
    """[M, F]: the words of earlier messages; and what was answered to earlier messages, weighted by how alike
    their words are to those of this one: in each direction, and in all of them for each act apart."""
    acts, A = pooled(told.acts, MOST_SYMBOLS)
    answers, O = pooled(told.answers, MOST_SYMBOLS)
    heard = np.eye(O)[answers]
    earlier, each, alike = [], [], []
    for span in told.spans:
        own = z[span]
        before = np.tri(len(own), k=-1)
        earlier.append(before @ own)
        pairs = (own[:, :, None] * heard[span][:, None, :]).reshape(len(own), O * own.shape[1])
        each.append(np.repeat(own, O, axis=1) * (before @ pairs))
        alike.append((before * (own @ own.T)) @ heard[span])
    all_alike = np.vstack(alike)
    apart = (np.eye(A)[acts][:, :, None] * all_alike[:, None, :]).reshape(len(acts), -1)
    return np.hstack([np.vstack(earlier), np.vstack(each), apart])
