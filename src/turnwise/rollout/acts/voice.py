"""From an act to words: sentences of the log, or a language model's replies that mean the act."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from turnwise.data.acts.codebook import Example, Utterance
from turnwise.data.acts.phrases import PhraseBook
from turnwise.data.acts.slots import Slots, filled, kinds_of
from turnwise.envs.dialogue import Message
from turnwise.rollout.acts.chooser import draw

Talk = Sequence[Message]


NO_NAMES = Slots()
CLEAR = 0.1
"""share of what was logged of an act that is said again: the clearest sentences"""
FEWEST = 20
"""sentences of an act, at least, if it has as many"""


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

    def speakable_in(self, talk: Talk) -> np.ndarray:
        """[A] bool, the acts that it has words for in this talk, whose names and numbers fill its slots."""
        ...

    def say(
        self, acts: Sequence[int], talks: Sequence[Talk], rngs: Sequence[np.random.Generator]
    ) -> list[Said | None]:
        """Words for an act in each of the talks, None if there are none in it.

        Chances of a talk come from its own generator.
        """
        ...


@dataclass(frozen=True)
class LoggedVoice:
    """Says what the logged agent said when it meant the act, each sentence as often as it did.

    `phrases` [A] are (template, times that it was logged); empty for an act without a sentence. Slots of a
    template are filled with what stands in such slots of the conversation, the latest first. Where the
    conversation has nothing for them, the agent's own words are said if the template has any in `own`
    (`slots.own_words`): numbers that the logged agent made up itself. Otherwise the sentence is not said.
    What others brought into a conversation is said in no other.
    """

    phrases: tuple[tuple[tuple[str, int], ...], ...]
    slots: Slots = NO_NAMES
    own: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, book: PhraseBook) -> LoggedVoice:
        """The sentences of a codebook that it reads as the act that they are for.

        A sentence that was logged with several acts may be read as another one: it is said only for an act
        that has no better ones. Of acts that were discovered only the clearest sentences are said: those far
        from what the act stands for are the ones that may mean something else.
        """
        found, own = [], dict[str, tuple[tuple[str, int], ...]]()
        for act in range(len(book.names)):
            examples = book.examples(act)
            plain = [Utterance(e.template.replace("{{", "{").replace("}}", "}"), (None,)) for e in examples]
            # A function may look at what was said before, which is not known here.
            read = book.read(plain).acts if plain and book.way != "function" else [act] * len(plain)
            # What stands in a slot is not known here, and a sentence with slots is taken at its word.
            fits = [e for e, a in zip(examples, read, strict=True) if a == act or kinds_of(e.template)]
            slotted = [e for e in fits or examples if kinds_of(e.template)]
            clear = [*_clearest(e for e in fits or examples if not kinds_of(e.template)), *_clearest(slotted)]
            found.append(tuple((e.template, e.count) for e in clear))
            own |= {e.template: e.own for e in clear if e.own}
        return cls(tuple(found), book.slots, own)

    @property
    def speakable(self) -> np.ndarray:
        """[A] bool, the acts with a sentence."""
        return np.array([bool(p) for p in self.phrases], bool)

    def speakable_in(self, talk: Talk) -> np.ndarray:
        """[A] bool, the acts with a sentence that the talk can fill, or with words of the agent's own."""
        if self._always:
            return self.speakable
        known = set(self.slots.values(talk))
        return np.array([any(self._forms(text, known) for text, _ in own) for own in self.phrases], bool)

    @cached_property
    def _always(self) -> bool:
        """Whether every act that has a sentence has one without slots."""
        return all(any(not kinds_of(text) for text, _ in own) for own in self.phrases if own)

    def say(
        self, acts: Sequence[int], talks: Sequence[Talk], rngs: Sequence[np.random.Generator]
    ) -> list[Said | None]:
        """One of the act's sentences for each talk."""
        return [self._sentence(*each) for each in zip(acts, talks, rngs, strict=True)]

    def _sentence(self, act: int, talk: Talk, rng: np.random.Generator) -> Said | None:
        own = self.phrases[act]
        values = self.slots.values(talk) if any(kinds_of(text) for text, _ in own) else {}
        # An act may have thousands of sentences: only the one that is drawn is filled.
        can = [(forms, n) for text, n in own if (forms := self._forms(text, values))]
        if not can:
            return None
        forms = can[_drawn(can, rng)][0]
        template = forms[0 if len(forms) == 1 else _drawn(forms, rng)][0]
        text = filled(template, values)
        return None if text is None else Said(text, "logged")

    def _forms(self, template: str, known: Collection[str]) -> tuple[tuple[str, int], ...]:
        """How the sentence can be said with values of these kinds: (template, times) each."""
        if all(kind in known for kind in kinds_of(template)):
            return ((template, 1),)
        return tuple(
            each for each in self.own.get(template, ()) if all(kind in known for kind in kinds_of(each[0]))
        )


def _clearest(examples: Iterable[Example]) -> list[Example]:
    """The nearest sentences that make up `CLEAR` of what was logged, `FEWEST` at least, and all as near."""
    near = sorted(examples, key=lambda e: e.distance)
    enough = CLEAR * sum(e.count for e in near)
    said, limit = 0, np.inf
    for i, e in enumerate(near, 1):
        said += e.count
        if said >= enough and i >= FEWEST:
            limit = e.distance
            break
    return [e for e in near if e.distance <= limit]


def _drawn(weighted: Sequence[tuple[Any, int]], rng: np.random.Generator) -> int:
    """The place of one of (what, times), drawn as often."""
    return draw(np.array([n for _, n in weighted], np.float64), rng)
