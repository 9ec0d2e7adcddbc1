"""Games of guessing: what each message of an agent does, and what it is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message, Response
from turnwise.envs.tasks.grammar import Grammar
from turnwise.envs.tasks.twenty.rules import HORIZON, NAMES, NOISE, TRUE, TURN, Act
from turnwise.envs.tasks.twenty.words import read_act


@dataclass
class _Game:
    rng: np.random.Generator
    thing: int
    turn: int = 0
    over: bool = False


class Games:
    """A `DialogueTask` whose messages carry their acts."""

    def __init__(self, answerer: Grammar, noisy: bool) -> None:
        self.answerer, self.noise = answerer, NOISE if noisy else 0.0
        self._lanes: dict[int, _Game] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """Begin anew with an object drawn from each seed. The opening says nothing about it."""
        openings = []
        for lane, seed in zip(lanes, seeds, strict=True):
            rng = np.random.default_rng(seed)
            self._lanes[lane] = _Game(rng, thing=int(rng.random() * len(NAMES)))
            openings.append((self._said("opening", rng),))
        return openings

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """Read each reply and answer it. ValueError if a lane's conversation is over."""
        return [self._answer(lane, reply) for lane, reply in zip(lanes, replies, strict=True)]

    def thing(self, lane: int) -> int:
        """The object that a lane's game is about."""
        return self._lanes[lane].thing

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """The object's name."""
        return {"object": NAMES[self.thing(lane)]}

    def _answer(self, lane: int, reply: str) -> Response:
        game = self._lanes[lane]
        if game.over:
            raise ValueError(f"lane {lane}: the conversation is over; reset the lane first")
        act = read_act(reply)
        game.turn += 1
        info: dict[str, Any] = {"act": str(act), "read": act.kind != "none"}
        found = act == Act("guess", game.thing)
        game.over = found or game.turn == HORIZON
        if game.over:
            last = self._said("right" if found else "over", game.rng)
            reward = 0.0 if found else TURN
            return Response((last,), reward, terminated=True, info=info | {"success": found})
        return Response((self._said(self._meant(game, act), game.rng),), TURN, info=info)

    def _meant(self, game: _Game, act: Act) -> str:
        if act.kind == "none":
            return "confused"
        if act.kind == "guess":
            return "no"
        lies = self.noise > 0 and bool(game.rng.random() < self.noise)
        return "yes" if TRUE[game.thing][act.which] != lies else "no"

    def _said(self, act: str, rng: np.random.Generator) -> Message:
        return Message("user", self.answerer.say(act, rng).text, act=act)
