"""Who gets what at the end of a negotiation, read off its words by a log-linear model.

    P(division | dialogue)  is proportional to  exp(score),
    score(division)     = sum over items i of w.u(i, share of i) + w.v(division),
    score(no agreement) = w.n

over every division of the items, and "no agreement". The features u, v and n (`features`) compare a division
with what the utterances claim (`claims`), latest first, and with the words around. They are hashed into one
weight vector. They know the counts and the words, never the private values. Everything is said relative
to the speaker of an utterance and to the first speaker of the dialogue, so that exchanging the two sides
gives exactly the complementary division. The labels are what the two humans wrote down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from turnwise.envs.tasks.negotiation.claims import read_claims
from turnwise.envs.tasks.negotiation.corpus import Recording
from turnwise.envs.tasks.negotiation.features import WIDTH, Talk, features, refused, talk_of
from turnwise.envs.tasks.negotiation.game import SELECTION, Turn
from turnwise.envs.tasks.negotiation.scenarios import Triple, divisions, remainder

PENALTY = 3.0  # weight of half the squared weights; chosen on the training and validation splits


def fit_reader(rows: Iterable[Recording], penalty: float = PENALTY, steps: int = 80) -> AllocationReader:
    """Maximise the penalised likelihood of what the humans wrote down. Each conversation counts once.

    Rows are passed over if their two sides contradict each other or if they were disconnected: they say
    nothing about the words. People hardly ever close a talk that a refusal has just left open, but policies
    may. So the same conversations, broken off after a refusal (`refused`), are added as examples of no
    agreement. Deterministic. ValueError if nothing is left.
    """
    examples: dict[tuple[Triple, Talk], Triple | None] = {}
    for n in rows:
        share = n.selection
        if not n.disconnected and (n.agreed or share is None):
            if share is not None and n.turns[0][0] == "them":
                share = remainder(n.counts, share)
            examples[n.counts, talk_of(n.turns)] = share
            for t in refused(n.turns):
                closer: Turn = ("me" if n.turns[t][0] == "them" else "them", SELECTION)
                examples.setdefault((n.counts, talk_of([*n.turns[: t + 1], closer])), None)
    if not examples:
        raise ValueError("no finished negotiation to fit the reading on")
    design = _Design(examples)
    return AllocationReader(_minimise(lambda w: design.loss(w, penalty), np.zeros(WIDTH), steps))


@dataclass(frozen=True)
class AllocationReader:
    """Reads finished negotiations; `weights` come from `fit_reader`."""

    weights: np.ndarray

    def probabilities(self, counts: Triple, turns: Sequence[Turn]) -> dict[Triple | None, float]:
        """The probability of every share of "me", and of no agreement (None). ValueError without a turn."""
        per_share, whole = features(counts, talk_of(turns))
        worth = [[self.weights[ids].sum() for ids in item] for item in per_share]
        shares = divisions(counts)
        scores = np.array([self.weights[ids].sum() for ids in whole])
        scores[:-1] += [worth[0][i] + worth[1][j] + worth[2][k] for i, j, k in shares]
        p = np.exp(scores - scores.max())
        mine = shares if turns[0][0] == "me" else [remainder(counts, s) for s in shares]
        return dict(zip([*mine, None], (p / p.sum()).tolist(), strict=True))

    def read(self, counts: Triple, turns: Sequence[Turn]) -> Triple | None:
        """The likeliest share of "me"; None for no agreement, also if nobody claims a thing."""
        if not any(read_claims(text)[1] for _, text in turns):
            return None
        p = self.probabilities(counts, turns)
        return max(p, key=p.__getitem__)

    def save(self, path: Path) -> None:
        """Write the weights as npz."""
        np.savez_compressed(path, weights=self.weights)

    @staticmethod
    def load(path: Path) -> AllocationReader:
        """Read what `save` wrote. ValueError for weights of another width."""
        with np.load(path) as file:
            weights = file["weights"]
        if weights.shape != (WIDTH,):
            raise ValueError(f"{path}: weights of shape {weights.shape}; expected ({WIDTH},)")
        return AllocationReader(weights)


def agreement(reader: AllocationReader, rows: Iterable[Recording]) -> dict[str, tuple[int, int]]:
    """How often the reading is exactly what the humans wrote down, as (rows read right, rows).

    Rows are counted by how they ended: "agreed"; "no agreement" (this side wrote that); "contradictory" (the
    sides wrote different things, nobody has points, and "no agreement" counts as right). Disconnected rows
    are passed over.
    """
    found = {"agreed": (0, 0), "no agreement": (0, 0), "contradictory": (0, 0)}
    for n in rows:
        if not n.disconnected:
            kind = "agreed" if n.agreed else "no agreement" if n.selection is None else "contradictory"
            right, total = found[kind]
            hit = reader.read(n.counts, n.turns) == (n.selection if n.agreed else None)
            found[kind] = (right + hit, total + 1)
    return found


class _Design:
    """The features of all examples as flat arrays, so that a loss is a handful of sums over indices.

    A *cell* is a share of one item in one example, an *option* a division or "no agreement". Each feature id
    comes with the cell or the option that it describes.
    """

    def __init__(self, examples: Mapping[tuple[Triple, Talk], Triple | None]) -> None:
        cells: list[list[int]] = []
        options: list[list[int]] = []
        parts: list[tuple[int, int, int]] = []  # the three cells of an option; -1 for no agreement
        starts, labels = [], []
        for (counts, talk), label in examples.items():
            per_share, whole = features(counts, talk)
            shares = divisions(counts)
            first = np.cumsum([len(cells), counts[0] + 1, counts[1] + 1]).tolist()
            starts.append(len(options))
            labels.append(len(options) + (len(shares) if label is None else shares.index(label)))
            cells += [ids for item in per_share for ids in item]
            options += whole
            parts += [(first[0] + i, first[1] + j, first[2] + k) for i, j, k in shares] + [(-1, -1, -1)]
        cells.append([])  # the empty cell that -1 points at
        self._cell_ids, self._cell_of = _flat(cells)
        self._ids, self._option_of = _flat(options)
        self._parts = np.array(parts) % len(cells)
        self._cells, self._starts, self._labels = len(cells), np.array(starts), np.array(labels)
        self._sizes = np.diff([*starts, len(options)])

    def loss(self, w: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """Minus the log-likelihood plus penalty/2 |w|^2, and its gradient."""
        worth = np.bincount(self._cell_of, w[self._cell_ids], self._cells)
        n = len(self._parts)
        scores = worth[self._parts].sum(1) + np.bincount(self._option_of, w[self._ids], n)
        top = np.maximum.reduceat(scores, self._starts)
        z = np.add.reduceat(np.exp(scores - np.repeat(top, self._sizes)), self._starts)
        logp = scores - np.repeat(top + np.log(z), self._sizes)
        g = np.exp(logp)
        g[self._labels] -= 1
        g_cells = np.bincount(self._parts.ravel(), np.repeat(g, 3), self._cells)
        gradient = np.bincount(self._cell_ids, g_cells[self._cell_of], WIDTH)
        gradient += np.bincount(self._ids, g[self._option_of], WIDTH) + penalty * w
        return float(penalty / 2 * (w @ w) - logp[self._labels].sum()), gradient


def _flat(lists: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    ids = np.fromiter((i for ids in lists for i in ids), dtype=np.int64)
    return ids, np.repeat(np.arange(len(lists)), [len(ids) for ids in lists])


def _minimise(
    f: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray, steps: int, memory: int = 10
) -> np.ndarray:
    """L-BFGS with backtracking (Nocedal and Wright, Numerical Optimization, algorithm 7.5)."""
    value, g = f(x)
    pairs: list[tuple[np.ndarray, np.ndarray, float]] = []
    for _ in range(steps):
        q, alphas = g.copy(), []
        for s, y, rho in reversed(pairs):
            alphas.append(rho * (s @ q))
            q -= alphas[-1] * y
        q *= 1 / (pairs[-1][2] * (pairs[-1][1] @ pairs[-1][1])) if pairs else 1 / max(1.0, np.linalg.norm(g))
        for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
            q += s * (alpha - rho * (y @ q))
        size, slope = 1.0, g @ q
        after, g_after = f(x - q)
        while after > value - 1e-4 * size * slope and size > 1e-6:
            size /= 2
            after, g_after = f(x - size * q)
        s, y = -size * q, g_after - g
        if s @ y > 1e-10:
            pairs = [*pairs, (s, y, 1 / (s @ y))][-memory:]
        converged = value - after <= 1e-5 * abs(after)
        x, value, g = x + s, after, g_after
        if converged:
            break
    return x
