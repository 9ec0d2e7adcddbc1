"""What is said in the maze: every sentence of both sides, and how sentences are read.

A wording is drawn independently of the cell, of the wordings before it, and of everything else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import permutations

import numpy as np

from turnwise.envs.tasks.grammar import Grammar, halved, weighed
from turnwise.envs.tasks.maze.rules import CELLS, GOAL, MOVES, NONE, Move, Observed, Sight, named, walls

WALKER_STARTS = ("", "Well, ", "Then ", "Next, ", "Let me see, ", "Now ")
SAID: dict[str, tuple[str, ...]] = {
    "up": ("up", "upwards", "north"),
    "down": ("down", "downwards", "south"),
    "left": ("left", "to the left", "west"),
    "right": ("right", "to the right", "east"),
}
MOVE_WORDINGS = (
    "move {d}.",
    "go {d}.",
    "walk {d}.",
    "one step {d}.",
    "I turn {d}.",
    "we try {d}.",
)
SIDES = {"up": "above you", "down": "below you", "left": "to your left", "right": "to your right"}
# w: the sides with a wall, o: those without
WALL_WORDINGS = (
    "there is a wall {w}.",
    "you see walls {w}.",
    "the way is free {o} only.",
    "stones block the way {w}.",
    "only {o} you could walk.",
    "you cannot walk {w}.",
)
PLACE_WORDINGS = (
    "you are at row {r}, column {c}.",
    "you stand in row {r}, column {c}.",
    "this is row {r}, column {c}.",
    "you have come to row {r}, column {c}.",
    "here is column {c} of row {r}.",
    "your feet are in column {c}, row {r}.",
)
GOAL_WORDINGS = (
    "the goal is at row {r}, column {c}.",
    "the way out is in row {r}, column {c}.",
    "you want to reach row {r}, column {c}.",
    "you look for column {c} of row {r}.",
)
ARRIVED_WORDINGS = (
    "you have found the goal!",
    "that is the way out, well done!",
    "here is the goal, you may rest.",
    "you did it, this is the end of the maze!",
)
CONFUSED_WORDINGS = (
    "that is no step that I know.",
    "I did not understand where you want to go.",
    "please tell me one direction.",
    "sorry, which way?",
)


def _joined(moves: Sequence[str]) -> tuple[str, ...]:
    """The sides in every order: "above you and to your left", "to your left and above you"."""
    return tuple(" and ".join(SIDES[m] for m in order) for order in permutations(moves))


def _grammar(templates: dict[str, tuple[Sequence[str], dict[str, Sequence[str]]]]) -> Grammar:
    return Grammar(("",), {act: weighed([(1.0, texts)], slots) for act, (texts, slots) in templates.items()})


WALKER = Grammar(WALKER_STARTS, {m: weighed([(1.0, MOVE_WORDINGS)], {"d": SAID[m]}) for m in MOVES})
"""what the walker of the logs says"""
_SIGHTS = {walls(cell): [m for m in MOVES if m not in walls(cell)] for cell in CELLS}
_WALLS = _grammar({
    named(blocked): (WALL_WORDINGS, {"w": _joined(blocked), "o": _joined(free)})
    for blocked, free in _SIGHTS.items()
})  # fmt: skip
_PLACES = _grammar({
    named((r, c)): (PLACE_WORDINGS, {"r": (str(r),), "c": (str(c),)}) for r, c in CELLS
})  # fmt: skip
_OTHER = _grammar({
    "goal": (GOAL_WORDINGS, {"r": (str(GOAL[0]),), "c": (str(GOAL[1]),)}),
    "arrived": (ARRIVED_WORDINGS, {}),
    "confused": (CONFUSED_WORDINGS, {}),
})  # fmt: skip
_READ: dict[str, Sight] = {named(s): s for s in (*CELLS, *_SIGHTS)}


class Guide:
    """The voice of the maze. `half`: every other wording of each thing that it says."""

    def __init__(self, half: bool = False) -> None:
        self._walls, self._places, self._other = (halved(g) if half else g for g in (_WALLS, _PLACES, _OTHER))

    def observation(
        self, cell: tuple[int, int], observed: Observed, understood: bool, rng: np.random.Generator
    ) -> str:
        """What is seen from a cell, behind a word that the last message was not understood."""
        said = [] if understood else [self._other.say("confused", rng).text]
        if observed == "full":
            said += [self._places.say(named(cell), rng).text, self._other.say("goal", rng).text]
        said.append(self._walls.say(named(walls(cell)), rng).text)
        return " ".join(said)

    def arrival(self, rng: np.random.Generator) -> str:
        """The last word."""
        return self._other.say("arrived", rng).text


_SENTENCE = re.compile(r"[^.!?]+[.!?]")


def read_observation(text: str, observed: Observed) -> Sight | None:
    """What a message of the guide tells, in any of its wordings; None if it tells nothing."""
    grammar = _PLACES if observed == "full" else _WALLS
    for sentence in _SENTENCE.findall(text):
        if (act := grammar.read(sentence.strip())) is not None:
            return _READ[act]
    return None


_MOVE = re.compile(
    r"\b(?:(up|upwards?|north(?:wards?)?|above)|(down|downwards?|south(?:wards?)?|below)"
    r"|(left|leftwards?|west(?:wards?)?)|(right|rightwards?|east(?:wards?)?))\b"
)
_FILLER = re.compile(r"\b(?:all right|right (?:away|now)|left over|what is left)\b")
_NEGATION = re.compile(
    r"\b(?:no|not|never|neither|nor|without|cannot|dont|cant|wont|avoid|instead of|rather than|\w+n['’]t)\b"
)


def read_act(text: str) -> Move:
    """The move that a message asks for, or "none" if that is not plain.

    A message is plain if it names exactly one direction, by any of its words, and negates nothing. Case and
    punctuation do not matter. The reader is total: it has an answer for any string.
    """
    text = _FILLER.sub(" ", text.lower())
    directions = {m.lastindex for m in _MOVE.finditer(text)}
    if len(directions) != 1 or _NEGATION.search(text):
        return NONE
    return MOVES[(directions.pop() or 0) - 1]
