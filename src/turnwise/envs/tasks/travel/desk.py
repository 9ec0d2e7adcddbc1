"""What the scripted desk says: thousands of sentences for each of its seven acts.

Questions, soothing words and offers name the same places and paces, and no template belongs to one offer.
Three offers in four say plainly what is offered, `CONTRAST` of them name beside it what is not, and `NEGATED`
say how it is by how it is not.
"""

from __future__ import annotations

from turnwise.envs.tasks.grammar import Grammar, Groups, weighed
from turnwise.envs.tasks.travel.rules import ACTS, CONTRAST, NEGATED, PLAIN, Act
from turnwise.envs.tasks.travel.vocabulary import (
    HILLS,
    LIVELY,
    LIVELY_THINGS,
    PACE_THINGS,
    PACE_WORDS,
    PLACE_WORDS,
    QUIET,
    QUIET_THINGS,
    SEA,
)

STARTS = (
    "",
    "Well, ",
    "I see, ",
    "Thank you, ",
    "Sorry, ",
    "No hurry, ",
    "Take your time, ",
    "I am sorry, ",
    "Sorry for all these questions, ",
    "One moment, ",
    "Thanks for your patience, ",
)

# s: of the sea, h: of the hills, w: of either; q: a quiet thing, l: a lively one, n: of either kind; a: how a
# quiet hotel is, b: how a lively one is, c: either.
ASKS_PLACE = (
    "do you picture {s} or {h}?",
    "do you picture {h} or {s}?",
    "tell me, is it {s} or rather {h}?",
    "tell me, is it {h} or rather {s}?",
    "which do you like more, {s} or {h}?",
    "which do you like more, {h} or {s}?",
    "shall I look for {s} or for {h}?",
    "shall I look for {h} or for {s}?",
    "would {w} be something for you?",
    "is {w} what you have in mind?",
    "do you want {w}, or not at all?",
    "a question about the hotel, {s} or {h}?",
    "a question about the hotel, {h} or {s}?",
)
ASKS_PACE = (
    "do you picture {q} or {l}?",
    "do you picture {l} or {q}?",
    "tell me, is it {a} or rather {b}?",
    "tell me, is it {b} or rather {a}?",
    "which do you like more, {q} or {l}?",
    "which do you like more, {l} or {q}?",
    "shall I look for {q} or for {l}?",
    "shall I look for {l} or for {q}?",
    "would {n} be something for you?",
    "is {n} what you have in mind?",
    "do you want a {c} hotel, or not at all?",
    "a question about the hotel, {a} or {b}?",
    "a question about the hotel, {b} or {a}?",
)
SOOTHES = (
    "I am sorry for all these questions about {w}.",
    "I am sorry for all these questions about {n}.",
    "take your time, I will look for something {c}.",
    "there is no hurry, tell me more about {w}.",
    "there is no hurry, tell me more about {n}.",
    "thank you for your patience, I have {w} in mind all the time.",
    "thanks for your patience, I like what you tell me about {n}.",
    "I have all the time for you, with {n} or without.",
    "thank you for all you tell me about {w}, take your time.",
)
# x: the place on offer, y: the other one; q: how the hotel is, o: how it is not; d and e: such things.
OFFERS = (
    (
        PLAIN,
        (
            "I have a {q} hotel for you, with {x} at the door.",
            "take {x}, it is {q} there.",
            "you get {x} and {d}, I have it here.",
            "I will book {x} for you, with all the {d} in the world.",
            "what you have in mind is {x}, and a {q} hotel.",
        ),
    ),
    (
        CONTRAST,
        (
            "not {y} but {x}, and a {q} hotel.",
            "I would look for {x} rather than {y}, with all the {d} in the world.",
            "forget {y}, take {x}, it is {q} there.",
            "you get {x} and {d} without {e}, I have it here.",
        ),
    ),
    (
        NEGATED,
        (
            "my offer is {x}, and it is never {o} there.",
            "I will book {x} for you, far from anything {o}.",
            "you get {x} without {e}, I have it here.",
        ),
    ),
)


def _slots(act: Act) -> dict[str, tuple[str, ...]]:
    if act.kind != "offer":
        return {
            "s": SEA,
            "h": HILLS,
            "w": SEA + HILLS,
            "a": QUIET,
            "b": LIVELY,
            "c": QUIET + LIVELY,
            "q": QUIET_THINGS,
            "l": LIVELY_THINGS,
            "n": QUIET_THINGS + LIVELY_THINGS,
        }
    return {
        "x": PLACE_WORDS[act.place],
        "y": PLACE_WORDS[1 - act.place],
        "q": PACE_WORDS[act.pace],
        "o": PACE_WORDS[1 - act.pace],
        "d": PACE_THINGS[act.pace],
        "e": PACE_THINGS[1 - act.pace],
    }


def _groups(act: Act) -> Groups:
    alike = {"ask place": ASKS_PLACE, "ask pace": ASKS_PACE, "soothe": SOOTHES}
    return OFFERS if act.kind == "offer" else ((1.0, alike[act.kind]),)


DESK = Grammar(STARTS, {str(act): weighed(_groups(act), _slots(act)) for act in ACTS})
