"""The writer of mediocre postcards: the policy behind the logs and behind the replies that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from turnwise.envs.tasks.postcards.rules import FOLLOWS
from turnwise.envs.tasks.postcards.words import LEXICON, WORDS, Ask, wanted

LENGTH, LENGTH_SD, SHORTEST, LONGEST_WRITTEN = 8.0, 3.0, 2, 16
SKILL = (
    0.2,
    0.8,
)  # drawn uniformly for a card: the probability that a choice is a right one and not just any
GREETS, CLOSES = 0.6, 0.5  # probabilities that the writer greets, and closes

_MIDDLE = tuple(kind for kind in LEXICON if kind not in ("greeting", "closing"))
_NEXT = {
    kind: tuple(after for after in _MIDDLE if FOLLOWS[kind, after] > 0) or _MIDDLE
    for kind in (*_MIDDLE, "greeting")
}


_wanted = cache(wanted)


def write(ask: Ask, rng: np.random.Generator) -> str:
    """A postcard. Its length and the writer's skill are drawn anew for each card."""
    return " ".join(_words(_wanted(ask), rng))


def babble(rng: np.random.Generator) -> str:
    """Any words of the lexicon, as many as the writer would use."""
    return " ".join(WORDS[int(rng.random() * len(WORDS))] for _ in range(_length(rng)))


def _length(rng: np.random.Generator) -> int:
    return min(max(round(rng.normal(LENGTH, LENGTH_SD)), SHORTEST), LONGEST_WRITTEN)


def _any(options: Sequence[Any], u: float) -> Any:
    return options[int(u * len(options))]


def _words(fits: Mapping[str, tuple[str, ...]], rng: np.random.Generator) -> list[str]:
    """Words one after another: first the kind, then the word; each is right with probability `skill`.

    A right kind is a good successor of the last one (any kind, if the last one has no good successor). A
    right word fits the prompt.
    """
    n = _length(rng)
    # One draw for all choices of a card: a call of the generator costs more than the choice. A word takes at
    # most four numbers (kind right? which kind? word right? which word?), the frame and the skill eight.
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
