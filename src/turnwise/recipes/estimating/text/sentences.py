"""Logged messages told apart by what they say, without case and punctuation: for coverage and for values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.data.acts.slots import normalised
from turnwise.data.dialogue import spoken
from turnwise.recipes.estimating.text.steps import TurnSteps

SHOWN = 60
"""characters of a sentence that are shown"""


@dataclass(frozen=True)
class Sentences:
    """What was said at each turn, and kinds of histories before it."""

    said: np.ndarray
    """[B, A] int, the same number for the same sentence of the agent"""
    histories: tuple[np.ndarray, ...]
    """[B, A] int each, from fine to coarse: turn, its own last sentence and what was said since; turn and
    what was said since"""
    numbers: dict[str, int]
    """sentences of the agent; what is read later joins them"""

    @classmethod
    def of(cls, steps: TurnSteps) -> Sentences:
        """Those of conversations."""
        numbers, heard = dict[str, int](), dict[str, int]()
        said = np.zeros(steps.mask.shape, np.int64)
        fine, coarse = np.zeros_like(said), np.zeros_like(said)
        kinds = dict[tuple[int, ...], int]()
        for b, d in enumerate(steps.dialogues):
            k, last, since = 0, -1, list[str]()
            for m in d.messages:
                if m.role != d.agent_role:
                    since.append(_plain(spoken(m)))
                    continue
                answer = heard.setdefault("\n".join(since), len(heard))
                fine[b, k] = kinds.setdefault((k, answer, last), len(kinds))
                coarse[b, k] = kinds.setdefault((k, answer), len(kinds))
                last = said[b, k] = numbers.setdefault(_plain(spoken(m)), len(numbers))
                k, since = k + 1, []
        return cls(said, (fine, coarse), numbers)

    def read(self, texts: Sequence[str]) -> np.ndarray:
        """[N] int; a sentence that was never logged has a number behind all that were."""
        return np.array([self.numbers.setdefault(_plain(x), len(self.numbers)) for x in texts], np.int64)

    @property
    def names(self) -> list[str]:
        """The sentences as people read them, by number."""
        return [f"{x[:SHOWN]}..." if len(x) > SHOWN else x or "(nothing)" for x in self.numbers]


def spelt(
    histories: Sequence[np.ndarray], tokens: Sequence[np.ndarray], mask: np.ndarray
) -> list[np.ndarray]:
    """[N] int each, kinds of histories of every token: that of its turn (`histories` [B, A] each, `mask` of
    turns) and the tokens of the message before it; and at last these tokens and the turn alone. `tokens` [M]
    are those of each message."""
    turns = np.tile(np.arange(mask.shape[1]), (len(mask), 1))
    found = []
    for begin in (x[mask].tolist() for x in (*histories, turns)):
        kinds, told = dict[tuple[int, int], int](), list[int]()
        for kind, ids in zip(begin, tokens, strict=True):
            at = kinds.setdefault((-1, kind), len(kinds))
            for token in ids.tolist():
                told.append(at)
                at = kinds.setdefault((at, token), len(kinds))
        found.append(np.array(told, np.int64))
    return found


def _plain(text: str) -> str:
    return normalised(text) or text.strip()
