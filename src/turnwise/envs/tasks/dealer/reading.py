"""How the agent's messages are understood: a reader that is total, and never raises.

A message that holds the name of the tool calls it, whatever else it says. Any other one is read by its words;
what is not plain is `NONE`.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

from turnwise.envs.tasks.dealer.rules import (
    ASK_BUDGET,
    ASK_WISHES,
    CARS,
    GIVE_DISCOUNT,
    LOOK_UP,
    NONE,
    PITCH_IT,
    QUOTES,
    STOCKS,
    TOOL,
    Act,
)

# Chat templates write calls in dozens of ways, and no sentence has this word: wherever it is, it is called.
_CALL = re.compile(TOOL)
_CAR = re.compile(r"\b(?:" + "|".join(f"({car})s?" for car in CARS) + r")\b")
_PRICE = re.compile(
    r"\b(?:" + "|".join(f"({n} thousand|{d}[,.]?000|{d} ?k)" for d, n in
                        ((1, "(?:one|a)"), (2, "two"), (3, "three"), (4, "four"))) + r")\b"
)  # fmt: skip
_NEGATION = re.compile(r"\b(?:no|not|never|nor|without|cannot|dont|cant|wont|\w+n['’]t)\b")
_DISCOUNT = re.compile(
    r"\b(?:discounts?|rebates?|reductions?|cheaper|(?:hundred|percent|\d+|something|bit|little) off"
    r"|off the price)\b"
)
_PITCH = re.compile(
    r"\b(?:imagine|feel|picture|thrill\w*|handles|purrs?|silk|dream\w*|smooth\w*|beautiful|powerful|gorgeous)\b"
)
_BUDGET = re.compile(r"\b(?:budget|spend|spending|afford|purse|pocket|money|pay)\b")
_WISHES = re.compile(r"\b(?:matters?|look(?:ing)? for|wish(?:es)?|want|like|need|kind of|important|prefer)\b")
_ASKING = re.compile(r"\?|^(?:what|how|which|do|would|are|is|can)\b|\b(?:tell me|what|how (?:much|deep))\b")


@lru_cache(maxsize=1 << 14)
def read_act(text: str) -> Act:
    """The act that the message is; `NONE` if that is not plain. Case does not matter.

    A quote names one car or one price, or both if they belong together, negates nothing and speaks of no
    discount. Without either, a message gives a discount, asks for the budget or for wishes, or praises, if
    its words are of one of these kinds alone; a question is never a discount or praise.
    """
    text = text.lower()
    if _CALL.search(text):
        return LOOK_UP
    cars = {(m.lastindex or 0) for m in _CAR.finditer(text)}
    prices = {(m.lastindex or 0) for m in _PRICE.finditer(text)}
    negated = bool(_NEGATION.search(text))
    discount, pitch = bool(_DISCOUNT.search(text)), bool(_PITCH.search(text))
    if prices or (cars and not (discount or pitch)):
        if len(cars | prices) > 1 or negated or discount:
            return NONE
        return QUOTES[min(cars | prices) - 1]
    if _ASKING.search(text) and not (discount or pitch):
        budget = bool(_BUDGET.search(text))
        return ASK_BUDGET if budget else ASK_WISHES if _WISHES.search(text) else NONE
    if negated or discount == pitch:
        return NONE
    return GIVE_DISCOUNT if discount else PITCH_IT


def called_cars(text: str) -> tuple[int, ...]:
    """The prices of the cars that a call of the tool asks for: those named behind its name, else all."""
    text = text.lower()
    found = _CALL.search(text)
    named = sorted({(m.lastindex or 0) for m in _CAR.finditer(text, found.end())} if found else ())
    return tuple(named) or tuple(range(1, len(CARS) + 1))


def read_shelf(text: str) -> tuple[int, ...]:
    """Which of `STOCKS` fit what the tool answered; all of them for any other text."""
    try:
        answer = json.loads(text)
        there, sold = answer["in stock"], answer["sold"]
        low = max((CARS.index(c) + 1 for c in there), default=0)
        high = min((CARS.index(c) + 1 for c in sold), default=len(CARS) + 1)
    except (ValueError, TypeError, KeyError, RecursionError):
        return STOCKS
    return tuple(k for k in STOCKS if low <= k < high)
