"""The customer of HelpDesk, who keeps the rules: what a reply does, what it earns, and what is said then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message, Response
from turnwise.envs.tasks.helpdesk.rules import HORIZON, PARTS, RELIABILITY, TEST_COST
from turnwise.envs.tasks.helpdesk.words import (
    COMPLAINTS,
    CONFUSED_WORDINGS,
    GREETINGS,
    Phrasebook,
    act_of_answer,
    pick,
    read_act,
)


@dataclass
class _Conversation:
    rng: np.random.Generator
    fault: int
    turn: int = 0
    over: bool = False


class Customer:
    """A `DialogueTask` whose rewards follow each message, and whose messages carry their acts."""

    def __init__(self, phrasebook: Phrasebook) -> None:
        self.phrasebook = phrasebook
        self._lanes: dict[int, _Conversation] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """Begin anew with a fault drawn from each seed. The customer's opening says nothing about it."""
        openings = []
        for lane, seed in zip(lanes, seeds, strict=True):
            rng = np.random.default_rng(seed)
            self._lanes[lane] = _Conversation(rng, fault=int(rng.random() * len(PARTS)))
            text = f"{pick(GREETINGS, rng)} {pick(COMPLAINTS, rng)}"
            openings.append((Message("user", text, act="complaint"),))
        return openings

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """Read each reply and answer it. ValueError if a lane's conversation is over."""
        return [self._answer(lane, reply) for lane, reply in zip(lanes, replies, strict=True)]

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """The faulty part's name."""
        return {"fault": PARTS[self._lanes[lane].fault]}

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
            last = pick(self.phrasebook.last_words(right), talk.rng)
            message = Message("user", last, act="solved" if right else "unsolved")
            info["success"] = right
            return Response((message,), 1.0 if right else -1.0, terminated=True, info=info)
        if talk.over:
            info["success"] = False
            return Response((), -TEST_COST, terminated=True, info=info)
        if act.kind == "test":
            right = talk.rng.random() < RELIABILITY
            broken = (act.part == talk.fault) == right
            text = pick(self.phrasebook.answers(act.part, broken), talk.rng)
            meant = act_of_answer(act.part, broken)
        else:
            text, meant = pick(CONFUSED_WORDINGS, talk.rng), "confused"
        return Response((Message("user", text, act=meant),), -TEST_COST, info=info)
