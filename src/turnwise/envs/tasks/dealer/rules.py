"""The rules of the car dealer as numbers, and what an utterance of the agent can do.

Money is in thousands.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

CARS = ("hatchback", "saloon", "estate", "roadster")
"""car k - 1 has price k"""
PERSONAS = ("hunter", "dreamer", "plain")
"""what moves a buyer: a discount, a pitch, nothing"""
BUDGETS = (1, 2, 3)
"""the dearest price that a buyer takes before anything has moved it"""
STOCKS = (2, 3, 4)
"""the dearest car on the lot; all below it are there too"""
BUDGET_CHANCES = (0.4, 0.2, 0.4)
HORIZON = 8  # agent turns; after the last one without a sale the buyer leaves

RELIABILITY = 0.85  # probability that an answer is right; else it is one of the other two
DISCOUNT = 0.4  # what each discount takes from the price of a sale
PITCH = 0.05  # what each pitch costs, paid at the sale
MOVED = 1  # what the right word adds to what a buyer pays, once

LEAVES = 0.03  # probability of leaving after a question, a look at the stock, or what nobody understood
LEAVES_PITCHED = (0.15, 0.03, 0.28)  # after a pitch, and
LEAVES_DISCOUNTED = (0.03, 0.15, 0.28)  # after a discount, each by persona
LEAVES_REFUSED = 0.4  # after a price that is too high

Kind = Literal["ask wishes", "ask budget", "pitch", "discount", "look up", "quote", "none"]


class Act(NamedTuple):
    """What an utterance of the agent does. Only a quote has a `price`, of 1 to 4."""

    kind: Kind
    price: int = 0

    def __str__(self) -> str:
        return f"quote {self.price}" if self.kind == "quote" else self.kind


ASK_WISHES, ASK_BUDGET, PITCH_IT, GIVE_DISCOUNT, LOOK_UP, NONE = (
    Act(kind) for kind in ("ask wishes", "ask budget", "pitch", "discount", "look up", "none")
)
QUOTES = tuple(Act("quote", k + 1) for k in range(len(CARS)))
ACTS = (ASK_WISHES, ASK_BUDGET, PITCH_IT, GIVE_DISCOUNT, LOOK_UP, *QUOTES)

WISHES = tuple(f"wants {w}" for w in ("a bargain", "a dream", "a car"))
"""what a buyer says of its wishes, by the persona that it speaks for"""
PURSES = tuple(f"pays {w}" for w in ("little", "some", "much"))
"""and of its budget"""
ANSWERS = (*WISHES, *PURSES, "warms", "shrugs", "too dear", "confused")
"""what the buyer can mean while the talk goes on; it warms to what moves it"""
LAST_WORDS = ("buys", "misses", "leaves")
"""and at its end: it has the car, wants one that is not there, or has had enough"""

TOOL = "look_up"
"""the function that says which cars are on the lot"""
ALL = "all"
"""its argument `cars` for every car; else a car, or a list of them"""


def moved(persona: int, pitched: bool, discounted: bool) -> bool:
    """Whether what was said so far moved a buyer."""
    return (persona == 0 and discounted) or (persona == 1 and pitched)


def call_id(turn: int) -> str:
    """What the call of the tool in the agent's turn of that number, from 1, and its result are known by."""
    return f"call{turn:05d}"
