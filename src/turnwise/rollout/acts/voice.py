"""From an act to words: sentences of the log, or a language model's replies that mean the act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from turnwise.envs.dialogue import Message
from turnwise.rollout.acts.chooser import draw

Talk = Sequence[Message]


class Said(NamedTuple):
    """Words, and where they come from: a sentence of the log, or a language model."""

    text: str
    source: str


class Voice(Protocol):
    """Words an act. It remembers nothing."""

    @property
    def speakable(self) -> np.ndarray:
        """[A] bool, the acts that it has words for."""
        ...

    def say(
        self, acts: Sequence[int], talks: Sequence[Talk], rngs: Sequence[np.random.Generator]
    ) -> list[Said]:
        """Words for an act in each of the talks; chances of a talk come from its own generator."""
        ...


@dataclass(frozen=True)
class LoggedVoice:
    """Says what the logged agent said when it meant the act, each sentence as often as it did.

    `phrases` [A] are (sentence, times that it was logged); empty for an act without a sentence.
    """

    phrases: tuple[tuple[tuple[str, int], ...], ...]

    @property
    def speakable(self) -> np.ndarray:
        """[A] bool, the acts with a sentence."""
        return np.array([bool(p) for p in self.phrases], bool)

    def say(
        self, acts: Sequence[int], talks: Sequence[Talk], rngs: Sequence[np.random.Generator]
    ) -> list[Said]:
        """One of the act's sentences for each talk. ValueError for an act without one."""
        return [Said(self._sentence(act, rng), "logged") for act, rng in zip(acts, rngs, strict=True)]

    def _sentence(self, act: int, rng: np.random.Generator) -> str:
        known = self.phrases[act]
        if not known:
            raise ValueError(f"act {act} has no sentence; expected one that is speakable")
        return known[draw(np.array([count for _, count in known], np.float64), rng)][0]
