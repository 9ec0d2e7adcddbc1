"""Two sides who talk at one table, and one of the two sides as a dialogue task.

A `Table` keeps the rules of a game of talk between side "a" and side "b". A `Speaker` fills a side: a script,
a language model or a server (`rollout/partners`). `Against` gives one side to a speaker and the other to
the agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from turnwise.envs.dialogue import Message, Response

Side = Literal["a", "b"]


class Ending(Protocol):
    """How a game ended, seen from one side."""

    @property
    def reward(self) -> float:
        """This side's reward, in the units of the game."""
        ...

    @property
    def info(self) -> Mapping[str, Any]:
        """What else is worth counting; "success" in it is counted by measures."""
        ...


class Table(Protocol):
    """The rules for a batch of lanes: who sees what, whose turn it is, how it ends."""

    def open(self, lane: int, rng: np.random.Generator) -> None:
        """Begin a new game in a lane. What is private, and who has the first word, is drawn from `rng`."""
        ...

    def whose_turn(self, lane: int) -> Side | None:
        """The side that speaks next; None if the game is over."""
        ...

    def seen_by(self, lane: int, side: Side) -> tuple[Message, ...]:
        """The whole conversation as this side has it: itself is the assistant, the other side the user."""
        ...

    def say(self, lane: int, side: Side, text: str) -> bool:
        """The side speaks. Returns whether that ended the game. ValueError out of turn."""
        ...

    def outcome(self, lane: int, side: Side) -> Ending | None:
        """How it ended for this side; None while the talk goes on."""
        ...

    def hidden(self, lane: int, side: Side) -> Mapping[str, Any]:
        """What this side cannot see."""
        ...


@runtime_checkable
class Speaker(Protocol):
    """Somebody who answers in lanes."""

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Begin a new conversation in each lane; all that is random in it comes from the lane's seed."""
        ...

    def answer(self, lanes: Sequence[int], seen: Sequence[Sequence[Message]]) -> list[str | None]:
        """What is said in each lane after `seen`, all messages so far. None: the speaker cannot go on."""
        ...


def other(side: Side) -> Side:
    """The side across the table."""
    return "b" if side == "a" else "a"


class Against:
    """A game of two sides as a `DialogueTask`: the agent has `side`, the partner the other one.

    The seed of a conversation draws the game (`Table.open`) and the partner's words. The agent's reward comes
    with the end of the game. If the partner cannot go on (the context of a language model is full, a server
    is gone), the conversation has failed: it is truncated, and counts for nothing.
    """

    def __init__(self, table: Table, partner: Speaker, side: Side = "a") -> None:
        self.table, self.partner = table, partner
        self.side: Side = side
        self._stuck: set[int] = set()  # lanes whose partner cannot go on

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """New games. If the partner has the first word, it has spoken."""
        rngs = [np.random.default_rng(seed) for seed in seeds]
        for lane, rng in zip(lanes, rngs, strict=True):
            self.table.open(lane, rng)
        self.partner.reset(lanes, [int(rng.integers(2**62)) for rng in rngs])
        self._stuck -= set(lanes)
        self._let_partner_speak(lanes)
        return [self.table.seen_by(lane, self.side) for lane in lanes]

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """The agent speaks, then the partner in every lane whose game goes on."""
        heard = [len(self.table.seen_by(lane, self.side)) for lane in lanes]
        for lane, text in zip(lanes, replies, strict=True):
            # A partner may have ended the game with its first word: then nothing that the agent says counts.
            if self.table.whose_turn(lane) == self.side:
                self.table.say(lane, self.side, text)
        self._let_partner_speak(lanes)
        return [self._response(lane, n) for lane, n in zip(lanes, heard, strict=True)]

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """What the agent's side cannot see."""
        return self.table.hidden(lane, self.side)

    def _response(self, lane: int, heard: int) -> Response:
        news = [m for m in self.table.seen_by(lane, self.side)[heard:] if m.role != "assistant"]
        ending = self.table.outcome(lane, self.side)
        if ending is not None:
            return Response(tuple(news), ending.reward, terminated=True, info=ending.info)
        stuck = lane in self._stuck
        return Response(tuple(news), 0.0, truncated=stuck, failed=stuck)

    def _let_partner_speak(self, lanes: Sequence[int]) -> None:
        """The partner's turns, until it is the agent's turn in every lane or the game is over there."""
        partner: Side = other(self.side)
        while True:
            waiting = [n for n in lanes if n not in self._stuck and self.table.whose_turn(n) == partner]
            if not waiting:
                return
            said = self.partner.answer(waiting, [self.table.seen_by(lane, partner) for lane in waiting])
            for lane, text in zip(waiting, said, strict=True):
                if text is None:
                    self._stuck.add(lane)
                else:
                    self.table.say(lane, partner, text)
