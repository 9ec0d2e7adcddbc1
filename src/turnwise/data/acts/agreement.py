"""Sentences read twice, by their words and by what stands around them, until both readings agree.

Splits (`splitting.py`) look at sentences along a few hundred main directions, and so they misread whole ways
of saying a thing: "anything but the sea" goes to those who want the sea. What stands around those sentences
knows better. Words x and surroundings y are two views of one act (Blum & Mitchell 1998), and if they have
nothing in common but the act,

    p(y | x) / p(y) = sum over acts of p(act | x) p(act | y) / p(act)

where p(act | x) and p(act | y) are regressions, each learnt from the acts that both views made likely,

    q(sentence is act) ~ p(act | x) prod over the times that it was said of p(act | y) / p(act)

which is EM (Dempster et al. 1977) for a mixture of experts. Sentences are read by a regression on *other*
sentences, surroundings by one on the other half of the conversations: nothing agrees with itself. So the mean
of ln p(y | x) / p(y) is held out, too. It says in nats what words foretell of their surroundings; rounds go
on while it rises, and it chooses between ways of writing sentences as vectors (words alone, or a language
model's features beside them) without anybody saying what a sentence means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import logsumexp

from turnwise.data.acts.gate import FOLDS, weights_of
from turnwise.data.acts.splitting import SMALLEST, standardised

ROUNDS = 16
"""at most"""
OFTEN = 20
"""times that a sentence was said, from which on its own surroundings say what it is: it stays as it was"""
RARE = 300
"""sentences that were said less often, at least: of fewer nobody learns how others would be read"""
PATIENCE = 3
"""rounds that may pass without a new best one"""
FIRST, NEXT = 40, 12
"""steps of a regression in the first round, and in each that goes on from the one before"""
SOFT = 10.0
"""inverse of the penalty on squared weights of sentences: acts that are learnt from are in doubt"""
AROUND = 0.003
"""the same of surroundings: hundreds of columns, of which few tell, and none much"""


@dataclass(frozen=True)
class Agreed:
    """What the views agree on: `acts` [M] of the sentences, and how likely each act is, `chances` [M, A].

    `told` [n]: ln p(y | x) / p(y) of each utterance, held out; `before` is its mean for what was
    believed at first.
    """

    acts: np.ndarray
    chances: np.ndarray
    told: np.ndarray
    before: float


def agreed(
    vectors: Any,
    contexts: Mapping[str, Any],
    which: np.ndarray,
    half: np.ndarray,
    acts: np.ndarray,
    seed: int,
    chances: np.ndarray | None = None,
) -> Agreed | None:
    """The acts [M] of sentences with `vectors` [M, D], as both views have them in the best round.

    `contexts` [n, G] stand around the utterances, which are sentences `which` [n]; `half` [n] bool are halves
    of the conversations. `chances` [M, A] are other beliefs to begin with, such as those of another space:
    they are gone on with if more is told by them. None if there is nothing to learn from: one act, few
    utterances, or few sentences that were not said often.
    """
    size = int(acts.max(initial=0)) + 1
    often = np.bincount(which, minlength=len(acts)) >= OFTEN
    if size < 2 or (~often).sum() < RARE or min(half.sum(), (~half).sum()) < SMALLEST:
        return None
    views = _Views(vectors, _columns(contexts), which, half, size, seed)
    plain = believed = best = np.eye(size)[acts]
    told: list[np.ndarray] = []
    number = 0
    for at in range(ROUNDS):
        by_words, by_around = views.both(believed, FIRST if at == 0 else NEXT)
        told.append(_summed(by_words[which] + by_around))
        if at == 0 and chances is not None:
            other = views.both(chances, FIRST)
            by_chances = _summed(other[0][which] + other[1])
            if by_chances.mean() > told[0].mean():
                best, (by_words, by_around), told[0] = chances, other, by_chances
        if told[-1].mean() > told[number].mean():
            best, number = believed, at
        if at >= number + PATIENCE:
            break
        both = by_words
        np.add.at(both, which, by_around)
        believed = np.where(often[:, None], plain, np.exp(both - _summed(both)[:, None]))
    found = acts if best is plain else np.where(often, acts, views.read(best).argmax(1))
    return Agreed(found, best, told[number], float(told[0].mean()))


def rises(new: np.ndarray, old: np.ndarray, conversation: np.ndarray) -> bool:
    """Whether `new` [n] is above `old` [n] on average, beyond the noise of conversations (97.5%)."""
    sums = np.bincount(conversation, weights=new - old)
    sums = sums[np.bincount(conversation) > 0]
    return bool(sums.sum() > 1.96 * np.sqrt(((sums - sums.mean()) ** 2).sum()))


class _Views:
    """The regressions of both views; each call goes on from where the one before ended."""

    def __init__(
        self, vectors: Any, around: np.ndarray, which: np.ndarray, half: np.ndarray, size: int, seed: int
    ) -> None:
        self.which, self.size = which, size
        self.weights = weights_of(np.maximum(np.bincount(which, minlength=vectors.shape[0]), 1))
        self.blocks = _blocks(vectors)
        fold = np.random.default_rng(seed).permutation(vectors.shape[0]) % FOLDS
        self.words = [_Part(self.blocks, fold != k, fold == k) for k in range(FOLDS)]
        self.around = [_Part([around], half == h, half != h) for h in (True, False)]

    def both(self, believed: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """What either view says after so many more steps of its regressions."""
        return self.by_words(believed, steps), self.by_around(believed, steps)

    def by_words(self, believed: np.ndarray, steps: int) -> np.ndarray:
        """[M, A], ln p(act | x) by a regression on other sentences."""
        found = np.zeros((len(believed), self.size))
        for part in self.words:
            found[part.test] = part.learn(believed, self.weights, SOFT, steps).read()
        return found

    def by_around(self, believed: np.ndarray, steps: int) -> np.ndarray:
        """[n, A], ln p(act | y) / p(act) by a regression on the other half of the conversations."""
        acts = believed[self.which]
        ones = np.ones(len(acts))
        found = np.zeros((len(acts), self.size))
        for part in self.around:
            found[part.test] = part.learn(acts, ones, AROUND, steps).read()
        share = acts.sum(0) + 1
        return found - np.log(share / share.sum())

    def read(self, believed: np.ndarray) -> np.ndarray:
        """[M, A], ln p(act | x) by a regression on all sentences, each one itself included."""
        every = np.ones(len(believed), bool)
        part = _Part(self.blocks, every, every)
        return part.learn(believed, self.weights, SOFT, 2 * FIRST).read()


class _Part:
    """A multinomial logistic regression on some rows of a matrix, and what it says of others."""

    def __init__(self, blocks: Sequence[Any], train: np.ndarray, test: np.ndarray) -> None:
        self.train, self.test = np.flatnonzero(train), np.flatnonzero(test)
        self.x = [block[self.train] for block in blocks]
        self.over = [sparse.csr_matrix(x.T) if sparse.issparse(x) else x.T for x in self.x]
        self.other = [block[self.test] for block in blocks]
        self.found: np.ndarray | None = None

    def learn(self, believed: np.ndarray, weights: np.ndarray, strength: float, steps: int) -> _Part:
        """From chances [m, A] of acts; at most so many steps (L-BFGS) on from where it was."""
        q, w = believed[self.train].astype(np.float32), weights[self.train].astype(np.float32)[:, None]
        size = q.shape[1]
        width = sum(x.shape[1] for x in self.x)

        def missed(flat: np.ndarray) -> tuple[float, np.ndarray]:
            t = flat.reshape(width + 1, size).astype(np.float32)
            z = _times(self.x, t)
            z -= z.max(1, keepdims=True)
            e = np.exp(z)
            total = e.sum(1, keepdims=True)
            wrong = (e / total - q) * w
            loss = -float((w * q * (z - np.log(total))).sum(dtype=np.float64))
            loss += float((t[:-1] ** 2).sum(dtype=np.float64)) / 2 / strength
            slope = np.vstack([*(np.asarray(x @ wrong) for x in self.over), wrong.sum(0)])
            slope[:-1] += t[:-1] / strength
            return loss, slope.ravel().astype(np.float64)

        start = np.zeros((width + 1) * size) if self.found is None else self.found.ravel()
        end = minimize(missed, start, jac=True, method="L-BFGS-B", options={"maxiter": steps})
        self.found = end.x.reshape(width + 1, size)
        return self

    def read(self) -> np.ndarray:
        """[t, A], log-probabilities of acts of the other rows."""
        assert self.found is not None
        z = _times(self.other, self.found.astype(np.float32)).astype(np.float64)
        return z - _summed(z)[:, None]


def _summed(logs: np.ndarray) -> np.ndarray:
    """[n], the log of the sum of each row's probabilities."""
    return np.asarray(logsumexp(logs, axis=1))


def _times(blocks: Sequence[Any], t: np.ndarray) -> np.ndarray:
    """[m, A], all columns and a constant times their weights."""
    at, found = 0, np.tile(t[-1], (blocks[0].shape[0], 1))
    for x in blocks:
        found += np.asarray(x @ t[at : at + x.shape[1]])
        at += x.shape[1]
    return found


def _blocks(vectors: Any) -> list[Any]:
    """Single precision; columns that few rows lack stand together, dense: products are faster so."""
    if not sparse.issparse(vectors):
        return [np.asarray(vectors, np.float32)]
    x: Any = sparse.csc_matrix(vectors, dtype=np.float32)
    full = x.getnnz(0) > 0.5 * x.shape[0]
    parts: list[Any] = [sparse.csr_matrix(x[:, np.flatnonzero(~full)])]
    if full.any():
        parts.append(x[:, np.flatnonzero(full)].toarray())
    return [p for p in parts if p.shape[1]]


def _columns(contexts: Mapping[str, Any]) -> np.ndarray:
    """[n, G] of mean 0 and deviation 1."""
    every: Any = sparse.csr_matrix(sparse.hstack([sparse.csr_matrix(c) for c in contexts.values()]))
    owner = np.zeros(every.shape[1], np.int64)
    found, _ = standardised(every, owner, np.zeros((every.shape[0], 0), np.float32))
    return np.asarray(found, np.float32)
