"""One side's sentences, split into acts by what they go with.

    all sentences are one act
    while an act has directions of text that go with its contexts beyond chance (canon.py):
        its sentences become as many acts as there are such directions, and one more (k-means along them),
        or two for each, crossed

Within an act the noise of all others is gone, so ever finer differences come out. An act in which nothing of
the wording goes with anything around it is not split: its sentences are paraphrases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
CROSSED = 3
"""clear directions, at most, whose halves are crossed with each other; each further one is an act more"""
CLEARER = 2.0
"""standard errors by which features must tell more than words do, to be taken for a split"""
RESTARTS: Any = 4
"""starts of k-means"""
ROWS = 12_000
"""utterances of one act, at most, in which directions are looked for"""


@dataclass
class Sentences:
    """The M different sentences of a side and the n utterances that they are.

    `texts` [M, D] in main directions, `features` [M, D'] likewise in another space, if there is one; `which`
    [n] the sentence of each utterance, `conversation` [n] of each, in order; `acts` [M] the act of each
    sentence, all one at first.
    """

    texts: np.ndarray
    which: np.ndarray
    conversation: np.ndarray
    features: np.ndarray | None = None
    acts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.acts = np.zeros(len(self.texts), np.int64)


class Found(NamedTuple):
    """Where the sentences of an act lie along the clear directions of their texts: `along` [m, g].

    `clearest`: the correlation of the first direction with what stands around, on conversations apart.
    """

    along: np.ndarray
    clearest: float


Known = dict[bytes, Found | None]
"""by rows: what was found for an act, so that another way of splitting need not look again"""


def main_directions(vectors: Any, counts: np.ndarray, seed: int) -> np.ndarray:
    """[M, D] float32, vectors in the directions in which they differ most, weighted by their counts."""
    most = SIZES[-1]
    if min(vectors.shape[0], vectors.shape[1]) <= most:
        dense = vectors if isinstance(vectors, np.ndarray) else vectors.toarray()
        return np.asarray(dense, np.float32)
    weighted = sparse.diags(np.sqrt(counts)) @ vectors
    _, _, directions = randomized_svd(weighted, most, n_iter=PASSES, random_state=seed)
    return np.asarray(vectors @ directions.T, np.float32)


def split(
    side: Sentences,
    contexts: Mapping[str, Any],
    half: np.ndarray,
    seed: int,
    crossed: bool = False,
    known: Known | None = None,
) -> np.ndarray:
    """The act [M] of each sentence, split as far as anything in its wording goes with the contexts [n, G].

    `half` [n] bool: directions come from either half and are tested on the other. An act with g clear
    directions becomes g + 1 acts or, `crossed`, 2^g: two directions may be a place and a pace, and then
    there are four meanings. `known` is kept by whoever splits the same texts by the same contexts twice.
    """
    every: Any = sparse.csr_matrix(sparse.hstack(list(contexts.values())))
    owner = np.repeat(np.arange(len(contexts)), [c.shape[1] for c in contexts.values()])
    rng = np.random.default_rng(seed)
    known = {} if known is None else known
    acts, said = np.zeros(len(side.texts), np.int64), np.bincount(side.which, minlength=len(side.texts))
    waiting, size = [0], 1
    while waiting:
        act = waiting.pop()
        sentences = np.flatnonzero(acts == act)
        rows = np.flatnonzero(acts[side.which] == act)
        if len(sentences) < 2 or len(rows) < 2 * SMALLEST:
            continue
        used = np.sort(rng.choice(rows, ROWS, replace=False)) if len(rows) > ROWS else rows
        key = used.tobytes()
        if key not in known:
            known[key] = _clearer(side, sentences, used, every, owner, half)
        parts = _parts(known[key], said[sentences], crossed, seed)
        if parts is None:
            continue
        counts = np.bincount(parts, weights=said[sentences])
        if (counts >= SMALLEST).sum() < 2:
            continue
        k = len(counts)
        numbers = np.array([act, *range(size, size + k - 1)])
        acts[sentences] = numbers[parts]
        size += k - 1
        waiting += numbers.tolist()
    return np.unique(acts, return_inverse=True)[1]


def _clearer(
    side: Sentences, sentences: np.ndarray, rows: np.ndarray, every: Any, owner: np.ndarray, half: np.ndarray
) -> Found | None:
    """Where the sentences of an act lie, by words; or by features if those are clearer beyond chance."""
    words = _directions(side.texts, side, sentences, rows, every, owner, half)
    if side.features is None:
        return words
    other = _directions(side.features, side, sentences, rows, every, owner, half)
    margin = 0.0 if words is None else words.clearest + CLEARER / np.sqrt(len(rows))
    return words if other is None or other.clearest <= margin else other


def _directions(
    vectors: np.ndarray,
    side: Sentences,
    sentences: np.ndarray,
    rows: np.ndarray,
    every: Any,
    owner: np.ndarray,
    half: np.ndarray,
) -> Found | None:
    """Where the sentences of an act lie along its clear directions; None if it has none."""
    texts = vectors[side.which[rows]]
    mean = texts.mean(0)
    texts = texts - mean
    values, turn = np.linalg.eigh((texts.T @ texts).astype(np.float64))
    real = values > 1e-6 * max(values[-1], 1e-12)
    turn = turn[:, real][:, ::-1][:, : max(1, min(len(sentences) - 1, len(rows) // 20))].astype(np.float32)
    texts = texts @ turn
    twins = _twins(texts[:, :TWINS], side.conversation[rows])
    around, views = standardised(every[rows], owner, twins)
    clear = signal(texts, around, half[rows], views, LEAST)
    if clear is None or not clear.clear:
        return None
    g = clear.clear
    along = (vectors[sentences] - mean) @ turn @ clear.directions[:, :g] * clear.correlations[:g]
    return Found(along, float(clear.correlations[0]))


def _parts(found: Found | None, said: np.ndarray, crossed: bool, seed: int) -> np.ndarray | None:
    """The part of each sentence of an act; None if it has no parts."""
    if found is None:
        return None
    g = found.along.shape[1]
    wanted = g + 1
    if crossed:
        wanted = 2**g if g <= CROSSED else 2**CROSSED + g - CROSSED
    k = min(wanted, len(np.unique(found.along, axis=0)))
    if k < 2:
        return None
    means = KMeans(k, n_init=RESTARTS, random_state=seed)
    return means.fit(found.along, sample_weight=said + 1e-3).labels_


def standardised(
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
    around, views = standardised(every, owner, np.zeros((len(rows), 0), np.float32))
    clear = signal(which - which.mean(), around, half[rows], views, LEAST)
    return clear is not None and clear.clear > 0


def _twins(texts: np.ndarray, conversation: np.ndarray) -> np.ndarray:
    """[n, D], the sum of the other rows of the same conversation. Rows are in order of conversations."""
    starts = np.flatnonzero(np.append(True, conversation[1:] != conversation[:-1]))
    sums = np.add.reduceat(texts, starts, axis=0)
    return np.repeat(sums, np.diff(np.append(starts, len(texts))), axis=0) - texts
