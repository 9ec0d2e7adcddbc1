"""HelpDesk: find which of four parts of a customer's device is broken, by asking, and name the fix.

The fault is hidden and uniform. At each turn the agent asks the customer to test a part (the answer is
right with probability 0.85, independently at each test) or names a fix, which ends the conversation.
Both sides speak English made from templates; a wording is drawn uniformly and independently of
everything hidden, so that only what is meant carries information.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from turnwise.envs.dialogue import Message, Response

PARTS = ("battery", "screen", "speaker", "camera")
TEST_COST = 0.05  # what a turn without a fix costs, whether a test or something nobody understood
RELIABILITY = 0.85  # probability that the customer's answer to a test is right
HORIZON = 8  # agent turns; the last one without a fix is a true end

GREETINGS = (
    "Hi!",
    "Hello there!",
    "Good morning!",
    "Good evening!",
    "Hey, lovely weather!",
    "Hi, nice meeting you!",
    "Greetings!",
    "Sorry to bother you.",
    "Happy Monday, friend!",
    "Finally, a human voice!",
    "Thanks for picking up.",
    "Greetings from rainy Dublin.",
    "I hope you slept.",
)
COMPLAINTS = (
    "My phone stopped working yesterday.",
    "My tablet acts up.",
    "Something is wrong with my device.",
    "This gadget drives me crazy.",
    "I need help.",
    "The thing quit again.",
    "My daughter's phone failed.",
    "Can someone save my tablet?",
    "Nothing works since last weekend.",
    "My device misbehaves all day.",
    "I dropped it downstairs.",
    "I spilled coffee over it.",
    "It went odd during holidays.",
    "My husband sat on it.",
    "The laptop refuses everything.",
    "Our watch freezes each hour.",
    "Since Friday nothing opens.",
    "The kids broke it.",
    "A strange noise comes out.",
    "It restarts during calls.",
    "Half the buttons went silent.",
)
TEST_WORDINGS = (
    "Please test the {part}",
    "Thanks, check the {part}",
    "Now try the {part}",
    "Kindly inspect your {part}",
)
FIX_WORDINGS = (
    "Then replace the {part}",
    "We repair the {part}",
    "You need a new {part}",
    "Just swap the {part}",
)
# What customers see is particular to the part, as it is in life: one word tells part and state together.
BROKEN_WORDINGS = (
    (
        "The battery drains within minutes.",
        "My battery is swollen.",
        "Sadly it never charges.",
        "Oh, the battery died overnight.",
    ),
    (
        "The screen flickers a lot.",
        "My screen is cracked.",
        "Sadly it stays black.",
        "Oh, the screen shows stripes.",
    ),
    (
        "The speaker only crackles.",
        "My speaker is mute.",
        "Sadly it sounds hoarse.",
        "Oh, the speaker buzzes badly.",
    ),
    (
        "The camera gives blurry photos.",
        "My camera is foggy.",
        "Sadly it refuses focusing.",
        "Oh, the camera shoots darkness.",
    ),
)
FINE_WORDINGS = (
    (
        "The battery lasts all day.",
        "My battery is fully loaded.",
        "Yes, it recharges quickly.",
        "Luckily the battery stays cool.",
    ),
    (
        "The screen looks sharp.",
        "My screen is bright.",
        "Yes, it displays every colour.",
        "Luckily the screen is spotless.",
    ),
    (
        "The speaker plays music nicely.",
        "My speaker is loud.",
        "Yes, it rings normally.",
        "Luckily the speaker whispers clearly.",
    ),
    (
        "The camera takes crisp pictures.",
        "My camera is fast.",
        "Yes, it zooms smoothly.",
        "Luckily the camera films steadily.",
    ),
)
CONFUSED_WORDINGS = (
    "Sorry, I did not understand that.",
    "Pardon, what do you mean?",
    "I am lost, please say it differently.",
    "Could you explain that once more?",
    "That makes little sense to me.",
    "Excuse me, I cannot follow you.",
)
SOLVED_WORDINGS = (
    "Wonderful, it works again, thank you!",
    "Perfect, that solved it, have a great day!",
    "Great, everything is back to normal now.",
    "You are a hero, the problem is gone!",
    "Brilliant, my family will be so glad!",
    "Thanks a lot, that did the trick!",
    "Fantastic, I owe you lunch!",
    "Magic, my pictures are here!",
    "Hooray, five stars for this desk!",
)
UNSOLVED_WORDINGS = (
    "That changed nothing, I am disappointed.",
    "Sadly the problem is still there, goodbye.",
    "What a waste, it still fails.",
    "No, that was the wrong repair.",
    "I will ask for a refund instead.",
    "Too bad, I must go elsewhere.",
    "Honestly, I expected better service.",
    "Enough, I cancel my contract.",
    "So three weeks passed in vain.",
)


class Act(NamedTuple):
    """What an agent's utterance does: test or fix a part (an index into `PARTS`), or none (part -1)."""

    kind: Literal["test", "fix", "none"]
    part: int

    def __str__(self) -> str:
        return f"{self.kind} {PARTS[self.part]}" if self.kind != "none" else "none"


NONE = Act("none", -1)
ACTS = tuple(Act(kind, k) for kind in ("test", "fix") for k in range(len(PARTS)))


def _said(templates: Sequence[str], part: int) -> tuple[str, ...]:
    return tuple(t.format(part=PARTS[part]) for t in templates)


_SAID = {a: _said(TEST_WORDINGS if a.kind == "test" else FIX_WORDINGS, a.part) for a in ACTS}
_ANSWERS = {
    (k, broken): (BROKEN_WORDINGS if broken else FINE_WORDINGS)[k]
    for k in range(len(PARTS))
    for broken in (True, False)
}
_HEARD = {text: meant for meant, texts in _ANSWERS.items() for text in texts}

# One group a part, in the order of PARTS.
_PART = re.compile(r"\b(?:(batter(?:y|ies))|(screens?)|(speakers?)|(cameras?))\b")
_TEST = re.compile(r"\b(?:test|check|try|look|inspect|examin)(?:s|e|es|ed|ing)?\b")
_FIX = re.compile(
    r"\b(?:fix|repair|replac|swap|swapp)(?:s|e|es|ed|ing|ement)?\b|\b(?:fault|faulty|culprit|new|fresh)\b"
)
_NEGATION = re.compile(r"\b(?:no|not|never|without|cannot|dont|cant|wont|\w+n['’]t)\b")


def read_act(text: str) -> Act:
    """What the utterance asks for; `NONE` unless it is plain.

    Plain means: exactly one part is named, the words belong to exactly one of the two kinds of act, and
    nothing is negated. Case and punctuation do not matter. Total: every string has an answer.
    """
    text = text.lower()
    parts = {m.lastindex for m in _PART.finditer(text)}
    tests, fixes = bool(_TEST.search(text)), bool(_FIX.search(text))
    if len(parts) != 1 or tests == fixes or _NEGATION.search(text):
        return NONE
    return Act("test" if tests else "fix", (parts.pop() or 0) - 1)


def read_answer(text: str) -> tuple[int, bool] | None:
    """(part, seems broken) where `text` is a customer's answer to a test, else None."""
    return _HEARD.get(text)


def wordings(act: Act) -> tuple[str, ...]:
    """Every sentence the agent's side has for the act, each once; `NONE` has none."""
    return _SAID.get(act, ())


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of the options, uniformly."""
    return options[int(rng.random() * len(options))]


@dataclass
class _Conversation:
    rng: np.random.Generator
    fault: int
    turn: int = 0
    over: bool = False


class HelpDesk:
    """The simulated customer, behind `DialogueTask`.

    Rewards: -0.05 for a test or for an utterance that cannot be read, +1 for the right fix, -1 for a
    wrong one. A fix ends the conversation and the customer has a last word; the eighth turn without a
    fix ends it too, in silence. Both are terminations: a truncation never occurs.
    """

    name = "helpdesk"

    def __init__(self) -> None:
        self._lanes: dict[int, _Conversation] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """Begin anew with a fault drawn from each seed; the customer's opening says nothing about it."""
        openings = []
        for lane, seed in zip(lanes, seeds, strict=True):
            rng = np.random.default_rng(seed)
            self._lanes[lane] = _Conversation(rng, fault=int(rng.random() * len(PARTS)))
            openings.append((Message("user", f"{pick(GREETINGS, rng)} {pick(COMPLAINTS, rng)}"),))
        return openings

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """Read each reply and answer it. ValueError for a lane whose conversation is over."""
        return [self._answer(lane, reply) for lane, reply in zip(lanes, replies, strict=True)]

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """The faulty part's name."""
        return {"fault": PARTS[self._lanes[lane].fault]}

    def _answer(self, lane: int, reply: str) -> Response:
        talk = self._lanes[lane]
        if talk.over:
            raise ValueError(f"lane {lane}: the conversation is over; reset the lane first")
        act = read_act(reply)
        talk.turn += 1
        talk.over = act.kind == "fix" or talk.turn == HORIZON
        info: dict[str, Any] = {"act": str(act), "read": act.kind != "none"}
        if act.kind == "fix":
            right = act.part == talk.fault
            last = pick(SOLVED_WORDINGS if right else UNSOLVED_WORDINGS, talk.rng)
            info["success"] = right
            return Response((Message("user", last),), 1.0 if right else -1.0, terminated=True, info=info)
        if talk.over:
            info["success"] = False
            return Response((), -TEST_COST, terminated=True, info=info)
        if act.kind == "test":
            right = talk.rng.random() < RELIABILITY
            broken = (act.part == talk.fault) == right
            text = pick(_ANSWERS[act.part, broken], talk.rng)
        else:
            text = pick(CONFUSED_WORDINGS, talk.rng)
        return Response((Message("user", text),), -TEST_COST, info=info)
