"""Sentences made from templates with slots: said with an exact probability, counted, and read back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np

Option = TypeVar("Option")
_SLOT = re.compile(r"{(\w+)}")


class Said(NamedTuple):
    """A sentence, and the natural log of the probability of this wording given its act."""

    text: str
    logp: float


@dataclass(frozen=True)
class Template:
    """A sentence with slots: `I keep dreaming of {x} and {x2}.`

    `slots` has the words of each slot by its name without digits: `x` and `x2` are two different ones.
    """

    text: str
    slots: Mapping[str, Sequence[str]]
    weight: float = 1.0
    """probability of the template given the act"""
    names: tuple[str, ...] = field(init=False)
    """the slots, in order"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(_SLOT.findall(self.text)))

    def options(self, name: str) -> Sequence[str]:
        """The words of a slot."""
        return self.slots[name.rstrip("0123456789")]

    def fill(self, rng: np.random.Generator) -> Said:
        """Words for all slots, uniformly, none of them twice in slots of one kind."""
        chosen: dict[str, str] = {}
        ways = 1
        for name in self.names:
            options = self.options(name)
            if name[-1].isdigit():  # one that its kind has not used yet
                options = [word for word in options if word not in chosen.values()]
            chosen[name] = pick(options, rng)
            ways *= len(options)
        return Said(self.text.format(**chosen), math.log(self.weight / ways))

    def count(self) -> int:
        """In how many ways the slots can be filled."""
        seen: dict[str, int] = {}
        ways = 1
        for name in self.names:
            kind = name.rstrip("0123456789")
            ways *= len(self.options(name)) - seen.get(kind, 0)
            seen[kind] = seen.get(kind, 0) + 1
        return ways

    def pattern(self) -> str:
        """A regular expression of what the template can say, in lower case."""
        parts = _SLOT.split(self.text.lower())
        for i in range(1, len(parts), 2):
            parts[i] = "(?:" + "|".join(re.escape(w.lower()) for w in self.options(self.names[i // 2])) + ")"
        return "".join(re.escape(p) if i % 2 == 0 else p for i, p in enumerate(parts))


@dataclass(frozen=True)
class Grammar:
    """What can be said for each act: one of `starts`, then one of the act's templates, a capital in front.

    The start says nothing: it is drawn uniformly, whatever is meant.
    """

    starts: tuple[str, ...]
    templates: Mapping[str, tuple[Template, ...]]

    def say(self, act: str, rng: np.random.Generator) -> Said:
        """A wording of the act. No two ways lead to one sentence, so that its probability is the way's."""
        templates = self.templates[act]
        start = pick(self.starts, rng)
        body, logp = templates[draw([t.weight for t in templates], rng)].fill(rng)
        text = start + body
        return Said(text[0].upper() + text[1:], logp - math.log(len(self.starts)))

    def read(self, text: str) -> str | None:
        """The act of a sentence of the grammar, exactly; None for any other text."""
        found = self._pattern.fullmatch(text.lower())
        return None if found is None else self._acts[int((found.lastgroup or "g0")[1:])]

    def count(self, act: str) -> int:
        """In how many ways the act can be said."""
        return len(self.starts) * sum(t.count() for t in self.templates[act])

    @cached_property
    def _acts(self) -> list[str]:
        return list(self.templates)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        starts = "|".join(re.escape(s.lower()) for s in self.starts)
        bodies = [
            f"(?P<g{i}>{'|'.join(t.pattern() for t in templates)})"
            for i, templates in enumerate(self.templates.values())
        ]
        return re.compile(f"(?:{starts})(?:{'|'.join(bodies)})")


def halved(grammar: Grammar) -> Grammar:
    """The grammar with every other template of an act, as likely as before among themselves.

    Which half it is changes from act to act, so that a turn of phrase that acts share is in it for some of
    them. An act needs two templates or more.
    """
    half = {}
    for i, (act, templates) in enumerate(grammar.templates.items()):
        kept = templates[i % 2 :: 2]
        share = math.fsum(t.weight for t in kept)
        half[act] = tuple(Template(t.text, t.slots, t.weight / share) for t in kept)
    return Grammar(grammar.starts, half)


Groups = Sequence[tuple[float, Sequence[str]]]
"""the probability of each group of sentences, and the sentences"""


def weighed(groups: Groups, slots: Mapping[str, Sequence[str]]) -> tuple[Template, ...]:
    """Templates of groups (probability of the group, its sentences), which are uniform within a group."""
    return tuple(
        Template(text, slots, share / len(sentences)) for share, sentences in groups for text in sentences
    )


def draw(weights: Sequence[float], rng: np.random.Generator) -> int:
    """An index, with probabilities that add up to 1 but for rounding."""
    left = rng.random()
    for i, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return i
    return len(weights) - 1


def pick(options: Sequence[Option], rng: np.random.Generator) -> Option:
    """One of the options, uniformly."""
    return options[int(rng.random() * len(options))]
