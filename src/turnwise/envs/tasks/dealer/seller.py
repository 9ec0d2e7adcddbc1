"""What the scripted seller says, and how it calls the tool."""

from __future__ import annotations

import json
import math
from typing import NamedTuple

import numpy as np

from turnwise.envs.tasks.dealer.rules import ACTS, ALL, CARS, LOOK_UP, TOOL, Act
from turnwise.envs.tasks.grammar import Grammar, pick, weighed

STARTS = ("", "Well, ", "I see, ", "Thank you, ", "Right, ", "Now, ")
_WORDS = {
    "a": ("engine", "paint", "sound", "grip", "dashboard"),
    "b": ("like silk", "like a dream", "like velvet", "like a song"),
    "n": ("one thousand", "two thousand", "three thousand", "four thousand"),
}
_SAID = {
    "ask wishes": (
        "what matters to you in a car?",
        "what do you look for?",
        "tell me what you wish for.",
        "what kind of person will drive it?",
        "what do you want from it?",
    ),
    "ask budget": (
        "what is your budget?",
        "what do you want to spend?",
        "tell me what your purse allows.",
        "what can you afford?",
        "how deep is your pocket?",
    ),
    "pitch": (
        "imagine the {a}, {b}.",
        "feel how it purrs, {b}.",
        "picture yourself at the wheel, the {a} is {b}.",
        "the {a} will thrill you, {b}.",
        "it handles {b}, and what a {a}.",
    ),
    "discount": (
        "I can take four hundred off.",
        "you get a discount from me.",
        "let me knock something off the price.",
        "for you there is a rebate.",
        "I will make it cheaper for you.",
    ),
    "quote": (
        "the {c} is {n}.",
        "I offer you the {c} for {n}.",
        "take the {c}, it costs {n}.",
        "the {c} is yours for {n}.",
        "how about the {c}, {n} and it is yours?",
    ),
}
_LEADS = ("", "One moment.", "Let me see what is there.", "I will have a look.")
_ARGUMENTS = tuple(json.dumps(a) for a in ({"cars": ALL}, {"cars": list(CARS)}, {}))
"""three ways of asking for all cars"""


def _slots(act: Act) -> dict[str, tuple[str, ...]]:
    own = {} if not act.price else {"c": (CARS[act.price - 1],), "n": (_WORDS["n"][act.price - 1],)}
    return _WORDS | own


SELLER = Grammar(
    STARTS, {str(act): weighed([(1.0, _SAID[act.kind])], _slots(act)) for act in ACTS if act != LOOK_UP}
)
"""all that it says without the tool"""


class Turn(NamedTuple):
    """A message of the seller: words, perhaps a call, and the log of their probability given the act."""

    content: str
    arguments: str | None
    """of a call of the tool, as JSON; None without a call"""
    logp: float

    @property
    def text(self) -> str:
        """The whole message as plain text, as the live task reads it."""
        if self.arguments is None:
            return self.content
        return "\n".join(filter(None, (self.content, f"call {TOOL}({self.arguments})")))


def say(act: Act, rng: np.random.Generator) -> Turn:
    """A wording of the act. No two ways lead to one message, so that its probability is the way's."""
    if act == LOOK_UP:
        ways = len(_LEADS) * len(_ARGUMENTS)
        return Turn(pick(_LEADS, rng), pick(_ARGUMENTS, rng), -math.log(ways))
    said = SELLER.say(str(act), rng)
    return Turn(said.text, None, said.logp)
