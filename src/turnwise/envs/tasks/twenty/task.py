"""Attribute twenty questions: find out which of 32 things somebody has in mind, by asking what is true of it.

Twelve turns stand in for the twenty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from turnwise.envs.dialogue import Message, Reference, Response, signed, task_words
from turnwise.envs.tasks.twenty.game import Games
from turnwise.envs.tasks.twenty.words import ANSWERER
from turnwise.run.errors import SettingError


class TwentyQuestions:
    """Somebody with an everyday thing in mind: a `DialogueTask`.

    Every turn costs 1, but the one with the right guess, which ends the conversation. So does the twelfth
    turn, whatever was found out: all ends are terminations. What cannot be read costs a turn.
    """

    name = "twenty"

    def __init__(self, noisy: bool = False, unseen_wordings: bool = False, acts: bool = False) -> None:
        """`noisy`: one answer in ten about what is true of the thing is false, drawn anew each time.

        `unseen_wordings`: half of the wordings of every answer stand in no log, and are spoken live as often
        as the others. `acts`: every message of the logs, and every one of the live partner, carries its act.
        SettingError for what is not true or false.
        """
        for key, value in (("noisy", noisy), ("unseen_wordings", unseen_wordings), ("acts", acts)):
            if not isinstance(value, bool):
                raise SettingError(key, value, "true or false")
        self.noisy, self.unseen_wordings, self.acts = noisy, unseen_wordings, acts
        self._games = Games(ANSWERER, noisy)
        self._paid: dict[int, int] = {}  # turns of a lane so far

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {key: True for key in ("noisy", "unseen_wordings", "acts") if getattr(self, key)}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """Begin anew with a thing drawn from each seed. The opening says nothing about it."""
        self._paid.update(dict.fromkeys(lanes, 0))
        return [self._shown(messages) for messages in self._games.reset(lanes, seeds)]

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """Read each reply and answer it. ValueError if a lane's conversation is over."""
        responses = self._games.step(lanes, replies)
        return [self._measured(lane, r) for lane, r in zip(lanes, responses, strict=True)]

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """The thing's name."""
        return self._games.hidden(lane)

    def rows(self, conversations: int, seed: int) -> Iterator[dict[str, Any]]:
        """Conversations of the whimsical asker in the log format (`twenty_logs`)."""
        from turnwise.envs.tasks.twenty.logs import twenty_logs  # only who writes logs needs them

        rows = twenty_logs(
            conversations, seed, noisy=self.noisy, halved_wordings=self.unseen_wordings, acts=self.acts
        )
        return signed(rows, task_words(self.name, self.settings))

    def references(self) -> list[Reference]:
        """What the best asker earns and what the logs earned, exactly; with noise what an expert earns."""
        if self.noisy:
            from turnwise.envs.tasks.twenty.noisy import noisy_references  # as above

            return list(noisy_references())
        from turnwise.envs.tasks.twenty.exact import behavior_value, optimal_value  # as above

        return [
            Reference("optimum", "optimum", optimal_value(), note="by search over all sets that may fit"),
            Reference("behaviour", "behaviour", behavior_value(), note="the asker that wrote the logs"),
        ]

    def _measured(self, lane: int, response: Response) -> Response:
        """The response as it is shown; at the end of a game without noise with its planning gap."""
        self._paid[lane] += response.reward < 0
        info = dict(response.info)
        if response.terminated and not self.noisy:
            from turnwise.envs.tasks.twenty.exact import expert_turns  # only who plays to the end needs it

            gap = self._paid[lane] - expert_turns()[self._games.thing(lane)]
            info["measures"] = {"planning gap": float(gap)}
        return replace(response, messages=self._shown(response.messages), info=info)

    def _shown(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        return tuple(messages) if self.acts else tuple(replace(m, act=None) for m in messages)
