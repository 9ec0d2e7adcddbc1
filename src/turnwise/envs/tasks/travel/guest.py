"""What the guest says: thousands of sentences for each thing that it means.

Three answers in four say what is wanted, `CONTRAST` of them beside what is not, and `NEGATED` only what is
not. A grumble and a calm answer are made of the same words. What is meant is worded independently of
everything else that is hidden, and places and paces in other sentences are drawn at random.
"""

from __future__ import annotations

from collections.abc import Mapping

from turnwise.envs.tasks.grammar import Grammar, Template, weighed
from turnwise.envs.tasks.travel.rules import CONTRAST, NEGATED, PLAIN
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
    "Oh, ",
    "Hmm, ",
    "Honestly, ",
    "You know, ",
    "Let me think, ",
    "If you ask me, ",
)
GREETINGS = ("", "Hello, ", "Hi, ", "Good morning, ", "Good evening, ", "Hello there, ", "Hey, ", "Well, ")
KIN = ("wife", "husband", "son", "daughter", "mother", "father", "sister", "brother")

# x: of the place meant, y: of the other one; q: how it should be, o: how not; d and e: such things. Of either
# kind: w a place, n a thing, a and b a quiet and a lively word, s and h a place of each kind, k somebody.
PLACE = (
    (
        PLAIN,
        (
            "I keep dreaming of {x} and {x2}.",
            "anything with {x} would make us happy.",
            "my {k} would love {x}.",
            "{x} would be something for us, and {x2} too.",
            "we talk about {x} all the time.",
            "give us {x}, give us {x2}, and we are happy.",
            "{a} or {b}, I do not mind, as long as there is {x}.",
            "I like {x} more and more.",
            "we have {x} in mind, or {x2}.",
            "there is no trip without {x}.",
        ),
    ),
    (
        CONTRAST,
        (
            "I would take {x} over {y} any day.",
            "please not {y} again, we want {x}.",
            "my {k} likes {y}, but I like {x}.",
            "we have had enough of {y}, so it should be {x}.",
        ),
    ),
    (
        NEGATED,
        (
            "anything but {y} would make us happy.",
            "{y} would be nothing for us, and I do not like {y2}.",
            "my {k} would not love {y}.",
        ),
    ),
)
PACE = (
    (
        PLAIN,
        (
            "I keep dreaming of {d} and {d2}.",
            "anything with {d} would make us happy.",
            "my {k} would love {d}.",
            "a {q} hotel would be something for us.",
            "we like it {q} and {q2} all the time.",
            "give us {d}, give us {d2}, and we are happy.",
            "{s} or {h}, I do not mind, as long as it is {q}.",
            "I like {d} more and more.",
            "we have something {q} in mind.",
            "there is no trip without {d}.",
        ),
    ),
    (
        CONTRAST,
        (
            "I would take {d} over {e} any day.",
            "please not {o} again, we want it {q}.",
            "my {k} likes {e}, but I like {d}.",
            "we have had enough of {e}, so it should be {q}.",
        ),
    ),
    (
        NEGATED,
        (
            "anything but {e} would make us happy.",
            "{e} would be nothing for us, and I do not like it {o}.",
            "my {k} would not love {e}.",
        ),
    ),
)
GRUMBLE = (
    "do not ask me about {w} again, I do mind.",
    "please hurry, I have no time for more questions.",
    "I do mind how long this takes.",
    "that is not kind, so give us no more questions.",
    "we have a train to catch today, so please do not go on.",
    "{w} or {n}, do not ask what we like.",
    "this is trouble enough, we talk about {n} as long as you like.",
    "I like to talk about {w}, but not all day.",
)
CALM = (
    "do ask me about {w} again, I do not mind.",
    "please do not hurry, I have time for more questions.",
    "I do not mind how long this takes.",
    "that is kind, so give us more questions.",
    "we have no train to catch today, so please do go on.",
    "{w} or {n}, do ask what we like.",
    "this is no trouble, we talk about {n} as long as you like.",
    "I like to talk about {w} all day.",
)
CONFUSED = (
    "sorry, I do not see what you mean.",
    "please ask again, I do not know what that is.",
    "{w} or {n}, what was the question?",
    "I have no idea what you talk about.",
    "was that about {w}, or about something {a}?",
    "was that about {w}, or about something {b}?",
)
REFUSES = (
    "no, {w} is not what we like, goodbye.",
    "{n} would be nothing for us, so do not book it.",
    "my {k} would not love it, we will ask elsewhere.",
    "no, please do not book {w}, goodbye.",
    "we do not want {n}, I will not take it.",
    "that is not it, and I do mind, goodbye.",
)
HESITATES = (
    "I like {w}, but I will not book it today, goodbye.",
    "{n} would be something for us, but let me think.",
    "my {k} would like it more and more, but we will ask elsewhere.",
    "yes and no, let me think about {w}, goodbye.",
    "we do not mind {n}, but I will not take it today.",
    "that is not all we like, but it is not nothing, goodbye.",
)
ACCEPTS = (
    "yes, {w} is what we like, book it.",
    "{n} would be something for us, so please book it.",
    "my {k} would love it, we will not ask elsewhere.",
    "yes, please book {w}, goodbye.",
    "we want {n}, I will take it today.",
    "that is it, and I do not mind, goodbye.",
)
LEAVES = (
    "we have had enough of questions, I will ask elsewhere.",
    "I have no time for this, goodbye.",
    "please do not ask again about {w}, goodbye.",
    "this takes all day, we have a train to catch, goodbye.",
    "no more about {n}, I do not like it, goodbye.",
)
AT_EASE = (
    "we need a trip, and I have all the time for it.",
    "no hurry, I like to talk about a trip.",
    "I have no train to catch, so let us talk, last year it was {w}.",
    "my {k} says that you know {n}, take your time.",
    "we like {w}, but there is no hurry, tell me what you have.",
)
IN_A_HURRY = (
    "we need a trip, and I have no time for it all.",
    "hurry, I do not like to talk about a trip.",
    "I have a train to catch, so let us not talk, last year it was {w}.",
    "my {k} says that you know {n}, take no time.",
    "we like {w}, but there is a hurry, tell me what you have.",
)


def _slots(place: int = 0, pace: int = 0) -> Mapping[str, tuple[str, ...]]:
    return {
        "x": PLACE_WORDS[place],
        "y": PLACE_WORDS[1 - place],
        "q": PACE_WORDS[pace],
        "o": PACE_WORDS[1 - pace],
        "d": PACE_THINGS[pace],
        "e": PACE_THINGS[1 - pace],
        "w": SEA + HILLS,
        "n": QUIET_THINGS + LIVELY_THINGS,
        "s": SEA,
        "h": HILLS,
        "a": QUIET,
        "b": LIVELY,
        "k": KIN,
    }


def _alike(sentences: tuple[str, ...]) -> tuple[Template, ...]:
    return weighed([(1.0, sentences)], _slots())


GUEST = Grammar(
    STARTS,
    {
        "sea": weighed(PLACE, _slots(place=0)),
        "hills": weighed(PLACE, _slots(place=1)),
        "quiet": weighed(PACE, _slots(pace=0)),
        "lively": weighed(PACE, _slots(pace=1)),
        "grumble": _alike(GRUMBLE),
        "calm": _alike(CALM),
        "confused": _alike(CONFUSED),
        "refuses": _alike(REFUSES),
        "hesitates": _alike(HESITATES),
        "accepts": _alike(ACCEPTS),
        "leaves": _alike(LEAVES),
    },
)
"""all that is said after a turn of the agent"""

OPENING = Grammar(GREETINGS, {"at ease": _alike(AT_EASE), "in a hurry": _alike(IN_A_HURRY)})
"""and before the first one"""
