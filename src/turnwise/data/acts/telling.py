"""What acts tell, held out, about what comes after them; and which acts may be one.

    agent    bits about what is answered, and about what the conversation earns from there on
    partner  bits about what is answered to the agent's next message, and about what is earned

in bits per message, over what the turn around tells already: the answer before the agent's message, the
agent's message after an answer. What is answered is one of the finest acts that were found for the partner,
whatever number is left of either side; returns are quartiles. So the measure does not change with the number
of acts: acts that mix meanings tell less, and acts that cut one meaning in two starve the counts. (The
likelihood of the messages keeps rising with more acts, and that of the acts as symbols keeps falling; neither
can choose. The single words of an answer as a bag starve first, and join acts that are not one.)

Each half of the conversations is predicted from the other half. Probabilities are counts with a prior that is
worth some observations: p(y | act, around) leans on p(y | around), or on p(y | act) p(y | around) / p(y),
whichever tells more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from turnwise.data.acts.corpus import Corpus, one_hot

PRIORS = tuple(
    (weight, apart) for weight in (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0) for apart in (True, False)
)
"""(observations that a prior may be worth, whether it knows of the act what it tells by itself)"""


@dataclass(frozen=True)
class Target:
    """What is predicted: a one in `y` [n, V] for what came of each message; a row of zeros for nothing."""

    name: str
    y: sparse.csr_matrix


@dataclass(frozen=True)
class Question:
    """What a side's acts are asked to tell: `around` [n] is what is known anyway, below `size`.

    `conversation` [n] of each message, `half` [n] bool.
    """

    targets: Sequence[Target]
    around: np.ndarray
    size: int
    conversation: np.ndarray
    half: np.ndarray


@dataclass(frozen=True)
class Telling:
    """Bits per message, with the ends of 95% intervals over conversations."""

    mean: float
    low: float
    high: float

    def facts(self) -> dict[str, float]:
        """As JSON has it."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def asked(corpus: Corpus, a: np.ndarray, o: np.ndarray) -> tuple[Question, Question]:
    """What the agent's acts [N] are to tell given the answers before, and the answers [N] given the acts."""
    answers = one_hot(o, int(o.max()) + 1)
    pay = one_hot(corpus.bins, int(corpus.bins.max()) + 1)
    before = np.where(corpus.first, 0, o[np.maximum(np.arange(len(o)) - 1, 0)])
    size = int(a.max()) + 1
    after = np.where(corpus.last, size, a[np.minimum(np.arange(len(a)) + 1, len(a) - 1)])
    rated = corpus.earned is not None
    agent = Question(
        [Target("answer", answers), *([Target("reward", pay)] if rated else [])],
        before,
        int(o.max()) + 1,
        corpus.conversation,
        corpus.half,
    )
    rows = corpus.spoke
    partner = Question(
        [Target("answer", corpus.after(answers)[rows]), *([Target("reward", pay[rows])] if rated else [])],
        after[rows],
        size + 1,
        corpus.conversation[rows],
        corpus.half[rows],
    )
    return agent, partner


def bits_of(question: Question, acts: np.ndarray) -> dict[str, np.ndarray]:
    """What acts [n] tell of each target, [n] bits a message."""
    size = int(acts.max()) + 1
    found = {}
    for target in question.targets:
        best: np.ndarray | None = None
        for weight in PRIORS:
            bits = np.zeros(len(acts))
            for train in (question.half, ~question.half):
                logp = _log2(question, target.y, acts, size, train, weight)
                test = ~train
                cells = acts[test] * question.size + question.around[test]
                bits[test] = np.asarray(target.y[test].multiply(logp[cells]).sum(1)).ravel()
            if best is None or bits.sum() > best.sum():
                best = bits
        assert best is not None
        found[target.name] = best
    return found


def interval(question: Question, bits: np.ndarray) -> Telling:
    """The mean over messages, with its interval over conversations (a ratio of sums)."""
    _, at = np.unique(question.conversation, return_inverse=True)
    sums, sizes = np.bincount(at, weights=bits), np.bincount(at)
    mean = float(sums.sum() / sizes.sum())
    c = len(sizes)
    deviation = float(np.sqrt(((sums - mean * sizes) ** 2).sum() * c / max(c - 1, 1)) / sizes.sum())
    return Telling(mean, mean - 1.96 * deviation, mean + 1.96 * deviation)


@dataclass(frozen=True)
class Joined:
    """Acts joined two at a time: the chosen new number of each act, and all numberings on the way."""

    number: np.ndarray
    path: Sequence[np.ndarray]

    def curve(self, question: Question, acts: np.ndarray) -> list[dict[str, float]]:
        """What each number of acts tells, from one act to all, in bits per message."""
        found = []
        for numbers in reversed(self.path):
            left = np.unique(numbers, return_inverse=True)[1]
            told = interval(question, np.sum(list(bits_of(question, left[acts]).values()), axis=0))
            found.append({"acts": int(left.max()) + 1, **told.facts()})
        return found


def joined(
    question: Question, acts: np.ndarray, count: int | None, apart: Callable[[np.ndarray, np.ndarray], bool]
) -> Joined:
    """Join acts two at a time, each time those that tell least apart.

    The numbering that is chosen is the first in which any two that are left are told apart (`apart` of their
    rows), or that of `count` acts.
    """
    size = int(acts.max()) + 1
    number = np.arange(size)
    tables = [_Table.of(question, t, acts, size) for t in question.targets]
    alive = list(range(size))
    loss = np.full((size, size), np.inf)
    for i in alive:
        for j in alive[i + 1 :]:
            loss[i, j] = sum(t.loss(i, j) for t in tables)
    known: dict[tuple[int, int], bool] = {}
    chosen: np.ndarray | None = None
    path = [number.copy()]
    while len(alive) > 1:
        pairs = sorted((loss[i, j], i, j) for k, i in enumerate(alive) for j in alive[k + 1 :])
        best = pairs[0][1:]
        if chosen is None and count is None:
            for _, i, j in pairs:
                if (i, j) not in known:
                    known[i, j] = apart(*(np.flatnonzero(number[acts] == k) for k in (i, j)))
                if not known[i, j]:
                    best = i, j
                    break
            else:
                chosen = number.copy()
        elif chosen is None and count is not None and len(alive) <= count:
            chosen = number.copy()
        i, j = best
        for t in tables:
            t.join(i, j)
        number[number == j] = i
        alive.remove(j)
        known = {pair: told for pair, told in known.items() if i not in pair and j not in pair}
        for k in alive:
            if k != i:
                loss[min(i, k), max(i, k)] = sum(t.loss(min(i, k), max(i, k)) for t in tables)
        path.append(number.copy())
    final = number if chosen is None else chosen
    return Joined(np.unique(final, return_inverse=True)[1], path)


@dataclass
class _Table:
    """Counts of a target by act and by what is around, of both halves, and what they are worth."""

    counts: np.ndarray
    """[2, A, Z, V]"""
    weight: Prior
    alone: np.ndarray
    """[2, A], log-likelihood of each act's messages under the other half's counts"""

    @classmethod
    def of(cls, question: Question, target: Target, acts: np.ndarray, size: int) -> _Table:
        cells = acts * question.size + question.around
        counts = np.stack(
            [
                (one_hot(cells[h], size * question.size).T @ target.y[h]).toarray()
                for h in (question.half, ~question.half)
            ]
        ).reshape(2, size, question.size, -1)
        best: _Table | None = None
        for weight in PRIORS:
            made = cls(counts, weight, np.zeros((2, size)))
            made.alone = np.array([made._worth(counts[:, k]) for k in range(size)]).T
            if best is None or made.alone.sum() > best.alone.sum():
                best = made
        assert best is not None
        return best

    def _worth(self, c: np.ndarray) -> np.ndarray:
        """[2], log-likelihood of counts [2, Z, V] of one act, each half under the other."""
        found = []
        for train, test in ((0, 1), (1, 0)):
            everything = self.counts[train].sum(0)  # joining changes no sum over acts
            p = _probabilities(c[train], everything, self.weight)
            found.append((c[test] * np.log2(p)).sum())
        return np.array(found)

    def loss(self, i: int, j: int) -> float:
        """Bits that are lost if two acts are one."""
        both = self._worth(self.counts[:, i] + self.counts[:, j])
        return float(self.alone[:, i].sum() + self.alone[:, j].sum() - both.sum())

    def join(self, i: int, j: int) -> None:
        self.counts[:, i] += self.counts[:, j]
        self.counts[:, j] = 0
        self.alone[:, i] = self._worth(self.counts[:, i])
        self.alone[:, j] = 0


Prior = tuple[float, bool]


def _probabilities(own: np.ndarray, everything: np.ndarray, worth: Prior) -> np.ndarray:
    """[Z, V], p(y | act, around) from an act's counts [Z, V] and those of all acts together."""
    weight, alone = worth
    p = everything.sum(0) + 0.5
    p = p / p.sum()
    around = (everything + 3 * p) / (everything.sum(1, keepdims=True) + 3)
    act = (own.sum(0) + weight * p) / (own.sum() + weight) if alone else p
    prior = act * around / p
    prior /= prior.sum(1, keepdims=True)
    return (own + weight * prior) / (own.sum(1, keepdims=True) + weight)


def _log2(
    question: Question, y: sparse.csr_matrix, acts: np.ndarray, size: int, train: np.ndarray, worth: Prior
) -> np.ndarray:
    """[A Z, V], log2 of p(y | act, around) over p(y | around)."""
    cells = acts[train] * question.size + question.around[train]
    counts = (one_hot(cells, size * question.size).T @ y[train]).toarray().reshape(size, question.size, -1)
    everything = counts.sum(0)
    p = everything.sum(0) + 0.5
    p = p / p.sum()
    around = (everything + 3 * p) / (everything.sum(1, keepdims=True) + 3)
    found = np.stack([np.log2(_probabilities(c, everything, worth)) for c in counts]) - np.log2(around)
    return found.reshape(size * question.size, -1)
