"""The rules of the guessing game as numbers and a table, and what an utterance of the agent can do."""

from __future__ import annotations

from typing import Literal, NamedTuple

ATTRIBUTES = (
    "grows",
    "animal",
    "four legs",
    "flies",
    "water",
    "eaten",
    "large",
    "metal",
    "wood",
    "carries",
    "eggs",
    "power",
    "pocket",
    "kitchen",
)
OBJECTS: dict[str, str] = {
    "cat": "grows, animal, four legs",
    "cow": "grows, animal, four legs, large, eaten",
    "horse": "grows, animal, four legs, large, carries",
    "giraffe": "grows, animal, four legs, large",
    "mouse": "grows, animal, four legs, pocket",
    "eagle": "grows, animal, flies, eggs",
    "penguin": "grows, animal, eggs, water",
    "spider": "grows, animal, eggs, pocket",
    "frog": "grows, animal, four legs, eggs, water, pocket",
    "salmon": "grows, animal, eggs, water, eaten",
    "bat": "grows, animal, flies, pocket",
    "oak": "grows, large, wood",
    "rose": "grows",
    "strawberry": "grows, eaten, pocket, kitchen",
    "pumpkin": "grows, eaten, kitchen",
    "acorn": "grows, pocket",
    "car": "metal, carries, power, large",
    "aeroplane": "metal, carries, power, large, flies",
    "rowing boat": "wood, carries, water, large",
    "bicycle": "metal, carries",
    "cart": "wood, carries, large",
    "guitar": "wood",
    "piano": "wood, large",
    "fork": "metal, pocket, kitchen",
    "chair": "wood, four legs",
    "fridge": "metal, power, kitchen",
    "pencil": "wood, pocket",
    "kite": "flies",
    "lamp": "power",
    "drone": "flies, power",
    "key": "metal, pocket",
    "telephone": "power, pocket",
}
"""what is true of each object; no two have the same"""
NAMES = tuple(OBJECTS)
TRUE = tuple(tuple(a in held.split(", ") for a in ATTRIBUTES) for held in OBJECTS.values())
"""[object][attribute]: whether it is true of it"""

TURN = -1.0  # what every turn earns but the one with the right guess, which earns 0
HORIZON = 12  # the agent's turns; the last one is a true end, whatever was found out
NOISE = 0.1  # probability that an answer about an attribute is false, if the game is noisy


class Act(NamedTuple):
    """What an utterance of the agent does: ask for an attribute, guess an object (an index each), neither."""

    kind: Literal["ask", "guess", "none"]
    which: int = -1

    def __str__(self) -> str:
        if self.kind == "none":
            return "none"
        return f"{self.kind} {(ATTRIBUTES if self.kind == 'ask' else NAMES)[self.which]}"


NONE = Act("none")
ASKS = tuple(Act("ask", k) for k in range(len(ATTRIBUTES)))
GUESSES = tuple(Act("guess", k) for k in range(len(NAMES)))
ACTS = (*ASKS, *GUESSES)
