"""Turns of many conversations in one line, and what stands around each of them.

Row n is a message of the agent and what was said after it. All contexts are matrices with a row for each n:
what came next, what came before, what the conversation earned from there on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from turnwise.data.acts.codebook import Utterance
from turnwise.data.acts.talks import Turns, cut_turns
from turnwise.data.dialogue import Dialogue

TURNS = 40_000
"""turns, at most, from which acts are discovered: whole conversations, drawn at random"""
BINS = 4
"""returns are told apart by quartiles"""
RARE = 20
"""what stands in fewer rows is no context"""


@dataclass(frozen=True)
class Corpus:
    """N turns of C conversations, one after another.

    `said` [N], `heard` [N] (None is silence), `opening` [C]. `conversation` [N] is a number from 0 to C - 1.
    `earned` [N] is the sum of the rewards from that turn on, None if nobody rated the conversations.
    """

    said: Sequence[Utterance]
    heard: Sequence[Utterance | None]
    opening: Sequence[Utterance]
    conversation: np.ndarray
    earned: np.ndarray | None

    @classmethod
    def of(cls, dialogues: Sequence[Dialogue], rng: np.random.Generator, most: int = TURNS) -> Corpus:
        """The turns of conversations, or of as many of them, drawn at random, as have `most` turns."""
        lengths = np.array([len(d.turns) for d in dialogues])
        chosen = np.arange(len(dialogues))
        if lengths.sum() > most:
            order = rng.permutation(len(dialogues))
            chosen = np.sort(order[: max(1, int(np.searchsorted(np.cumsum(lengths[order]), most)))])
        picked = [dialogues[int(i)] for i in chosen]
        turns: list[Turns] = [cut_turns(d.messages, d.agent_role) for d in picked]
        rewards = [np.array([m.reward for m in d.turns], np.float64) for d in picked]
        rated = any(d.rated_by != "nothing" for d in picked)
        return cls(
            [u for t in turns for u in t.said],
            [u for t in turns for u in t.heard],
            [t.opening for t in turns],
            np.repeat(np.arange(len(picked)), [len(t.said) for t in turns]),
            np.concatenate([np.cumsum(r[::-1])[::-1] for r in rewards]) if rated else None,
        )

    def __len__(self) -> int:
        return len(self.said)

    @cached_property
    def first(self) -> np.ndarray:
        """[N] bool, the first turn of its conversation."""
        return np.append(True, self.conversation[1:] != self.conversation[:-1])

    @cached_property
    def last(self) -> np.ndarray:
        """[N] bool, the last turn of its conversation."""
        return np.append(self.first[1:], True)

    @cached_property
    def starts(self) -> np.ndarray:
        """[C], row of the first turn."""
        return np.flatnonzero(self.first)

    @cached_property
    def spoke(self) -> np.ndarray:
        """Rows in which the agent was answered."""
        return np.array([i for i, u in enumerate(self.heard) if u is not None], np.int64)

    @cached_property
    def half(self) -> np.ndarray:
        """[N] bool, every second conversation."""
        return self.conversation % 2 == 0

    @cached_property
    def bins(self) -> np.ndarray:
        """[N], quartile of what was earned; all 0 if nothing was."""
        if self.earned is None:
            return np.zeros(len(self), np.int64)
        edges = np.unique(np.quantile(self.earned, np.linspace(0, 1, BINS + 1)[1:-1]))
        return np.searchsorted(edges, self.earned, side="right")

    def before(self, x: Any) -> sparse.csr_matrix:
        """Rows of the turn before; zeros at a first turn."""
        rows = np.maximum(np.arange(len(self)) - 1, 0)
        return kept(~self.first, sparse.csr_matrix(x)[rows])

    def after(self, x: Any) -> sparse.csr_matrix:
        """Rows of the turn after; zeros at a last turn."""
        rows = np.minimum(np.arange(len(self)) + 1, len(self) - 1)
        return kept(~self.last, sparse.csr_matrix(x)[rows])

    def earlier_and_later(self, x: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """[N, G] each, sums over the turns before and over those after, of the same conversation."""
        dense = x.toarray().astype(np.float32)
        up = np.cumsum(dense, 0, dtype=np.float64)
        start = self.starts
        base = np.vstack([np.zeros((1, dense.shape[1])), up])[start][self.conversation]
        whole = np.add.reduceat(dense, start, axis=0)[self.conversation]
        earlier = up - dense - base
        return earlier.astype(np.float32), (whole - earlier - dense).astype(np.float32)


def one_hot(codes: np.ndarray, size: int) -> sparse.csr_matrix:
    """[n, size], a one in the column of each code."""
    n = len(codes)
    return sparse.csr_matrix((np.ones(n, np.float32), (np.arange(n), codes)), (n, size))


def frequent(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """The columns that stand in enough rows."""
    return x[:, np.flatnonzero(x.getnnz(0) >= RARE)]


def kept(rows: np.ndarray, x: Any) -> sparse.csr_matrix:
    """Zeros in all other rows."""
    return sparse.csr_matrix(sparse.diags(rows.astype(np.float32)) @ x)


def times(x: Any, switches: sparse.csr_matrix) -> sparse.csr_matrix:
    """[n, G S], each column of x where each switch is on."""
    x = sparse.csr_matrix(x)
    on = switches.toarray().T
    return sparse.csr_matrix(sparse.hstack([kept(column, x) for column in on]))
