"""Walks through the maze: what each message of an agent does, and what the guide answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message, Response
from turnwise.envs.tasks.grammar import pick
from turnwise.envs.tasks.maze.rules import (
    GOAL,
    HORIZON,
    NONE,
    STARTS,
    Cell,
    Observed,
    after,
    earned,
    named,
    sight,
)
from turnwise.envs.tasks.maze.words import Guide, read_act


@dataclass
class _Walk:
    rng: np.random.Generator
    cell: Cell
    moves: int = 0
    over: bool = False


class Walks:
    """A `DialogueTask` whose messages carry their acts."""

    def __init__(self, guide: Guide, observed: Observed) -> None:
        self.guide = guide
        self.observed: Observed = observed
        self._lanes: dict[int, _Walk] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """Begin anew in a cell drawn from each seed."""
        return [
            self.begin(lane, pick(STARTS, rng), rng)
            for lane, rng in zip(lanes, map(np.random.default_rng, seeds), strict=True)
        ]

    def begin(self, lane: int, cell: Cell, rng: np.random.Generator) -> tuple[Message, ...]:
        """Begin anew in that cell; `rng` draws the guide's wordings."""
        self._lanes[lane] = _Walk(rng, cell)
        return (self._seen(self._lanes[lane], understood=True),)

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """Read each reply and go there. ValueError if a lane's conversation is over."""
        return [self._go(lane, reply) for lane, reply in zip(lanes, replies, strict=True)]

    def cell(self, lane: int) -> Cell:
        """Where the walk of a lane has come to."""
        return self._lanes[lane].cell

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """Row and column of the cell."""
        row, column = self.cell(lane)
        return {"row": row, "column": column}

    def _go(self, lane: int, reply: str) -> Response:
        walk = self._lanes[lane]
        if walk.over:
            raise ValueError(f"lane {lane}: the conversation is over; reset the lane first")
        move = read_act(reply)
        walk.cell, walk.moves = after(walk.cell, move), walk.moves + 1
        arrived, reward = walk.cell == GOAL, earned(walk.cell, move)
        walk.over = arrived or walk.moves == HORIZON
        info: dict[str, Any] = {"act": move, "read": move != NONE}
        if walk.over:
            info["success"] = arrived
        if arrived:
            last = Message("user", self.guide.arrival(walk.rng), act="arrived")
            return Response((last,), reward, terminated=True, info=info)
        message = self._seen(walk, understood=move != NONE)
        return Response((message,), reward, truncated=walk.over, info=info)

    def _seen(self, walk: _Walk, understood: bool) -> Message:
        text = self.guide.observation(walk.cell, self.observed, understood, walk.rng)
        return Message("user", text, act=named(sight(walk.cell, self.observed)))
