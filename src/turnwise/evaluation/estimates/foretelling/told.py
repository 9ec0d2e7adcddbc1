"""Logged talks as decisions, one after the other: what was meant, in which words, and what followed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from turnwise.data.acts.talks import ActLogs, ActTalk, cut_turns
from turnwise.data.dialogue import Dialogue

FEWEST = 10
"""what follows is one of those that occur so often, or the rest"""
MOST_KINDS = 20
"""kinds of what follows, at most: the rarer ones are one"""
MOST_SYMBOLS = 16
"""acts, and answers, that are told apart in what was exchanged: the rarer ones are one"""
PAYS = 4
"""different rewards that are told apart as they are; more are put into thirds"""


@dataclass(frozen=True)
class Told:
    """M decisions of the agent in N talks."""

    talks: Sequence[ActTalk]
    """[N]"""
    texts: Sequence[str]
    """[M], in which words each act was done"""
    group: np.ndarray
    """[M], equal for what is not independent"""
    symbols: tuple[int, int, int]
    """how many acts, answers (0 is silence) and openings there are"""

    @cached_property
    def sizes(self) -> np.ndarray:
        """[N], decisions of each talk."""
        return np.array([len(t) for t in self.talks])

    @property
    def spans(self) -> Iterator[slice]:
        """Where each talk is among the decisions."""
        ends = np.cumsum(self.sizes)
        return (slice(end - size, end) for end, size in zip(ends.tolist(), self.sizes.tolist(), strict=True))

    @cached_property
    def acts(self) -> np.ndarray:
        """[M]"""
        return np.concatenate([t.acts for t in self.talks])

    @cached_property
    def answers(self) -> np.ndarray:
        """[M], to each act."""
        return np.concatenate([t.answers for t in self.talks])

    @cached_property
    def times(self) -> np.ndarray:
        """[M], the turn, from 0."""
        return np.concatenate([np.arange(len(t)) for t in self.talks])

    @cached_property
    def ended(self) -> np.ndarray:
        """[M] bool, whether the talk came to its end with the answer."""
        return np.concatenate(
            [np.arange(len(t)) == len(t) - 1 if t.terminated else t.acts < 0 for t in self.talks]
        )

    @cached_property
    def known(self) -> np.ndarray:
        """[M] bool, whether it is known what followed: silence in a talk that was cut there is not."""
        return (self.answers > 0) | self.ended | ~self._last

    @cached_property
    def _last(self) -> np.ndarray:
        """[M] bool"""
        return np.concatenate([np.arange(len(t)) == len(t) - 1 for t in self.talks])


def told_of(
    logs: ActLogs,
    dialogues: Sequence[Dialogue],
    clusters: np.ndarray | None,
    most: int,
    rng: np.random.Generator,
) -> Told:
    """Talks drawn at random, with some `most` decisions at most. `dialogues` and `clusters` in the order of
    the logs."""
    order = rng.permutation(len(logs))
    sizes = np.cumsum([len(logs[i]) for i in order.tolist()])
    chosen = order[: int(np.searchsorted(sizes, most)) + 1].tolist()
    talks = [logs[i] for i in chosen]
    cut = [cut_turns(dialogues[i].messages, dialogues[i].agent_role) for i in chosen]
    own = np.arange(len(logs)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    return Told(
        talks,
        [u.text for t in cut for u in t.said],
        np.repeat(own[chosen], [len(t) for t in talks]),
        (len(logs.acts), len(logs.answers), len(logs.openings)),
    )


def pooled(symbols: np.ndarray, most: int) -> tuple[np.ndarray, int]:
    """Symbols [M] numbered anew by how frequent they are, the rarest as one; and how many there are then."""
    names, index, count = np.unique(symbols, return_inverse=True, return_counts=True)
    rank = np.empty(len(names), np.int64)
    rank[np.argsort(-count, kind="stable")] = np.arange(len(names))
    found = np.minimum(rank, most - 1)[index]
    return found, int(found.max()) + 1


def followed_by(told: Told) -> tuple[np.ndarray, int]:
    """(what followed each decision [M], how many kinds): answer, whether it was the end, and reward."""
    pay = np.concatenate([t.rewards for t in told.talks])
    different = np.unique(pay)
    if len(different) > PAYS:
        different = np.unique(np.quantile(pay, [1 / 3, 2 / 3]))
    level = np.searchsorted(different, pay)
    return _kinds((told.answers * 2 + told.ended) * (len(different) + 1) + level, told.known)


def answered_by(told: Told) -> np.ndarray:
    """[M], the answer, and behind all answers once more: the answer with which it ended."""
    return told.answers + told.symbols[1] * told.ended


def _kinds(found: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, int]:
    """Kinds by how frequent they are; rare ones are one."""
    names, count = np.unique(found[known], return_counts=True)
    often = names[count >= FEWEST]
    return pooled(np.where(np.isin(found, often), found, -1), MOST_KINDS)
