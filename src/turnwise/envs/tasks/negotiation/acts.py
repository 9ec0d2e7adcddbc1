"""What is meant in a negotiation, in a few dozen acts that do not depend on what lies on the table.

An offer is one of a hundred divisions, and says little by itself: what counts is what it would bring. So an
act is the kind of an utterance, and for offers the agent's points, which its private values (the system
message) tell. `agent_act`, `partner_act` and `opening_act` are functions for a codebook; `word_act` goes the
other way. Utterances are read as people's are, roughly (`claims`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.negotiation.features import offered
from turnwise.envs.tasks.negotiation.game import SELECTION, read_system_message
from turnwise.envs.tasks.negotiation.scenarios import ITEMS, Triple, divisions, points, remainder
from turnwise.envs.tasks.negotiation.words import read_act

BANDS = ((0, 3), (4, 5), (6, 6), (7, 7), (8, 8), (9, 9), (10, 10))
"""points that count as the same, lowest and highest; below 4 an agent had better talk on"""
CONCENTRATED = 8
"""points that all items of one kind bring, from which on a side cares for little else"""
_NOTE = re.compile(r"worth (\d+)")
_NOTHING = "nothing agreed"


def agent_act(text: str, before: Sequence[Message]) -> str:
    """`offer, 7 for me`, or accept, refuse, leave, close, talk."""
    counts, values = _table(before)
    if SELECTION not in text and (share := offered(text, counts)) is not None:
        return f"offer, {_band(points(values, share))} for me"
    return _kind(text, counts)


def partner_act(text: str, before: Sequence[Message]) -> str:
    """`offer, 4-5 for me`, accept, refuse, ...; with what a note says closing would bring: `accept; worth 7`.

    Where there is a note it says what the offer is worth, and the act does not say it twice.
    """
    counts, values = _table(before)
    lines = text.split("\n")
    noted = len(lines) > 1 and (_NOTE.fullmatch(lines[-1]) or lines[-1] == _NOTHING)
    note = lines.pop() if noted else None
    said = "\n".join(lines)
    share = None if SELECTION in said else offered(said, counts)
    act = _kind(said, counts) if share is None else "offer"
    if act == "close":
        return act
    if note is None:
        return act if share is None else f"offer, {_band(points(values, remainder(counts, share)))} for me"
    worth = _NOTE.fullmatch(note)
    return f"{act}; {_NOTHING if worth is None else f'worth {_band(int(worth[1]))}'}"


def opening_act(text: str, before: Sequence[Message]) -> str:
    """Whether one kind of item is nearly all that counts, and what the partner began with, if it began."""
    system, _, said = text.partition("\n")
    counts, values = read_system_message(system)
    most = max(c * v for c, v in zip(counts, values, strict=True))
    cares = "cares for one thing" if most >= CONCENTRATED else "cares for several"
    if not said:
        return f"{cares}; the agent begins"
    return f"{cares}; {partner_act(said, (Message('system', system),))}"


def word_act(act: str, before: Sequence[Message], rng: np.random.Generator) -> str | None:
    """An utterance of an agent's act; None for those that have no words of their own (refuse, talk).

    An offer asks for the band's points in the fewest items: what is worth little to the agent may be worth
    much to the other side. If no division brings that, it is the next better one.
    """
    if act == "close":
        return SELECTION
    if act == "accept":
        return ("deal .", "okay , deal .", "ok that works .")[int(rng.integers(3))]
    if not act.startswith("offer"):
        return None
    counts, values = _table(before)
    low, high = next(band for band in BANDS if act == f"offer, {_words(band)} for me")
    shares = divisions(counts)
    worth = [points(values, s) for s in shares]
    least = min(w for w in worth if w >= low)
    wanted = [s for s, w in zip(shares, worth, strict=True) if low <= w <= max(high, least)]
    fewest = min(map(sum, wanted))
    share = [s for s in wanted if sum(s) == fewest][int(rng.integers(sum(sum(s) == fewest for s in wanted)))]
    if share == counts:
        return "i would like everything ."
    if not any(share):
        return "you can have everything ."
    mine = [f"{k} {item}{'s' if k > 1 else ''}" for item, k in zip(ITEMS, share, strict=True) if k]
    asked = (
        "i would like {} , you can have the rest .",
        "give me {} and you keep the rest .",
        "how about {} for me and the rest for you ?",
    )
    return asked[int(rng.integers(len(asked)))].format(" and ".join(mine))


def _table(before: Sequence[Message]) -> tuple[Triple, Triple]:
    """Counts and the agent's values. ValueError if no message says them."""
    system = next((m.content for m in before if m.role == "system"), None)
    if system is None:
        raise ValueError("expected a system message with counts and values, as negotiations have it")
    return read_system_message(system)


def _kind(text: str, counts: Triple) -> str:
    kind = read_act(text, counts).kind
    return "talk" if kind in ("none", "offer") else kind


def _band(worth: int) -> str:
    return _words(next(band for band in BANDS if band[0] <= worth <= band[1]))


def _words(band: tuple[int, int]) -> str:
    return str(band[0]) if band[0] == band[1] else f"{band[0]}-{band[1]}"
