"""What the scripted negotiator says, and how utterances are read exactly.

Every sentence of the script has one meaning, and a wording is drawn uniformly among those of its meaning. The
reader knows more English than the script speaks, and calls whatever is not plain `NONE`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from turnwise.envs.tasks.negotiation.claims import ALL, HALF, LISTENER, REST, SPEAKER, Claim, read_claims
from turnwise.envs.tasks.negotiation.game import SELECTION, Turn
from turnwise.envs.tasks.negotiation.scenarios import ITEMS, Triple, remainder, triple


class Act(NamedTuple):
    """What an utterance does. `share` is what its speaker would take, for an offer only."""

    kind: Literal["offer", "accept", "refuse", "leave", "close", "none"]
    share: Triple | None = None


ACCEPT, REFUSE, LEAVE, CLOSE, NONE = (Act(kind) for kind in ("accept", "refuse", "leave", "close", "none"))

OFFERS = (
    "I would like {mine}, you can have the rest.",
    "Give me {mine} and you keep the rest.",
    "You can have {yours}, I take the rest.",
    "How about {mine} for me and the rest for you?",
)
ALL_OR_NOTHING = {  # whether the speaker takes it all: these shares cannot be said by what they have and lack
    True: ("I would like everything.", "Give me everything."),
    False: ("You can have everything.",),
}
WORDINGS = {
    "accept": ("Deal!", "Okay, that works for me.", "Yes, I agree.", "Fine, it is a deal."),
    "refuse": (
        "That is not enough for me.",
        "No, think again.",
        "Sorry, I cannot do that.",
        "I will not agree.",
    ),
    "leave": ("No deal then, goodbye.", "I give up.", "Forget it, I walk away.", "There will be no deal."),
    "close": (SELECTION,),
    "none": (),
}
_NUMBERS = ("no", "one", "two", "three", "four")
_LEAVING = re.compile(r"\b(?:no deal|goodbye|bye|give up|forget it|walk(?:ing)? away)\b")
_AGREEING = re.compile(r"\b(?:deal|agreed?|ok|okay|yes|yeah|yep|sure|fine|accept(?:ed)?|works)\b")
_NEGATION = re.compile(r"\b(?:no|not|nope|never|cannot|dont|cant|wont|\w+n['’]t)\b")
_REFUSING = re.compile(r"\b(?:sorry|refuse)\b")


def things(counts: Triple, share: Triple) -> str:
    """A share in words: "the book, one hat and two balls". A share of nothing has none."""
    named = []
    for item, count, k in zip(ITEMS, counts, share, strict=True):
        if k:
            amount = "the" if k == count else _NUMBERS[k]
            named.append(f"{amount} {item}{'s' if k > 1 else ''}")
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def wordings(act: Act, counts: Triple) -> tuple[str, ...]:
    """The sentences of an act when `counts` lie on the table, each once; `NONE` has none."""
    if act.share is None:
        return WORDINGS[act.kind]
    if not any(act.share) or act.share == counts:
        return ALL_OR_NOTHING[act.share == counts]
    mine, yours = things(counts, act.share), things(counts, remainder(counts, act.share))
    return tuple(template.format(mine=mine, yours=yours) for template in OFFERS)


@lru_cache(maxsize=1 << 14)
def read_act(text: str, counts: Triple) -> Act:
    """What an utterance does when `counts` lie on the table; `NONE` if that is not plain.

    An utterance that claims items is an offer, if its claims fit one division and negate nothing. One without
    claims accepts, refuses or leaves by its words. Case and punctuation do not matter. The reader is total:
    it has an answer for any string.
    """
    if SELECTION in text:
        return CLOSE
    _, claims = read_claims(text)
    if claims:
        share = _division(claims, counts)
        return NONE if share is None else Act("offer", share)
    text = text.lower()
    negated = bool(_NEGATION.search(text))
    if _LEAVING.search(text):
        return LEAVE
    if _AGREEING.search(text) and not negated:
        return ACCEPT
    return REFUSE if negated or _REFUSING.search(text) else NONE


def _division(claims: Sequence[Claim], counts: Triple) -> Triple | None:
    """What the speaker takes if all claims hold; None if they are unclear, too large or contradictory."""
    sides = {c.side for c in claims}
    if not sides <= {SPEAKER, LISTENER} or any(c.negated or c.amount == HALF for c in claims):
        return None
    taken: dict[tuple[int, int], int] = {}  # (side, item): how many
    for c in claims:
        if c.item != REST:
            amount = counts[c.item] if c.amount == ALL else c.amount
            if amount > counts[c.item] or taken.setdefault((c.side, c.item), amount) != amount:
                return None
    rests = {c.side for c in claims if c.item == REST}
    if len(rests) > 1 or (not rests and len(sides) > 1 and len({item for _, item in taken}) < len(ITEMS)):
        return None  # nobody knows who gets what was not named
    # Without a word on the rest, it goes to the side that asked for nothing.
    heir = rests.pop() if rests else -next(iter(sides))
    share = []
    for item, count in enumerate(counts):
        mine, theirs = taken.get((SPEAKER, item)), taken.get((LISTENER, item))
        if mine is None and theirs is None:
            share.append(count if heir == SPEAKER else 0)
        elif mine is not None and theirs is not None and mine + theirs != count:
            return None
        else:
            share.append(mine if mine is not None else count - (theirs or 0))
    return triple(share)


class Standing(NamedTuple):
    """Where a talk stands, as one side has it.

    `share` is what this side takes if the last offer becomes the deal; None if no offer stands. `mine`: this
    side made that offer. `accepted`: the other side of the offer has said yes. `left`: somebody has walked
    away.
    """

    share: Triple | None = None
    mine: bool = False
    accepted: bool = False
    left: bool = False


def standing(counts: Triple, turns: Sequence[Turn]) -> Standing:
    """Where the talk stands after these turns.

    The last offer counts. Its listener may accept it or refuse it, after which nothing is offered; its
    speaker can only replace it. Nothing can be agreed on after somebody has walked away.
    """
    now = Standing()
    for who, text in turns:
        act, mine = read_act(text, counts), who == "me"
        if act.kind == "leave":
            return Standing(left=True)
        if act.share is not None:
            now = Standing(act.share if mine else remainder(counts, act.share), mine)
        elif now.share is not None and now.mine != mine:
            if act.kind == "accept":
                now = now._replace(accepted=True)
            elif act.kind == "refuse":
                now = Standing()
    return now


def read_deal(counts: Triple, turns: Sequence[Turn]) -> Triple | None:
    """The share of "me" at the end of a talk; a `Read` for the table.

    Whoever closes the talk takes the offer of the other side, if one stands. Its own offer becomes a deal
    only if the other side has accepted it.
    """
    now = standing(counts, turns)
    closer = turns[-1][0] == "me"
    return now.share if now.accepted or now.mine != closer else None
