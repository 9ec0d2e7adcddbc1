"""How the guest understands the agent: a reader of free English that is total, and never raises.

It knows places, paces, what is negated, questions and soothing words, whatever the sentence around them, so
that a policy may say what no template of the desk contains. What is not plain is `NONE`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from turnwise.envs.tasks.travel.rules import ASK_PACE, ASK_PLACE, NONE, SOOTHE, Act
from turnwise.envs.tasks.travel.vocabulary import (
    LIVELY,
    LIVELY_THINGS,
    QUIET,
    QUIET_THINGS,
)

_SEA = r"beach(?:es)?|seas?|seaside|coasts?|shores?|salt water|waves?|harbours?|swim(?:ming)?|sail(?:ing)?"
_SEA += r"|tides?|dunes?|oceans?"
_HILLS = r"mountains?|hills?|peaks?|valleys?|forests?|trails?|summits?|hik(?:e|es|ing)|climb(?:s|ing)?"
_HILLS += r"|alps|alpine(?: air)?|woods|meadows?"
_MORE_QUIET = ("silent", "relaxing", "relaxed", "still", "peace", "rest")
_MORE_LIVELY = ("nightlife", "party", "dance", "crowd", "noise", "vibrant")


def _any(words: Sequence[str]) -> str:
    return "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))


# One group for each meaning, in the order sea, hills, quiet, lively, then what negates.
_MARK = re.compile(
    rf"\b(?:({_SEA})|({_HILLS})|({_any(QUIET + QUIET_THINGS + _MORE_QUIET)})"
    rf"|({_any(LIVELY + LIVELY_THINGS + _MORE_LIVELY)})"
    r"|(not|no|never|without|neither|nor|nothing|none|cannot|dont|cant|wont|isnt|forget|avoid|instead of"
    r"|rather than|far from|away from|\w+n['’]t))\b"
)
_CLAUSE = re.compile(r"[,.;:!?\n]|\bbut\b")
_QUESTION = re.compile(
    r"(?:^|[,.;:!\n])\s*(?:do|does|did|would|will you|is|are|was|shall|should|can|could|may|which|where|how|"
    r"who|why|when|tell me|say|a question|one question)\b|\bwhat (?:do|would|is|are|about|kind)\b|\?"
)
_OFFERING = re.compile(r"\b(?:book|offer|reserve|take|get|have|recommend|suggest)\b")
_WHERE = re.compile(r"\b(?:where|places?|region|area|landscape)\b")
_PACE = re.compile(r"\b(?:paces?|evenings?|nights?|atmosphere|mood)\b")
_SOOTHING = re.compile(
    r"\b(?:sorry|apolog\w+|patien\w+|no hurry|no rush|take your time|all the time|bear with|thanks?"
    r"|kind of you)\b"
)


class _Mentions(NamedTuple):
    """Which places and paces an utterance names, and which it wants or names with a negation."""

    named: tuple[frozenset[int], frozenset[int]]
    wanted: tuple[frozenset[int], frozenset[int]]
    denied: tuple[frozenset[int], frozenset[int]]


@lru_cache(maxsize=1 << 14)
def read_act(text: str) -> Act:
    """The act that the utterance is; `NONE` if that is not plain. Case does not matter, clauses do.

    An offer wants exactly one place and has exactly one pace, which may be said by denying the other. A
    question names places only, or paces only. Soothing words count where neither is there: they may stand
    before anything.
    """
    text = text.lower().replace("anything but", "not").replace("nothing but", "only")
    found = _mentions(text)
    places, paces = found.named
    choice = 2 in (len(found.wanted[0]), len(found.wanted[1]))
    asked = choice or bool(_QUESTION.search(text))
    if places and paces:
        offered = _OFFERING.search(text) or not asked
        place, pace = found.wanted[0], found.wanted[1] | {1 - p for p in found.denied[1]}
        if offered and len(place) == len(pace) == 1 and not found.wanted[1] & found.denied[1]:
            return Act("offer", min(place), min(pace))
        return NONE
    if _soothes(text, asked):
        return SOOTHE
    if asked and (places or paces):
        return ASK_PLACE if places else ASK_PACE
    if asked and bool(_WHERE.search(text)) != bool(_PACE.search(text)):
        return ASK_PLACE if _WHERE.search(text) else ASK_PACE
    return SOOTHE if _SOOTHING.search(text) and not (places or paces) else NONE


def _soothes(text: str, asked: bool) -> bool:
    """Soothing words in a statement, or with "tell me more", where no choice is put."""
    if not _SOOTHING.search(text) or "?" in text:
        return False
    return not asked or "tell me more" in text


def _mentions(text: str) -> _Mentions:
    named: tuple[set[int], set[int]] = (set(), set())
    wanted: tuple[set[int], set[int]] = (set(), set())
    denied: tuple[set[int], set[int]] = (set(), set())
    for clause in _CLAUSE.split(text):
        negated = False
        for mark in _MARK.finditer(clause):
            group = (mark.lastindex or 0) - 1
            if group == 4:
                negated = True
                continue
            kind, value = divmod(group, 2)
            named[kind].add(value)
            (denied if negated else wanted)[kind].add(value)
    return _Mentions(*((frozenset(a), frozenset(b)) for a, b in (named, wanted, denied)))
