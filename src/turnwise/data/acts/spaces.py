"""Sentences as vectors: sparse words, whatever a function of texts gives, or both side by side.

They have length 1 (both side by side: about 1 each). The cosine between two is how alike they are. Words
weigh by how rare they are (tf-idf, Spärck Jones 1972, with sublinear counts), beside pairs of neighbours,
because a negation is one, and pieces of words, because "batteries" is like "battery".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from turnwise.data.acts.slots import words_of
from turnwise.run.errors import InputError

Embedder = Callable[[Sequence[str]], Any]
"""texts [n] -> finite numbers [n, D]"""
FEWEST = 200
"""sentences from which their main direction is known"""
FEATURES = 60_000
"""of sparse words, at most: the most frequent"""

DIRECTIONS = 200
"""of features, at most, that stand beside words"""
PER_DIRECTION = 5
"""sentences, at least, for each of them"""


class Space(Protocol):
    """Where sentences are."""

    def vectors(self, templates: Sequence[str]) -> Any:
        """[n, D], sparse or dense; a row of zeros for what is nowhere."""
        ...


def pieces(template: str) -> list[str]:
    """What sparse words count in a template: its words, pairs of neighbours, pieces of four letters."""
    words = words_of(template)
    ends = ["^", *words, "$"]
    pairs = [f"{a} {b}" for a, b in itertools.pairwise(ends)] if words else []
    marked = (f"<{w}>" for w in words if len(w) > 3 and w[0] != "{")
    return [*words, *pairs, *(f"#{w[i : i + 4]}" for w in marked for i in range(len(w) - 3))]


@dataclass(frozen=True)
class Words:
    """Sparse words."""

    vectorizer: TfidfVectorizer

    @classmethod
    def learn(cls, templates: Sequence[str]) -> Words:
        """Of templates, each once. What is in one of them alone is left out if they are many."""
        made = _vectorizer(min_df=2 if len(templates) > 500 else 1, max_features=FEATURES)
        try:
            return cls(made.fit(templates))
        except ValueError:  # no word in any of them
            return cls.of(["?"], np.ones(1))

    @classmethod
    def of(cls, words: Sequence[str], idf: np.ndarray) -> Words:
        """As it was saved."""
        made = _vectorizer(vocabulary={w: i for i, w in enumerate(words)})
        made.idf_ = np.asarray(idf, np.float64)
        return cls(made)

    @property
    def words(self) -> list[str]:
        """[D], what each number of a vector counts."""
        return [str(x) for x in self.vectorizer.get_feature_names_out()]

    def vectors(self, templates: Sequence[str]) -> sparse.csr_matrix:
        """[n, D], sparse."""
        return sparse.csr_matrix(self.vectorizer.transform(templates))


def _vectorizer(**settings: Any) -> TfidfVectorizer:
    # Its stubs know neither a function as analyzer nor single precision; its pages do.
    fixed: dict[str, Any] = {"analyzer": pieces, "sublinear_tf": True, "dtype": np.float32}
    return TfidfVectorizer(**fixed, **settings)


@dataclass(frozen=True)
class Embedded:
    """What a function makes of texts, less what all of them have in common."""

    embed: Embedder
    mean: np.ndarray
    """[D], the mean of the logged sentences' vectors of length 1: language models give all texts a large
    common part, which would hide what differs"""
    common: np.ndarray
    """[C, D], the direction of length 1 along which the logged sentences differ most: it says more of how
    long they are and how common their words are than of what they mean, and is taken out too. That is one of
    "all-but-the-top" (Mu & Viswanath 2018, arXiv:1702.01417), who take out D / 100, which would be too many
    here: where acts are few, the next ones tell them apart. C is 0 if the sentences are too few to know it"""
    name: str = "a function"

    @classmethod
    def learn(cls, embed: Embedder, templates: Sequence[str], name: str = "a function") -> Embedded:
        """What templates have in common."""
        found = _embedded(embed, templates, name)
        mean = found.mean(0)
        if len(found) < FEWEST:
            return cls(embed, mean, np.zeros((0, found.shape[1]), np.float32), name)
        _, directions = np.linalg.eigh((found - mean).T @ (found - mean))  # the last one has most variance
        return cls(embed, mean, directions[:, -1:].T, name)

    def vectors(self, templates: Sequence[str]) -> np.ndarray:
        """[n, D], dense."""
        if not len(templates):
            return np.zeros((0, len(self.mean)), np.float32)
        found = _embedded(self.embed, templates, self.name)
        if found.shape[1] != len(self.mean):
            raise InputError(
                f"{self.name} gave {found.shape[1]} numbers a text; expected {len(self.mean)}, as before"
            )
        found = found - self.mean
        return np.asarray(normalize(found - found @ self.common.T @ self.common))


@dataclass(frozen=True)
class Beside:
    """Words, and beside them what a function makes of texts, in directions that differ equally much.

    A regression with a penalty trusts large numbers more than small ones. What a model's features say of a
    meaning is often in directions in which texts differ little; so each direction gets the same deviation.
    """

    words: Words
    embedded: Embedded
    directions: np.ndarray
    """[D, K], the main ones of the logged sentences, such that squares of all K together average 1"""

    @classmethod
    def learn(cls, words: Words, embedded: Embedded, found: np.ndarray) -> Beside:
        """From the logged sentences as `embedded` has them, [M, D]."""
        values, turn = np.linalg.eigh((found.T @ found / len(found)).astype(np.float64))
        # As many directions as the sentences can tell from noise: some for each of them.
        most = max(1, min(DIRECTIONS, len(found) // PER_DIRECTION))
        kept = np.flatnonzero(values > 1e-6 * max(values[-1], 1e-12))[::-1][:most]
        scale = np.sqrt(np.maximum(values[kept], 1e-12) * max(1, len(kept)))
        return cls(words, embedded, (turn[:, kept] / scale).astype(np.float32))

    @property
    def name(self) -> str:
        """What sentences are compared by."""
        return f"words and {self.embedded.name}"

    def features(self, templates: Sequence[str]) -> np.ndarray:
        """[n, K], what stands beside words."""
        return self.embedded.vectors(templates) @ self.directions

    def vectors(self, templates: Sequence[str]) -> sparse.csr_matrix:
        """[n, words + K], sparse; the last K columns hardly have a zero."""
        return self.beside(templates, self.features(templates))

    def beside(self, templates: Sequence[str], features: np.ndarray) -> sparse.csr_matrix:
        """`vectors` of sentences whose features are known."""
        parts = [self.words.vectors(templates), sparse.csr_matrix(features)]
        return sparse.csr_matrix(sparse.hstack(parts), dtype=np.float32)


def _embedded(embed: Embedder, templates: Sequence[str], name: str) -> np.ndarray:
    found = np.asarray(embed(list(templates)), np.float32)
    if found.ndim != 2 or len(found) != len(templates) or not np.isfinite(found).all():
        raise InputError(
            f"{name} gave an array of shape {list(found.shape)} for {len(templates)} texts; expected finite "
            f"numbers of shape [{len(templates)}, D]"
        )
    return np.asarray(normalize(found))
