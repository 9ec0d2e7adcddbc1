"""What a message means, as one of a few dozen acts: the protocol that every codebook keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

from turnwise.envs.dialogue import Message

Side = Literal["agent", "partner", "opening"]
"""whose utterances a codebook reads: a message of the agent; all that is said to it between two of its
messages; all that it knows before its first one (system message, private values, the partner's opening)"""


@dataclass(frozen=True, slots=True)
class Utterance:
    """What one side says in one go, and the talk before it.

    `text` is all of it (messages in a row, one below the other); "" if nothing was said. `acts` are the acts
    that the log itself gives its messages, None where it gives none.
    """

    text: str
    acts: tuple[str | None, ...] = ()
    before: tuple[Message, ...] = ()


class Heard(NamedTuple):
    """How n utterances were read."""

    acts: np.ndarray
    """int64 [n], index into the codebook's `names`"""
    distances: np.ndarray
    """[n], how far each is from what its act stands for: 0 for what was seen before, 1 or more for what the
    codebook puts into its act *other* because it is rare or like nothing"""
    evidence: tuple[np.ndarray | None, ...] = ()
    """[n] of [acts], for words that were never seen: P(words | act) up to a factor, 1 for all acts if they
    say nothing; None for an utterance that is surely its act. Empty if the codebook knows of no doubt"""


class Example(NamedTuple):
    """A sentence of the logs that means an act."""

    template: str
    """as it was said, each name and number a slot such as `{number}` (`slots.py`)"""
    count: int
    """how often it was logged with this act"""
    distance: float
    """how far it is from what the act stands for; 0 is typical"""
    own: tuple[tuple[str, int], ...] = ()
    """(sentence, times): what was said in place of it where the talk before could not fill its slots"""


OTHER = "other"
"""name of the act of what is rare, or like nothing that an act stands for"""


class Codebook(Protocol):
    """Every utterance has exactly one act and a distance, also one that was never seen."""

    @property
    def names(self) -> tuple[str, ...]:
        """Different names, in the order of the acts' numbers. Short enough to be read in a graph."""
        ...

    def read(self, utterances: Sequence[Utterance]) -> Heard:
        """The act of each."""
        ...

    def examples(self, act: int) -> list[Example]:
        """The logged sentences of an act, the most frequent first; none if it has none."""
        ...
