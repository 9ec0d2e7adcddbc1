"""The rules of the travel desk as numbers, and what an utterance of the agent can do."""

from __future__ import annotations

from typing import Literal, NamedTuple

PLACES = ("sea", "hills")
PACES = ("quiet", "lively")
RELIABILITY = 0.85  # probability that what the guest says about place or pace is right
HORIZON = 8  # agent turns; after the last one without an offer the guest leaves
PAYOFFS = (-1.0, -0.25, 1.0)  # of an offer of which neither, one, or both of place and pace are right
LEFT = -0.5  # if the guest leaves without an offer

# Each pair is for a guest at ease, and for one in a hurry.
HURRIED = 0.5  # probability that a guest is in a hurry at first
SOUNDS_HURRIED = (0.2, 0.6)  # probability that the first words sound like it
LEAVES = (0.02, 0.2)  # probability of leaving after a question, or after something nobody understood
GRUMBLES = (0.05, 0.4)  # probability of a grumble in place of an answer
WEARS = 0.15  # probability that a question puts a guest who is at ease into a hurry
LEAVES_SOOTHED = (0.0, 0.05)  # probability of leaving after soothing words
SOOTHES = 0.8  # probability that soothing words put a guest in a hurry at ease
SOUNDS_CALM = (0.85, 0.25)  # probability that the answer to them is calm, by the guest's state after them


class Act(NamedTuple):
    """What an utterance of the agent does. Only an offer has `place` and `pace`, of `PLACES` and `PACES`."""

    kind: Literal["ask place", "ask pace", "soothe", "offer", "none"]
    place: int = -1
    pace: int = -1

    def __str__(self) -> str:
        return f"offer {PLACES[self.place]} {PACES[self.pace]}" if self.kind == "offer" else self.kind


ASK_PLACE, ASK_PACE, SOOTHE, NONE = Act("ask place"), Act("ask pace"), Act("soothe"), Act("none")
OFFERS = tuple(Act("offer", place, pace) for place in range(2) for pace in range(2))
ACTS = (ASK_PLACE, ASK_PACE, SOOTHE, *OFFERS)

PLAIN, CONTRAST, NEGATED = 0.75, 0.15, 0.1
"""how often an answer, or an offer, says what is meant, that beside what is not, or only what is not"""

ANSWERS = (*PLACES, *PACES, "grumble", "calm", "confused")
"""what the guest can mean while the talk goes on"""
LAST_WORDS = ("refuses", "hesitates", "accepts", "leaves")
"""and at its end; the first three in the order of `PAYOFFS`"""
OPENINGS = ("at ease", "in a hurry")
"""how the guest sounds at first"""
