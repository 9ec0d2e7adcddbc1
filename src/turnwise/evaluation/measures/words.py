"""What can be told by words alone: ridge regression on bags of words, for critics and judges to beat."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_array

from turnwise.data.dialogue import Dialogue
from turnwise.data.feedback import Feedback, Like, Pair, Ranking

VOCABULARY = 1000
"""words at most: those in most turns of the training conversations"""
FOLDS = 5
_STRENGTHS = 10.0 ** np.arange(-4, 6)  # beside the mean eigenvalue of the words' covariance
_WORD = re.compile(r"[぀-ヿ㐀-鿿]|\w+|[^\w\s]")  # ideographs and kana stand for themselves

Bag = Mapping[str, int]
"""How often each word was said, `role:word`; `role:` counts the messages of that role."""


def bags(dialogue: Dialogue) -> Iterator[tuple[Bag, Bag]]:
    """For each turn of the agent: the bag of the history before it, and that with the reply."""
    said: Counter[str] = Counter()
    for m in dialogue.messages:
        before = Counter(said) if m.role == dialogue.agent_role else None
        said[f"{m.role}:"] += 1
        said.update(f"{m.role}:{word}" for word in _WORD.findall(m.content.lower()))
        if before is not None:
            yield before, Counter(said)


def worth_by_words(learnt: Sequence[Feedback], items: Sequence[Feedback]) -> np.ndarray | None:
    """[replies], what the words of each reply of `items`, in order, are worth by the feedback `learnt`.

    A regression on bags of words of 1 for a preferred reply and -1 for the other, of a like (1 or 0), of a
    score, or of how far a rank lies above the middle of its ranking. None if there is nothing to learn.
    """
    said = [(text, y, item.prompt) for item in learnt for text, y in _worths(item)]
    bags_ = [_words_of(text) for text, _, _ in said]
    worths = np.array([y for _, y, _ in said], np.float64)
    if not any(bags_) or not np.ptp(worths):
        return None
    number = {p: i for i, p in enumerate(dict.fromkeys(prompt for _, _, prompt in said))}
    model = fit_words(bags_, worths, np.array([number[prompt] for _, _, prompt in said]))
    return model.predict([_words_of(text) for item in items for text in item.replies])


def _words_of(text: str) -> Bag:
    return Counter(_WORD.findall(text.lower()))


def _worths(item: Feedback) -> list[tuple[str, float]]:
    if isinstance(item, Pair):
        return [] if item.tie else [(item.chosen, 1.0), (item.rejected, -1.0)]
    if isinstance(item, Ranking):
        middle = sum(item.ranks) / len(item.ranks)
        return [(text, middle - rank) for text, rank in zip(item.replies, item.ranks, strict=True)]
    return [(item.completion, float(item.liked if isinstance(item, Like) else item.score))]


@dataclass(frozen=True)
class WordRegression:
    """G = intercept + sum_w weight_w log(1 + count_w), with squared weights held down (ridge regression)."""

    words: Mapping[str, int]
    weights: np.ndarray
    intercept: float

    def predict(self, said: Sequence[Bag]) -> np.ndarray:
        """[n], the return predicted from each bag; words that training never saw count for nothing."""
        return _counted(said, self.words) @ self.weights + self.intercept


def fit_words(said: Sequence[Bag], returns: np.ndarray, conversation: np.ndarray) -> WordRegression:
    """Fit bags [n] to returns [n]; the penalty is the best of ten in cross-validation over conversations.

        min_w,b  sum_i (G_i - b - w . x_i)^2 + alpha |w|^2,  x = log(1 + counts)

    Hoerl & Kennard 1970. `conversation` [n] numbers the conversation of each bag: all turns of one are in the
    same of the five parts. The largest penalty leaves little more than the mean.
    """
    common = Counter(word for bag in said for word in bag).most_common(VOCABULARY)
    words = {word: i for i, (word, _) in enumerate(sorted(common))}
    x, y = _counted(said, words), np.asarray(returns, np.float64)
    folds = min(FOLDS, len(np.unique(conversation)))
    # Conversations are dealt out in their order: neighbours come into different parts.
    place = np.unique(conversation, return_inverse=True)[1] % folds
    parts = [_Moments.of(x[place == k], y[place == k]) for k in range(folds)]
    whole = sum(parts[1:], parts[0])
    strengths = _STRENGTHS * max(np.trace(whole.covariance()[0]) / max(1, len(words)), 1e-12)
    errors = np.zeros(len(strengths))
    for k, part in enumerate(parts if folds > 1 else []):
        weights, intercepts = (whole - part).ridge(strengths)
        guesses = x[place == k] @ weights.T + intercepts  # [n_k, strengths]
        errors += ((y[place == k, None] - guesses) ** 2).sum(0)
    best = int(errors.argmin()) if folds > 1 else len(strengths) - 1
    weights, intercepts = whole.ridge(strengths[best : best + 1])
    return WordRegression(words, weights[0], float(intercepts[0]))


@dataclass(frozen=True)
class _Moments:
    """Sums over rows of x, y, x x' and x y: what ridge regression needs, and what can be subtracted."""

    n: int
    x: np.ndarray
    y: float
    xx: np.ndarray
    xy: np.ndarray

    @classmethod
    def of(cls, x: csr_array, y: np.ndarray) -> _Moments:
        return cls(len(y), np.asarray(x.sum(0)), float(y.sum()), (x.T @ x).toarray(), x.T @ y)

    def __add__(self, other: _Moments) -> _Moments:
        return _Moments(self.n + other.n, self.x + other.x, self.y + other.y, self.xx + other.xx,
                        self.xy + other.xy)  # fmt: skip

    def __sub__(self, other: _Moments) -> _Moments:
        return _Moments(self.n - other.n, self.x - other.x, self.y - other.y, self.xx - other.xx,
                        self.xy - other.xy)  # fmt: skip

    def covariance(self) -> tuple[np.ndarray, np.ndarray]:
        """Centred x x' and x y, summed over rows: the intercept pays no penalty."""
        return self.xx - np.outer(self.x, self.x) / self.n, self.xy - self.x * (self.y / self.n)

    def ridge(self, strengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights [alphas, d] and intercepts [alphas]; one decomposition serves all penalties."""
        xx, xy = self.covariance()
        values, vectors = eigh(xx)
        values = values.clip(min=0)  # rounding may leave -1e-12
        weights = ((vectors.T @ xy) / (values + strengths[:, None])) @ vectors.T
        return weights, (self.y - weights @ self.x) / self.n


def _counted(said: Sequence[Bag], words: Mapping[str, int]) -> csr_array:
    """log(1 + count) of the known words, [n, words]."""
    columns, counts, starts = [], [], [0]
    for bag in said:
        known = [(words[word], count) for word, count in bag.items() if word in words]
        columns += [column for column, _ in known]
        counts += [count for _, count in known]
        starts.append(len(columns))
    return csr_array((np.log1p(counts), columns, starts), shape=(len(said), len(words)))
