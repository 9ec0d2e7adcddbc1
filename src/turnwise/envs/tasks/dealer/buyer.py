"""What the buyer says, and what the tool answers.

A wording is drawn independently of everything that is hidden but for what it means. Every sentence has one
meaning, and no number in it: what a buyer can pay is told by how it speaks of money.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from turnwise.envs.tasks.dealer.rules import CARS, PURSES, WISHES
from turnwise.envs.tasks.grammar import Grammar, Template, weighed

STARTS = ("", "Well, ", "Honestly, ", "Hm, ", "You know, ")
GREETINGS = ("", "Hello, ", "Hi, ", "Good morning, ", "Good day, ")
WORDS: Mapping[str, tuple[str, ...]] = {
    "k": ("wife", "husband", "son", "daughter", "mother", "brother"),
    "o": ("car", "van", "bus", "jeep"),
    "w": ("yesterday", "last week", "on Sunday", "this spring", "in May"),
}
"""by slot: somebody of the family, what was driven so far, when"""

_SAID: Mapping[str, tuple[str, ...]] = {
    WISHES[0]: (
        "I never pay the full sum, my {k} would laugh.",
        "I love to haggle, I did so {w}.",
        "a good bargain makes me happy, and my {k} too.",
        "there must be something off the tag.",
        "I look for a rebate, as with my old {o}.",
        "my {k} says that everything can be had cheaper.",
    ),
    WISHES[1]: (
        "I want to feel the wind, my {k} does too.",
        "tell me how she drives, I dream of engines.",
        "a beautiful machine makes me happy, my old {o} was dull.",
        "I saw one shine in the street {w}.",
        "I look for thrills, not for a {o}.",
        "my {k} says that I am in love with speed.",
    ),
    WISHES[2]: (
        "I need wheels, and no fuss.",
        "something that runs, my {o} gave up {w}.",
        "no speeches please, my {k} waits outside.",
        "I just have to get to work.",
        "I look for nothing special, my {o} was fine.",
        "my {k} says to come back soon, so keep it simple.",
    ),
    PURSES[0]: (
        "my savings are thin since {w}.",
        "it has to be modest, my {k} lost a job.",
        "I count every penny.",
        "not much, the old {o} ate it all.",
        "the account is nearly empty.",
        "as little as can be, says my {k}.",
    ),
    PURSES[1]: (
        "my savings are neither thin nor fat.",
        "it may be medium, my {k} agreed.",
        "something in the middle.",
        "a fair amount, I sold the old {o} {w}.",
        "an average sum, like my neighbours.",
        "so so, says my {k}.",
    ),
    PURSES[2]: (
        "my savings are fat, I was promoted {w}.",
        "it may be dear, my {k} pays half.",
        "money is no worry.",
        "plenty, I won a prize {w}.",
        "I inherited a fortune.",
        "whatever it takes, says my {k}.",
    ),
    "warms": (
        "oh, that sounds wonderful.",
        "now I am all ears.",
        "you have me smiling.",
        "my {k} will be delighted.",
        "that changes everything.",
        "I could get used to that.",
    ),
    "shrugs": (
        "that leaves me cold.",
        "if you say so.",
        "that is nothing to me.",
        "my {k} would yawn.",
        "I do not care for that.",
        "is that all?",
    ),
    "too dear": (
        "that is too dear for me.",
        "no, that is above what I pay.",
        "my {k} would never forgive me for that price.",
        "you must be joking, so expensive.",
        "that is out of reach.",
        "I cannot go so high.",
    ),
    "confused": (
        "sorry, I did not follow.",
        "what do you mean?",
        "pardon, say that again.",
        "I am not sure what you are after.",
        "come again?",
        "that went past me.",
    ),
    "buys": (
        "deal, I take it.",
        "wonderful, where do I sign?",
        "sold, my {k} will love it.",
        "good, wrap it up.",
        "agreed, here is my card.",
        "yes, hand me the keys.",
    ),
    "misses": (
        "I wanted it, and you do not have it, goodbye.",
        "so where is it, not on the lot, what a pity.",
        "gladly, but there is none here, I see, farewell.",
        "sold out, and you offer it, shame on you.",
        "I came in vain then, it is gone.",
        "no car to drive home, then no deal.",
    ),
    "leaves": (
        "I have to go now, goodbye.",
        "enough, I try next door.",
        "my {k} calls, another time.",
        "thanks, I will think it over at home.",
        "this takes too long, bye.",
        "I have seen enough for today.",
    ),
}
_OPENINGS = (
    "I am looking for a car.",
    "my {o} gave up {w}.",
    "do you sell cars to people like me?",
    "my {k} sent me, we need a car.",
    "what have you got out there?",
    "I sold my {o} {w} and need another one.",
    "I walk to work since {w}.",
    "is anybody here?",
)


def _templates(halved: bool) -> dict[str, tuple[Template, ...]]:
    """Which half it is changes with the meaning, so that turns of phrase are in it for some meanings."""
    found = {}
    for i, (meant, sentences) in enumerate(_SAID.items()):
        found[meant] = weighed([(1.0, sentences[i % 2 :: 2] if halved else sentences)], WORDS)
    return found


BUYER = Grammar(STARTS, _templates(halved=False))
"""all that is said after a turn of the agent"""
HALF = Grammar(STARTS, _templates(halved=True))
"""the same with every other sentence of each meaning"""
OPENING = Grammar(GREETINGS, {"comes in": weighed([(1.0, _OPENINGS)], WORDS)})
"""and before the first one: it tells nothing"""


def shelf(dearest: int, cars: Collection[int]) -> str:
    """What the tool answers, as JSON, if the cars up to the price `dearest` are there.

    `cars` are the prices of those that were asked for.
    """
    asked = sorted(cars)
    return json.dumps(
        {
            "in stock": [CARS[k - 1] for k in asked if k <= dearest],
            "sold": [CARS[k - 1] for k in asked if k > dearest],
        }
    )
