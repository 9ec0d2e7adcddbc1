"""A voice of a language model: of several replies of a clone, one that is read as the act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.data.acts.codebook import Codebook, Utterance
from turnwise.rollout.acts.clone import Clone
from turnwise.rollout.acts.voice import LoggedVoice, Said, Talk


@dataclass(frozen=True)
class ModelVoice:
    """Lets the clone propose `tries` replies, and says the first one that the codebook reads as the act.

    If none is (or none is familiar: its distance is 1 or more), a logged sentence is said.
    """

    clone: Clone
    codebook: Codebook
    logged: LoggedVoice
    tries: int = 4

    @property
    def speakable(self) -> np.ndarray:
        """[A] bool, the acts with a logged sentence: a clone promises nothing."""
        return self.logged.speakable

    def speakable_in(self, talk: Talk) -> np.ndarray:
        """[A] bool, the acts with a logged sentence that the talk can fill."""
        return self.logged.speakable_in(talk)

    def say(
        self, acts: Sequence[int], talks: Sequence[Talk], rngs: Sequence[np.random.Generator]
    ) -> list[Said | None]:
        """Words for an act in each of the talks."""
        offered = self.clone.proposals(talks, rngs, self.tries)
        texts = [
            (Utterance(text, (None,), tuple(talk)))
            for own, talk in zip(offered, talks, strict=True)
            for text in own
        ]
        found: list[Said | None] = []
        heard = self.codebook.read(texts) if texts else None
        at = 0
        for act, own, talk, rng in zip(acts, offered, talks, rngs, strict=True):
            here, at = slice(at, at + len(own)), at + len(own)
            fits: list[str] = []
            if heard is not None:
                means_it = (heard.acts[here] == act) & (heard.distances[here] < 1)
                fits = [text for text, fit in zip(own, means_it, strict=True) if fit]
            found += [Said(fits[0], "model")] if fits else self.logged.say([act], [talk], [rng])
        return found
