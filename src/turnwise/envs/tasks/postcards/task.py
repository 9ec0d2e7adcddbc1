"""Postcards: one turn in which the truth is known.

A prompt asks for a postcard from a place, to somebody, in a tone. The worth of a reply, its *gold*, is a
fixed rule over its words (`rules`), and the best reply to every prompt is known exactly (`exact`). A writer
of mediocre postcards (`writer`) makes the replies that annotators compare. So a model of their comparisons
can be held against gold, and over-optimisation is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message, Reference, Response, signed
from turnwise.envs.tasks.postcards import writer
from turnwise.envs.tasks.postcards.exact import best_words
from turnwise.envs.tasks.postcards.rules import terms_of, worths
from turnwise.envs.tasks.postcards.words import ASKS, NAMES, PLACES, TONES, Ask, ask_of, wording, words_of

Prompt = tuple[Message, ...]

HELD_OUT = 4  # one prompt of so many is held out; every pair of attributes occurs among the others

_worths = cache(worths)


@cache
def _best(ask: Ask) -> tuple[float, str]:
    value, words = best_words(_worths(ask))
    return value, " ".join(words)


class Postcards:
    """Prompts, a writer and gold; as a `DialogueTask`, conversations of one turn.

    The reward of a reply is its gold, and the conversation terminates with it.
    """

    name = "postcards"

    def __init__(self, prompts: Sequence[Prompt] | None = None) -> None:
        """`prompts`: what `reset` draws from, uniformly; by default all 192."""
        self._drawn_from = tuple(prompts) if prompts is not None else tuple(self.prompts())
        self._lanes: dict[int, Prompt] = {}
        self._over: set[int] = set()

    @staticmethod
    def prompts() -> list[Prompt]:
        """All 192 prompts, each one message of the user."""
        return [(Message("user", wording(ask)),) for ask in ASKS]

    def split(self) -> tuple[list[Prompt], list[Prompt]]:
        """144 prompts to learn from and 48 held out. Each pair of two attributes is among the 144."""
        groups: tuple[list[Prompt], list[Prompt]] = ([], [])
        indices = product(range(len(PLACES)), range(len(NAMES)), range(len(TONES)))
        for (place, name, tone), prompt in zip(indices, self.prompts(), strict=True):
            groups[(place + name + tone) % HELD_OUT == 0].append(prompt)
        return groups

    def gold(self, prompt: Sequence[Message], reply: str) -> float:
        """The worth of a reply; any text has one."""
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
        return writer.write(ask_of(prompt), rng)

    def babble(self, rng: np.random.Generator) -> str:
        """Any words of the lexicon, as many as the writer would use."""
        return writer.babble(rng)

    def rows(self, conversations: int, seed: int) -> Iterator[dict[str, Any]]:
        """The writer's cards in the log format (`postcard_logs`)."""
        from turnwise.envs.tasks.postcards.logs import postcard_logs  # the logs are made with this class

        return signed(postcard_logs(conversations, seed), self.name)

    def references(self) -> list[Reference]:
        """The best gold, exactly; what the writer's cards and any words earn, by simulation."""
        from turnwise.envs.tasks.postcards.logs import mean_gold  # as above

        best = float(np.mean([self.best_value(prompt) for prompt in self._drawn_from]))
        note = "simulated"
        return [
            Reference("best replies", "optimum", best, note="by dynamic programming"),
            Reference("writer", "behaviour", *mean_gold(self, self._drawn_from, self.write), note=note),
            Reference(
                "any words",
                "baseline",
                *mean_gold(self, self._drawn_from, lambda _, rng: self.babble(rng)),
                note=note,
            ),
        ]

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[Prompt]:
        """A prompt for each lane, drawn from its seed."""
        for lane, seed in zip(lanes, seeds, strict=True):
            u = np.random.default_rng(seed).random()
            self._lanes[lane] = self._drawn_from[int(u * len(self._drawn_from))]
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
