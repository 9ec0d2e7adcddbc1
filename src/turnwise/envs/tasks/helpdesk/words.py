"""What is said at the help desk: every sentence of both sides, and how sentences are read.

Sentences are English made from templates. A wording is drawn uniformly and independently of everything
hidden, so that only the meaning of a sentence carries information.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.envs.tasks.helpdesk.rules import ACTS, NONE, PARTS, Act

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
# What customers see is particular to the part, as it is in life: one word tells part and state together,
# so that a model can learn the meaning of an answer from few examples.
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


def _named(templates: Sequence[str], part: int) -> tuple[str, ...]:
    return tuple(t.format(part=PARTS[part]) for t in templates)


_WORDINGS = {a: _named(TEST_WORDINGS if a.kind == "test" else FIX_WORDINGS, a.part) for a in ACTS}
_ANSWERS = {
    (k, broken): (BROKEN_WORDINGS if broken else FINE_WORDINGS)[k]
    for k in range(len(PARTS))
    for broken in (True, False)
}
_MEANINGS = {text: meant for meant, texts in _ANSWERS.items() for text in texts}

# One group for each part, in the order of PARTS: the number of the group that matched names the part.
_PART = re.compile(r"\b(?:(batter(?:y|ies))|(screens?)|(speakers?)|(cameras?))\b")
_TEST = re.compile(r"\b(?:test|check|try|look|inspect|examin)(?:s|e|es|ed|ing)?\b")
_FIX = re.compile(
    r"\b(?:fix|repair|replac|swap|swapp)(?:s|e|es|ed|ing|ement)?\b|\b(?:fault|faulty|culprit|new|fresh)\b"
)
_NEGATION = re.compile(r"\b(?:no|not|never|without|cannot|dont|cant|wont|\w+n['’]t)\b")


def read_act(text: str) -> Act:
    """The act that the utterance asks for, or `NONE` if that is not plain.

    An utterance is plain if it names exactly one part, has words of exactly one of the two kinds of act, and
    negates nothing. Case and punctuation do not matter. The reader is total: it has an answer for any string.
    """
    text = text.lower()
    parts = {m.lastindex for m in _PART.finditer(text)}
    tests, fixes = bool(_TEST.search(text)), bool(_FIX.search(text))
    if len(parts) != 1 or tests == fixes or _NEGATION.search(text):
        return NONE
    return Act("test" if tests else "fix", (parts.pop() or 0) - 1)


def act_of_answer(part: int, broken: bool) -> str:
    """The name of an answer's meaning: "screen broken"."""
    return f"{PARTS[part]} {'broken' if broken else 'fine'}"


def read_answer(text: str) -> tuple[int, bool] | None:
    """(part, whether it seems broken) if `text` is a customer's answer to a test, else None."""
    return _MEANINGS.get(text)


def wordings(act: Act) -> tuple[str, ...]:
    """The sentences by which the scripted desk says the act, each once; `NONE` has none."""
    return _WORDINGS.get(act, ())


@dataclass(frozen=True)
class Phrasebook:
    """The sentences that the customer has for what it means.

    `halved`: only every other wording of an answer and of a last word. Which half it is changes with part and
    state, so that every turn of phrase ("Sadly it ...") is in it for some of them.
    """

    halved: bool = False

    def answers(self, part: int, broken: bool) -> tuple[str, ...]:
        """The sentences by which the customer says that a part seems broken, or fine."""
        texts = _ANSWERS[part, broken]
        return texts[(part + broken) % 2 :: 2] if self.halved else texts

    def last_words(self, solved: bool) -> tuple[str, ...]:
        """What the customer says after the right fix, or after a wrong one."""
        texts = SOLVED_WORDINGS if solved else UNSOLVED_WORDINGS
        return texts[::2] if self.halved else texts


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of the options, uniformly."""
    return options[int(rng.random() * len(options))]
