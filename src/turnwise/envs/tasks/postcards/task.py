"""Postcards: one turn in which the truth is known.

A prompt asks for a postcard from a place, to somebody, in a tone. What a reply is worth, its *gold*, is a
fixed rule over its words (`postcards_rule`); the best reply to every prompt is known exactly
(`postcards_best`). A writer of mediocre postcards makes the replies that annotators compare. So whatever is
learnt from their comparisons can be held against what they compared, and over-optimisation is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message, Response
from turnwise.envs.tasks.postcards.exact import best_words
from turnwise.envs.tasks.postcards.rule import (
    FOLLOWS,
    LEXICON,
    NAMES,
    PLACES,
    TONES,
    WORDS,
    Ask,
    terms_of,
    wanted,
    words_of,
    worths,
)

Prompt = tuple[Message, ...]

ASKS = tuple(Ask(*ask) for ask in product(PLACES, NAMES, TONES))
HELD_OUT = 4  # one prompt of so many is held out; every pair of attributes occurs among the others

LENGTH, LENGTH_SD, SHORTEST, LONGEST_WRITTEN = 8.0, 3.0, 2, 16
SKILL = (0.2, 0.8)  # uniform; with this probability each choice is the right one, else it is any
GREETS, CLOSES = 0.6, 0.5  # probability that the writer greets, and closes

_MIDDLE = tuple(kind for kind in LEXICON if kind not in ("greeting", "closing"))
_NEXT = {
    kind: tuple(after for after in _MIDDLE if FOLLOWS[kind, after] > 0) or _MIDDLE
    for kind in (*_MIDDLE, "greeting")
}


def wording(ask: Ask) -> str:
    """The prompt's words."""
    return f"Write a {ask.tone} postcard from the {ask.place} to my {ask.name}."


_ASK_OF = {wording(ask): ask for ask in ASKS}
_worths = cache(worths)
_wanted = cache(wanted)


@cache
def _best(ask: Ask) -> tuple[float, str]:
    value, words = best_words(_worths(ask))
    return value, " ".join(words)


def ask_of(prompt: Sequence[Message]) -> Ask:
    """What the prompt's last message asks for; ValueError if that is no prompt of this task."""
    ask = _ASK_OF.get(prompt[-1].content) if prompt else None
    if ask is None:
        found = repr(prompt[-1].content) if prompt else "no message"
        expected = f"the request for a postcard, as in {wording(ASKS[0])!r}"
        raise ValueError(f"prompt: expected {expected}; found {found}")
    return ask


class Postcards:
    """The task: prompts, the writer, gold; and behind `DialogueTask`, conversations of one turn.

    The reward of a reply is its gold, and the conversation terminates with it.
    """

    name = "postcards"

    def __init__(self, asked: Sequence[Prompt] | None = None) -> None:
        """`asked`: the prompts that `reset` draws from, uniformly; all of them if none are given."""
        self._asked = tuple(asked) if asked is not None else tuple(self.prompts())
        self._lanes: dict[int, Prompt] = {}
        self._over: set[int] = set()

    @staticmethod
    def prompts() -> list[Prompt]:
        """All 192, each one message of the user."""
        return [(Message("user", wording(ask)),) for ask in ASKS]

    def split(self) -> tuple[list[Prompt], list[Prompt]]:
        """144 to learn from and 48 held out; each pair of two attributes is among the 144."""
        groups: tuple[list[Prompt], list[Prompt]] = ([], [])
        indices = product(range(len(PLACES)), range(len(NAMES)), range(len(TONES)))
        for (place, name, tone), prompt in zip(indices, self.prompts(), strict=True):
            groups[(place + name + tone) % HELD_OUT == 0].append(prompt)
        return groups

    def gold(self, prompt: Sequence[Message], reply: str) -> float:
        """What the reply is worth; any text has a worth."""
        return sum(self.terms(prompt, reply).values())

    def terms(self, prompt: Sequence[Message], reply: str) -> dict[str, float]:
        """The parts that gold is the sum of."""
        return terms_of(words_of(reply), _worths(ask_of(prompt)))

    def best_value(self, prompt: Sequence[Message]) -> float:
        """The most gold that any text has."""
        return _best(ask_of(prompt))[0]

    def best_reply(self, prompt: Sequence[Message]) -> str:
        """A reply that has it."""
        return _best(ask_of(prompt))[1]

    def write(self, prompt: Sequence[Message], rng: np.random.Generator) -> str:
        """A postcard of the mediocre writer, whose skill differs from card to card."""
        return " ".join(_written(_wanted(ask_of(prompt)), rng))

    def babble(self, rng: np.random.Generator) -> str:
        """Any words of the lexicon, as many as the writer would use."""
        return " ".join(WORDS[int(rng.random() * len(WORDS))] for _ in range(_length(rng)))

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[Prompt]:
        """A prompt for each lane, drawn from its seed."""
        for lane, seed in zip(lanes, seeds, strict=True):
            prompt = _any(self._asked, np.random.default_rng(seed).random())
            self._lanes[lane] = prompt
            self._over.discard(lane)
        return [self._lanes[lane] for lane in lanes]

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """The reward of each reply is its gold. ValueError for a lane whose card is written."""
        return [self._receive(lane, reply) for lane, reply in zip(lanes, replies, strict=True)]

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """What was asked for, and the most gold there was."""
        ask = ask_of(self._lanes[lane])
        return {**ask._asdict(), "best": _best(ask)[0]}

    def _receive(self, lane: int, reply: str) -> Response:
        if lane in self._over:
            raise ValueError(f"lane {lane}: the conversation is over; reset the lane first")
        self._over.add(lane)
        terms = self.terms(self._lanes[lane], reply)
        return Response((), sum(terms.values()), terminated=True, info=terms)


def _length(rng: np.random.Generator) -> int:
    return min(max(round(rng.normal(LENGTH, LENGTH_SD)), SHORTEST), LONGEST_WRITTEN)


def _any(options: Sequence[Any], u: float) -> Any:
    return options[int(u * len(options))]


def _written(fits: Mapping[str, tuple[str, ...]], rng: np.random.Generator) -> list[str]:
    """Words one after another: the kind, then the word; each is right with the probability `skill`.

    A right kind is a good successor of the last (any kind behind a bad end), a right word one that fits.
    """
    n = _length(rng)
    u = iter(rng.random(4 * n + 8).tolist())
    skill = SKILL[0] + (SKILL[1] - SKILL[0]) * next(u)
    words: list[str] = []
    kind = ""

    def add(kind: str) -> None:
        options = fits[kind] if kind in fits and next(u) < skill else LEXICON[kind]
        words.append(_any(options, next(u)))

    if next(u) < GREETS:
        kind = "greeting"
        add(kind)
    closes = next(u) < CLOSES
    while len(words) < n - closes:
        kind = _any(_NEXT[kind] if kind and next(u) < skill else _MIDDLE, next(u))
        add(kind)
    if closes:
        add("closing")
    return words
