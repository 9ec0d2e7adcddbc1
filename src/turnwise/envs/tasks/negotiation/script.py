"""The scripted negotiator: it has moods, comes down by a point a turn, and may lose its patience.

It is the partner of the built-in task, and the behaviour policy of its logs. Its probabilities are known, so
that the logs carry exact propensities and the value of a game against it can be computed (`exact`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.negotiation.game import Turn, Who, read_system_message
from turnwise.envs.tasks.negotiation.scenarios import Triple, divisions, points
from turnwise.envs.tasks.negotiation.words import (
    ACCEPT,
    CLOSE,
    LEAVE,
    REFUSE,
    Act,
    Standing,
    standing,
    wordings,
)

FIRST_DEMAND, LAST_DEMAND = 9, 4  # points that it asks for at its first turn; one less a turn, then no less
MOODS = (-2, 0, 1)  # points added to the demand: modest, as usual or greedy, drawn uniformly at each turn
PATIENCE = 1  # turns after which it may walk away
LEAVES = 0.1  # probability of that, at each turn that brings no deal
REFUSES = 0.25  # probability that it turns an offer down without one of its own
ACCEPTS_IN_WORDS = 0.5  # probability that it says yes and lets the other side close; else it closes itself


def demands(turn: int) -> tuple[int, ...]:
    """The points that it may ask for at its own turn number `turn`, from 0; each is as likely."""
    demand = max(FIRST_DEMAND - turn, LAST_DEMAND)
    return tuple(demand + s for s in MOODS)


@cache
def offers(counts: Triple, values: Triple, demand: int) -> tuple[Triple, ...]:
    """The shares that it may ask for to have `demand` points; each is as likely.

    They have as few points above the demand as can be, and among these as few items. If no share has so many
    points, the dearest ones. It never asks for everything.
    """
    shares = [s for s in divisions(counts) if s != counts and any(s)]
    enough = [s for s in shares if points(values, s) >= demand]
    worth = min(points(values, s) for s in enough) if enough else max(points(values, s) for s in shares)
    best = [s for s in shares if points(values, s) == worth]
    fewest = min(map(sum, best))
    return tuple(s for s in best if sum(s) == fewest)


def act_probabilities(counts: Triple, values: Triple, now: Standing, turn: int) -> Mapping[Act, float]:
    """The probability of each act at its own turn number `turn` (from 0), summed over all demands.

    With t the demand: it takes an offer worth t or more. If it does not, it walks away with probability
    `LEAVES` (from turn `PATIENCE` on), then turns an offer down with probability `REFUSES`, then makes an
    offer.
    """
    if now.left or now.accepted:
        return {CLOSE: 1.0}
    offered = now.share is not None and not now.mine
    worth = points(values, now.share) if offered and now.share is not None else -1
    leaves = LEAVES if turn >= PATIENCE else 0.0
    refuses = REFUSES if offered else 0.0
    found: dict[Act, float] = {}

    def add(act: Act, p: float) -> None:
        if p:
            found[act] = found.get(act, 0.0) + p

    for demand in demands(turn):
        p = 1 / len(MOODS)
        if worth >= demand:
            add(ACCEPT, p * ACCEPTS_IN_WORDS)
            add(CLOSE, p * (1 - ACCEPTS_IN_WORDS))
            continue
        add(LEAVE, p * leaves)
        add(REFUSE, p * (1 - leaves) * refuses)
        shares = offers(counts, values, demand)
        for share in shares:
            add(Act("offer", share), p * (1 - leaves) * (1 - refuses) / len(shares))
    return found


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """What was said, as the side that saw `messages` has it."""
    who: dict[str, Who] = {"assistant": "me", "user": "them"}
    return [(who[m.role], m.content) for m in messages if m.role in who]


class ScriptedNegotiator:
    """A `Speaker` at the negotiation table that follows the script."""

    def __init__(self) -> None:
        self._rngs: dict[int, np.random.Generator] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Draw everything in a lane from its seed from now on."""
        self._rngs |= {lane: np.random.default_rng(seed) for lane, seed in zip(lanes, seeds, strict=True)}

    def answer(self, lanes: Sequence[int], seen: Sequence[Sequence[Message]]) -> list[str | None]:
        """A sentence for each lane."""
        return [self.say(lane, messages)[0] for lane, messages in zip(lanes, seen, strict=True)]

    def say(self, lane: int, seen: Sequence[Message]) -> tuple[str, float]:
        """A sentence, and its probability given all that was seen: its act's times its wording's."""
        rng = self._rngs[lane]
        counts, values = read_system_message(seen[0].content)
        turns = turns_of(seen)
        number = sum(who == "me" for who, _ in turns)
        probabilities = act_probabilities(counts, values, standing(counts, turns), number)
        acts = list(probabilities)
        chosen = acts[int(rng.choice(len(acts), p=list(probabilities.values())))]
        options = wordings(chosen, counts)
        return options[int(rng.integers(len(options)))], probabilities[chosen] / len(options)
