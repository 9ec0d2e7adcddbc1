"""The travel desk: find out what holiday a guest dreams of, keep the guest at ease, and make one offer.

Place and pace of the holiday are hidden, and so is whether the guest is in a hurry. What the guest says about
the first two is right with probability 0.85; questions put it into a hurry, and who is in a hurry grumbles
and leaves; soothing words help. The offer ends the conversation, and only then anything is earned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message, Reference, Response, signed, task_words
from turnwise.envs.tasks.travel import rules
from turnwise.envs.tasks.travel.guest import GUEST, OPENING
from turnwise.envs.tasks.travel.reading import read_act
from turnwise.envs.tasks.travel.rules import ANSWERS, HORIZON, LAST_WORDS, LEFT, PACES, PAYOFFS, PLACES, Act
from turnwise.run.errors import SettingError


@dataclass
class _Conversation:
    rng: np.random.Generator
    place: int
    pace: int
    hurried: bool
    turn: int = 0
    over: bool = False

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)


class TravelDesk:
    """A simulated guest: a `DialogueTask`.

    An offer pays 1 if place and pace are right, -0.25 if one of them is, and -1 if neither is. A guest who
    leaves costs 0.5, and so does the eighth turn without an offer. Nothing else is paid. All ends are
    terminations.
    """

    name = "travel"

    def __init__(self, acts: bool = False) -> None:
        """`acts`: every message of the logs, and every one of the live guest, carries its act.

        SettingError for what is not true or false.
        """
        if not isinstance(acts, bool):
            raise SettingError("acts", acts, "true or false")
        self.acts = acts
        self._lanes: dict[int, _Conversation] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {"acts": True} if self.acts else {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """A new guest from each seed. Its opening hints at whether it is in a hurry, and at nothing else."""
        openings = []
        for lane, seed in zip(lanes, seeds, strict=True):
            rng = np.random.default_rng(seed)
            place, pace = int(rng.random() * len(PLACES)), int(rng.random() * len(PACES))
            talk = _Conversation(rng, place, pace, hurried=bool(rng.random() < rules.HURRIED))
            self._lanes[lane] = talk
            act = rules.OPENINGS[talk.chance(rules.SOUNDS_HURRIED[talk.hurried])]
            openings.append((self._message(OPENING.say(act, rng).text, act),))
        return openings

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """Read each reply and answer it. ValueError if a lane's conversation is over."""
        return [self._answer(lane, reply) for lane, reply in zip(lanes, replies, strict=True)]

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """What the guest dreams of, and whether it is in a hurry now."""
        talk = self._lanes[lane]
        return {"place": PLACES[talk.place], "pace": PACES[talk.pace], "hurried": talk.hurried}

    def rows(self, conversations: int, seed: int) -> Iterator[dict[str, Any]]:
        """Conversations of the whimsical desk in the log format (`travel_logs`)."""
        from turnwise.envs.tasks.travel.logs import travel_logs  # the logs are made with this class

        rows = travel_logs(conversations, seed, acts=self.acts)
        return signed(rows, task_words(self.name, self.settings))

    def references(self) -> list[Reference]:
        """What the best agent earns, what the logs earned, and what a guess at once earns, exactly."""
        from turnwise.envs.tasks.travel.exact import behavior_value, guess_value, optimal_value  # as above

        return [
            Reference("optimum", "optimum", optimal_value(), note="by backward induction over all beliefs"),
            Reference("behaviour", "behaviour", behavior_value(), note="the desk that wrote the logs"),
            Reference("offers at once", "baseline", guess_value(), note="any offer, before any question"),
        ]

    def _answer(self, lane: int, reply: str) -> Response:
        talk = self._lanes[lane]
        if talk.over:
            raise ValueError(f"lane {lane}: the conversation is over; reset the lane first")
        act = read_act(reply)
        talk.turn += 1
        info: dict[str, Any] = {"act": str(act), "read": act.kind != "none"}
        if act.kind == "offer":
            right = (act.place == talk.place) + (act.pace == talk.pace)
            return self._last(talk, LAST_WORDS[right], PAYOFFS[right], info | {"success": right == 2})
        leaves = rules.LEAVES_SOOTHED if act.kind == "soothe" else rules.LEAVES
        if talk.chance(leaves[talk.hurried]):
            return self._last(talk, "leaves", LEFT, info | {"success": False})
        meant = self._meant(talk, act)
        if talk.turn == HORIZON:
            return self._last(talk, "leaves", LEFT, info | {"success": False})
        return Response((self._message(GUEST.say(meant, talk.rng).text, meant),), 0.0, info=info)

    def _meant(self, talk: _Conversation, act: Act) -> str:
        """What the guest answers; its mood changes on the way."""
        if act.kind == "soothe":
            talk.hurried = talk.hurried and not talk.chance(rules.SOOTHES)
            return "calm" if talk.chance(rules.SOUNDS_CALM[talk.hurried]) else "grumble"
        grumbles = talk.chance(rules.GRUMBLES[talk.hurried])
        talk.hurried = talk.hurried or talk.chance(rules.WEARS)
        if act.kind == "none":
            return "confused"
        if grumbles:
            return "grumble"
        truth = talk.place if act.kind == "ask place" else len(PLACES) + talk.pace
        return ANSWERS[truth if talk.chance(rules.RELIABILITY) else truth ^ 1]

    def _last(self, talk: _Conversation, act: str, reward: float, info: dict[str, Any]) -> Response:
        talk.over = True
        message = self._message(GUEST.say(act, talk.rng).text, act)
        return Response((message,), reward, terminated=True, info=info)

    def _message(self, text: str, act: str) -> Message:
        message = Message("user", text, act=act)
        return message if self.acts else replace(message, act=None)
