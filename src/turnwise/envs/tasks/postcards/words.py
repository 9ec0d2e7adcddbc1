"""What is said about postcards: the words of replies, and the prompts that ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from turnwise.envs.dialogue import Message

PLACES: dict[str, tuple[tuple[str, str], str]] = {
    "beach": (("sand", "waves"), "swim"),
    "mountains": (("peak", "snow"), "climb"),
    "city": (("museum", "cafe"), "stroll"),
    "forest": (("trees", "deer"), "hike"),
    "lake": (("boat", "shore"), "sail"),
    "desert": (("dunes", "camels"), "ride"),
    "farm": (("cows", "orchard"), "pick"),
    "castle": (("towers", "knights"), "explore"),
}
"""a place, its two nouns, its verb"""

NAMES = ("mum", "grandpa", "sister", "boss", "teacher", "neighbour")
"""the addressees; a reply names them by the same word"""

TONES: dict[str, tuple[tuple[str, str, str], str, str]] = {
    "cheerful": (("sunny", "merry", "bright"), "hello", "cheers"),
    "dreamy": (("misty", "quiet", "golden"), "dearest", "love"),
    "formal": (("pleasant", "fine", "notable"), "greetings", "regards"),
    "funny": (("silly", "goofy", "odd"), "ahoy", "toodles"),
}
"""a tone, its three adjectives, its greeting, its closing"""

ZEAL = ("wonderful", "amazing", "fantastic", "incredible", "great")

LEXICON: dict[str, tuple[str, ...]] = {
    "greeting": tuple(greeting for _, greeting, _ in TONES.values()),
    "name": NAMES,
    "noun": tuple(noun for nouns, _ in PLACES.values() for noun in nouns),
    "verb": tuple(verb for _, verb in PLACES.values()),
    "tone": tuple(word for words, _, _ in TONES.values() for word in words),
    "zeal": ZEAL,
    "article": ("the", "our"),
    "joint": ("and", "with"),
    "subject": ("we",),
    "closing": tuple(closing for _, _, closing in TONES.values()),
}
"""the words of each kind: 60 in all"""

KINDS = tuple(LEXICON)
KIND_OF = {word: kind for kind, words in LEXICON.items() for word in words}
WORDS = tuple(KIND_OF)
UNKNOWN = "unknown"


class Ask(NamedTuple):
    """What a prompt asks for."""

    place: str
    name: str
    tone: str


def wanted(ask: Ask) -> dict[str, tuple[str, ...]]:
    """The words of each kind that fit the prompt. Kinds that do not depend on it are left out."""
    nouns, verb = PLACES[ask.place]
    adjectives, greeting, closing = TONES[ask.tone]
    return {
        "greeting": (greeting,),
        "name": (ask.name,),
        "noun": nouns,
        "verb": (verb,),
        "tone": adjectives,
        "closing": (closing,),
    }


ASKS = tuple(Ask(*ask) for ask in product(PLACES, NAMES, TONES))


def wording(ask: Ask) -> str:
    """The prompt that asks for it."""
    return f"Write a {ask.tone} postcard from the {ask.place} to my {ask.name}."


_ASK_OF = {wording(ask): ask for ask in ASKS}


def ask_of(prompt: Sequence[Message]) -> Ask:
    """What the prompt's last message asks for. ValueError if it is no prompt of this task."""
    ask = _ASK_OF.get(prompt[-1].content) if prompt else None
    if ask is None:
        found = repr(prompt[-1].content) if prompt else "no message"
        expected = f"the request for a postcard, as in {wording(ASKS[0])!r}"
        raise ValueError(f"prompt: expected {expected}; found {found}")
    return ask


def words_of(reply: str) -> list[str]:
    """The words of any text: in lower case, split at white space, without punctuation at their edges."""
    return [word.strip(".,;:!?") for word in reply.lower().split()]
