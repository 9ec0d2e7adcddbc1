"""HelpDesk: find which of four parts of a customer's device is broken, by asking, and name the fix.

The fault is hidden and uniform. At each turn the agent asks the customer to test a part (the answer is
right with probability 0.85, independently at each test) or names a fix, which ends the conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message, Reference, Response, signed
from turnwise.envs.tasks.helpdesk.rules import HORIZON, PARTS, RELIABILITY, TEST_COST
from turnwise.envs.tasks.helpdesk.words import (
    COMPLAINTS,
    CONFUSED_WORDINGS,
    GREETINGS,
    SOLVED_WORDINGS,
    UNSOLVED_WORDINGS,
    answers,
    pick,
    read_act,
)


@dataclass
class _Conversation:
    rng: np.random.Generator
    fault: int
    turn: int = 0
    over: bool = False


class HelpDesk:
    """A simulated customer: a `DialogueTask`.

    A test costs 0.05, and so does an utterance that cannot be read; the right fix pays +1, a wrong one -1. A
    fix ends the conversation, and the customer has a last word. The eighth turn without a fix ends it in
    silence. Both are terminations: a truncation never occurs.
    """

    name = "helpdesk"

    def __init__(self) -> None:
        self._lanes: dict[int, _Conversation] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """Begin anew with a fault drawn from each seed. The customer's opening says nothing about it."""
        openings = []
        for lane, seed in zip(lanes, seeds, strict=True):
            rng = np.random.default_rng(seed)
            self._lanes[lane] = _Conversation(rng, fault=int(rng.random() * len(PARTS)))
            openings.append((Message("user", f"{pick(GREETINGS, rng)} {pick(COMPLAINTS, rng)}"),))
        return openings

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """Read each reply and answer it. ValueError if a lane's conversation is over."""
        return [self._answer(lane, reply) for lane, reply in zip(lanes, replies, strict=True)]

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """The faulty part's name."""
        return {"fault": PARTS[self._lanes[lane].fault]}

    def rows(self, conversations: int, seed: int) -> Iterator[dict[str, Any]]:
        """Conversations of the whimsical desk in the log format (`helpdesk_logs`)."""
        from turnwise.envs.tasks.helpdesk.logs import helpdesk_logs  # the logs are made with this class

        return signed(helpdesk_logs(conversations, seed), self.name)

    def references(self) -> list[Reference]:
        """What the best agent earns and what the logs earned, exactly, as undiscounted return."""
        from turnwise.envs.tasks.helpdesk.exact import behavior_value, optimal_value  # as above

        return [
            Reference("optimum", "optimum", optimal_value(), note="by backward induction over all histories"),
            Reference("behaviour", "behaviour", behavior_value(), note="the desk that wrote the logs"),
        ]

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
            text = pick(answers(act.part, broken), talk.rng)
        else:
            text = pick(CONFUSED_WORDINGS, talk.rng)
        return Response((Message("user", text),), -TEST_COST, info=info)
