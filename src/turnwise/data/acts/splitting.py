"""One side's sentences, split into acts by what they go with.

    all sentences are one act
    while an act has directions of text that go with its contexts beyond chance (canon.py):
        its sentences become as many acts as there are such directions, and one more (k-means along them)

Within an act the noise of all others is gone, so ever finer differences come out. An act in which nothing of
the wording goes with anything around it is not split: its sentences are paraphrases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.utils.extmath import randomized_svd

from turnwise.data.acts.canon import SIZES, signal

LEAST = 4.5
"""t of a direction that is beyond chance: one in 300,000 by chance alone, as several hundred are tried"""
SMALLEST = 60
"""utterances of an act, at least"""
TWINS = 60
"""main directions of text in which other messages of the same act and conversation are a context"""
PASSES: Any = 1
"""over the texts, for their main directions"""
RESTARTS: Any = 4
"""starts of k-means"""
ROWS = 12_000
"""utterances of one act, at most, in which directions are looked for"""


@dataclass
class Sentences:
    """The M different sentences of a side and the n utterances that they are.

    `texts` [M, D] in main directions, `which` [n] the sentence of each utterance, `half` [n] bool and
    `conversation` [n] of each, `acts` [M] the act of each sentence, which splitting changes.
    """

    texts: np.ndarray
    which: np.ndarray
    half: np.ndarray
    conversation: np.ndarray
    acts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.acts = np.zeros(len(self.texts), np.int64)

    @property
    def codes(self) -> np.ndarray:
        """[n], the act of each utterance."""
        return self.acts[self.which]

    @property
    def size(self) -> int:
        """Number of acts."""
        return int(self.acts.max()) + 1 if len(self.acts) else 1


def main_directions(vectors: Any, counts: np.ndarray, seed: int) -> np.ndarray:
    """[M, D] float32, vectors in the directions in which they differ most, weighted by their counts."""
    most = SIZES[-1]
    if min(vectors.shape[0], vectors.shape[1]) <= most:
        dense = vectors if isinstance(vectors, np.ndarray) else vectors.toarray()
        return np.asarray(dense, np.float32)
    weighted = sparse.diags(np.sqrt(counts)) @ vectors
    _, _, directions = randomized_svd(weighted, most, n_iter=PASSES, random_state=seed)
    return np.asarray(vectors @ directions.T, np.float32)


def split(side: Sentences, contexts: Mapping[str, Any], seed: int) -> None:
    """Split all acts of a side as far as anything in its wording goes with the contexts [n, G]."""
    every: Any = sparse.csr_matrix(sparse.hstack(list(contexts.values())))
    owner = np.repeat(np.arange(len(contexts)), [c.shape[1] for c in contexts.values()])
    rng = np.random.default_rng(seed)
    waiting, size = list(range(side.size)), side.size
    while waiting:
        act = waiting.pop()
        sentences = np.flatnonzero(side.acts == act)
        rows = np.flatnonzero(side.codes == act)
        if len(sentences) < 2 or len(rows) < 2 * SMALLEST:
            continue
        used = np.sort(rng.choice(rows, ROWS, replace=False)) if len(rows) > ROWS else rows
        parts = _parts(side, sentences, used, every, owner, seed)
        if parts is None:
            continue
        counts = np.bincount(
            parts, weights=np.bincount(side.which[rows], minlength=len(side.acts))[sentences]
        )
        if (counts >= SMALLEST).sum() < 2:
            continue
        k = len(counts)
        numbers = np.array([act, *range(size, size + k - 1)])
        side.acts[sentences] = numbers[parts]
        size += k - 1
        waiting += numbers.tolist()
    side.acts = np.unique(side.acts, return_inverse=True)[1]


def _parts(
    side: Sentences,
    sentences: np.ndarray,
    rows: np.ndarray,
    every: Any,
    owner: np.ndarray,
    seed: int,
) -> np.ndarray | None:
    """The part of each sentence of an act; None if it has no parts."""
    texts = side.texts[side.which[rows]]
    mean = texts.mean(0)
    texts = texts - mean
    values, turn = np.linalg.eigh((texts.T @ texts).astype(np.float64))
    real = values > 1e-6 * max(values[-1], 1e-12)
    turn = turn[:, real][:, ::-1][:, : max(1, min(len(sentences) - 1, len(rows) // 20))].astype(np.float32)
    texts = texts @ turn
    twins = _twins(texts[:, :TWINS], side.conversation[rows])
    around, views = _standardised(every[rows], owner, twins)
    clear = signal(texts, around, side.half[rows], views, LEAST)
    if clear is None or not clear.clear:
        return None
    g = clear.clear
    along = (side.texts[sentences] - mean) @ turn @ clear.directions[:, :g] * clear.correlations[:g]
    weights = np.bincount(side.which[rows], minlength=len(side.acts))[sentences]
    k = min(g + 1, len(np.unique(along, axis=0)))
    if k < 2:
        return None
    return KMeans(k, n_init=RESTARTS, random_state=seed).fit(along, sample_weight=weights + 1e-3).labels_


def _standardised(
    found: Any, owner: np.ndarray, twins: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Contexts [n, G] of mean 0 and deviation 1, and which columns are seen together."""
    n = found.shape[0]
    columns = np.flatnonzero(found.getnnz(0) >= max(20, n // 500))
    around = np.hstack([found[:, columns].toarray(), twins])
    around -= around.mean(0)
    deviation = around.std(0)
    around /= np.where(deviation > 1e-6, deviation, 1)
    of = np.append(owner[columns], np.full(twins.shape[1], -1))
    views = {str(i): np.flatnonzero((of == i) & (deviation > 1e-6)) for i in np.unique(of)}
    views["all"] = np.flatnonzero(deviation > 1e-6)
    return around, views


def told_apart(
    first: np.ndarray,
    second: np.ndarray,
    contexts: Mapping[str, Any],
    half: np.ndarray,
    seed: int,
) -> bool:
    """Whether contexts tell two sets of rows apart, beyond chance."""
    rng = np.random.default_rng(seed)
    parts = [r if len(r) <= ROWS // 2 else rng.choice(r, ROWS // 2, replace=False) for r in (first, second)]
    rows = np.sort(np.concatenate(parts))
    every: Any = sparse.csr_matrix(sparse.hstack([sparse.csr_matrix(c)[rows] for c in contexts.values()]))
    owner = np.repeat(np.arange(len(contexts)), [c.shape[1] for c in contexts.values()])
    which = np.isin(rows, parts[0]).astype(np.float32)[:, None]
    around, views = _standardised(every, owner, np.zeros((len(rows), 0), np.float32))
    clear = signal(which - which.mean(), around, half[rows], views, LEAST)
    return clear is not None and clear.clear > 0


def _twins(texts: np.ndarray, conversation: np.ndarray) -> np.ndarray:
    """[n, D], the sum of the other rows of the same conversation. Rows are in order of conversations."""
    starts = np.flatnonzero(np.append(True, conversation[1:] != conversation[:-1]))
    sums = np.add.reduceat(texts, starts, axis=0)
    return np.repeat(sums, np.diff(np.append(starts, len(texts))), axis=0) - texts
