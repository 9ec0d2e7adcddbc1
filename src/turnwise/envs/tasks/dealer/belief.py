"""What is known in a conversation with the buyer, as a row of whole numbers, for many conversations at once.

Persona, budget and stock are independent at first. Answers count: with r the reliability, an answer for one
value speaks for it by r / ((1 - r) / 2) against each other one, so of three counts only their differences
matter. That a buyer stayed after a pitch or a discount speaks by its persona; how it took them, and what it
refused, rules out combinations of persona and budget for good, and a look at the stock rules out stocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.dealer import rules
from turnwise.envs.tasks.dealer.buyer import BUYER
from turnwise.envs.tasks.dealer.reading import read_act, read_shelf
from turnwise.envs.tasks.dealer.rules import BUDGETS, HORIZON, PURSES, STOCKS, WISHES, Act

# Columns of a row.
WISH, PURSE = slice(0, 3), slice(3, 6)  # answers about wishes and budget, less the fewest of the three
PITCHES, DISCOUNTS, EXCLUDED, GONE, LAST = 6, 7, 8, 9, 10
"""how often; bits of combinations and of stocks ruled out; a number for what was done last, if it is asked"""
Last = Mapping[rules.Kind, int]
"""numbers for the last act, below `KINDS`; 0 is before any"""
KINDS = 8
_SIZES = (*[HORIZON] * 8, 1 << 9, 1 << 3, KINDS)
START = np.zeros((1, len(_SIZES)), np.int64)
"""[1, columns], before anything was said"""

# The nine combinations of persona and budget, in this order.
PERSONA = np.repeat(np.arange(3), 3)
BUDGET = np.tile(np.array(BUDGETS), 3)
_BITS = 1 << np.arange(9)
_PRIOR = np.tile(np.array(rules.BUDGET_CHANCES), 3) / 3
_ODDS = rules.RELIABILITY / ((1 - rules.RELIABILITY) / 2)
_STAYS_PITCHED = 1 - np.array(rules.LEAVES_PITCHED)
_STAYS_DISCOUNTED = 1 - np.array(rules.LEAVES_DISCOUNTED)
_MOVED_BY = {"pitch": PERSONA == 1, "discount": PERSONA == 0}
_OF_STOCK = np.arange(len(STOCKS))


def codes(rows: np.ndarray) -> np.ndarray:
    """[N], one number for each row."""
    found = np.zeros(len(rows), np.int64)
    for column, size in zip(rows.T, _SIZES, strict=True):
        found = found * size + column
    return found


def rows_of(code: np.ndarray) -> np.ndarray:
    """[N, columns], the rows of such numbers."""
    rows, left = np.zeros((len(code), len(_SIZES)), np.int64), code.copy()
    for i in reversed(range(len(_SIZES))):
        rows[:, i] = left % _SIZES[i]
        left //= _SIZES[i]
    return rows


def buyers(rows: np.ndarray) -> np.ndarray:
    """[N, 9], P(persona, budget)."""
    weights = _PRIOR * ((rows[:, [EXCLUDED]] & _BITS) == 0)
    weights = weights * (_ODDS ** rows[:, WISH])[:, PERSONA] * (_ODDS ** rows[:, PURSE])[:, BUDGET - 1]
    stays = _STAYS_PITCHED ** rows[:, [PITCHES]] * _STAYS_DISCOUNTED ** rows[:, [DISCOUNTS]]
    weights = weights * stays[:, PERSONA]
    return weights / weights.sum(1, keepdims=True)


def stocks(rows: np.ndarray) -> np.ndarray:
    """[N, 3], P(each of `STOCKS`)."""
    weights = ((rows[:, [GONE]] & (1 << _OF_STOCK)) == 0).astype(float)
    return weights / weights.sum(1, keepdims=True)


def pays(rows: np.ndarray) -> np.ndarray:
    """[N, 9], the dearest price that each buyer takes now."""
    pitched, discounted = rows[:, [PITCHES]] > 0, rows[:, [DISCOUNTS]] > 0
    moved = (_MOVED_BY["pitch"] & pitched) | (_MOVED_BY["discount"] & discounted)
    return BUDGET + rules.MOVED * moved


class Outcome(NamedTuple):
    """One answer to an act, in N conversations: the chance that they go on with it, and the rows then."""

    chance: np.ndarray
    rows: np.ndarray


class After(NamedTuple):
    """What an act does in N conversations: what it is expected to earn at once, and how they can go on."""

    earned: np.ndarray
    outcomes: list[Outcome]


def after(rows: np.ndarray, act: Act, last: Last | None = None) -> After:
    """The consequences of an act. `last`: rows say what was done last, in these numbers."""
    if act.kind == "quote":
        return _quoted(rows, act, last)
    if act.kind in ("pitch", "discount"):
        return _pushed(rows, act, last)
    chance = buyers(rows).reshape(-1, 3, 3)
    found = []
    for j in range(3):
        if act.kind == "look up":
            heard, then = stocks(rows)[:, j], _then(rows, act, last)
            then[:, GONE] = (1 << len(STOCKS)) - 1 - (1 << j)
        else:
            of, column = (WISH, 2) if act.kind == "ask wishes" else (PURSE, 1)
            true = chance.sum(column)[:, j]
            heard = true * rules.RELIABILITY + (1 - true) * (1 - rules.RELIABILITY) / 2
            then = _then(rows, act, last)
            then[:, of.start + j] += 1
            then[:, of] -= then[:, of].min(1, keepdims=True)
        found.append(Outcome((1 - rules.LEAVES) * heard, then))
    return After(np.zeros(len(rows)), found)


def _pushed(rows: np.ndarray, act: Act, last: Last | None) -> After:
    pitch = act.kind == "pitch"
    stays = (_STAYS_PITCHED if pitch else _STAYS_DISCOUNTED)[PERSONA]
    found = []
    for warm in (True, False):
        so = _MOVED_BY[act.kind] == warm
        then = _then(rows, act, last)
        then[:, PITCHES if pitch else DISCOUNTS] += 1
        then[:, EXCLUDED] |= _BITS[~so].sum()
        found.append(Outcome(buyers(rows) @ (stays * so), then))
    return After(np.zeros(len(rows)), found)


def _quoted(rows: np.ndarray, act: Act, last: Last | None) -> After:
    takes = pays(rows) >= act.price
    yes = (buyers(rows) * takes).sum(1)
    there = stocks(rows) @ (np.array(STOCKS) >= act.price)
    price = act.price - rules.DISCOUNT * rows[:, DISCOUNTS] - rules.PITCH * rows[:, PITCHES]
    then = _then(rows, act, last)
    then[:, EXCLUDED] |= takes @ _BITS
    return After(yes * there * price, [Outcome((1 - rules.LEAVES_REFUSED) * (1 - yes), then)])


def _then(rows: np.ndarray, act: Act, last: Last | None) -> np.ndarray:
    then = rows.copy()
    if last is not None:
        then[:, LAST] = last[act.kind]
    return then


def follow(history: Sequence[Message]) -> tuple[np.ndarray, int]:
    """([1, columns], turns so far) after a conversation, from what its texts mean.

    What cannot be, as after a text that no buyer says, changes nothing. A call may be words or one of
    `tool_calls`.
    """
    rows, turn, act = START.copy(), 0, rules.NONE
    for message in history:
        if message.role == "assistant":
            act, turn = _act_of(message), turn + 1
            continue
        then = rows.copy()
        if message.role == "tool":
            kept = sum(1 << STOCKS.index(k) for k in read_shelf(message.content))
            then[0, GONE] |= (1 << len(STOCKS)) - 1 - kept
        elif turn:
            _hear(then, act, BUYER.read(message.content))
        if then[0, EXCLUDED] < (1 << 9) - 1 and then[0, GONE] < (1 << len(STOCKS)) - 1:
            rows = np.minimum(then, np.array(_SIZES) - 1)  # of longer talks than the rules allow
    return rows, turn


def _act_of(message: Message) -> Act:
    calls = [f"{call.name}({call.arguments})" for call in message.tool_calls or ()]
    return read_act("\n".join([message.content, *calls]))


def _hear(rows: np.ndarray, act: Act, meant: str | None) -> None:
    """What an answer to an act adds to a row, in place."""
    if act.kind == "quote" and meant == "too dear":
        rows[:, EXCLUDED] |= (pays(rows) >= act.price) @ _BITS
    elif act.kind in ("pitch", "discount") and meant in ("warms", "shrugs"):
        rows[0, PITCHES if act.kind == "pitch" else DISCOUNTS] += 1
        so = _MOVED_BY[act.kind] == (meant == "warms")
        rows[:, EXCLUDED] |= _BITS[~so].sum()
    elif meant in WISHES + PURSES:
        of = WISH if meant in WISHES else PURSE
        rows[0, of.start + (WISHES if of is WISH else PURSES).index(meant)] += 1
        rows[:, of] -= rows[:, of].min(1, keepdims=True)
