"""HelpDesk: find which of four parts of a customer's device is broken, by asking, and name the fix.

The fault is hidden and uniform. At each turn the agent asks the customer to test a part (the answer is
right with probability 0.85, independently at each test) or names a fix, which ends the conversation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from turnwise.envs.dialogue import Message, Reference, Response, signed, task_words
from turnwise.envs.tasks.helpdesk.customer import Customer
from turnwise.envs.tasks.helpdesk.words import Phrasebook
from turnwise.run.errors import SettingError


class HelpDesk:
    """A simulated customer: a `DialogueTask`.

    A test costs 0.05, and so does an utterance that cannot be read; the right fix pays +1, a wrong one -1. A
    fix ends the conversation, and the customer has a last word. The eighth turn without a fix ends it in
    silence. Both are terminations: a truncation never occurs.
    """

    name = "helpdesk"

    def __init__(
        self, unseen_wordings: bool = False, outcome_at_end: bool = False, acts: bool = False
    ) -> None:
        """No setting changes what is meant, what is earned in all, or any of the references.

        `unseen_wordings`: half of the wordings of every answer and last word stand in no log, and are spoken
        live as often as the others. `outcome_at_end`: what a conversation earns is paid once, when it ends;
        logs have it as the outcome of the row, and no reward of a message. `acts`: every message of the logs,
        and every one of the live customer, carries its act. SettingError for what is not true or false.
        """
        for key, value in (
            ("unseen_wordings", unseen_wordings),
            ("outcome_at_end", outcome_at_end),
            ("acts", acts),
        ):
            if not isinstance(value, bool):
                raise SettingError(key, value, "true or false")
        self.unseen_wordings, self.outcome_at_end, self.acts = unseen_wordings, outcome_at_end, acts
        self._customer = Customer(Phrasebook())
        self._earned: dict[int, list[float]] = {}  # of a lane, so far

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from the defaults."""
        keys = ("unseen_wordings", "outcome_at_end", "acts")
        return {key: True for key in keys if getattr(self, key)}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """Begin anew with a fault drawn from each seed. The customer's opening says nothing about it."""
        self._earned.update((lane, []) for lane in lanes)
        return [self._shown(messages) for messages in self._customer.reset(lanes, seeds)]

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """Read each reply and answer it. ValueError if a lane's conversation is over."""
        responses = self._customer.step(lanes, replies)
        return [self._paid(lane, r) for lane, r in zip(lanes, responses, strict=True)]

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """The faulty part's name."""
        return self._customer.hidden(lane)

    def rows(self, conversations: int, seed: int) -> Iterator[dict[str, Any]]:
        """Conversations of the whimsical desk in the log format (`helpdesk_logs`)."""
        from turnwise.envs.tasks.helpdesk.logs import helpdesk_logs  # only who writes logs needs them

        rows = helpdesk_logs(
            conversations,
            seed,
            halved=self.unseen_wordings,
            outcome_at_end=self.outcome_at_end,
            acts=self.acts,
        )
        return signed(rows, task_words(self.name, self.settings))

    def references(self) -> list[Reference]:
        """What the best agent earns and what the logs earned, exactly, as undiscounted return."""
        from turnwise.envs.tasks.helpdesk.exact import behavior_value, optimal_value  # as above

        return [
            Reference("optimum", "optimum", optimal_value(), note="by backward induction over all histories"),
            Reference("behaviour", "behaviour", behavior_value(), note="the desk that wrote the logs"),
        ]

    def _shown(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        return tuple(messages) if self.acts else tuple(replace(m, act=None) for m in messages)

    def _paid(self, lane: int, response: Response) -> Response:
        reward = response.reward
        if self.outcome_at_end:
            self._earned[lane].append(reward)
            reward = math.fsum(self._earned[lane]) if response.terminated else 0.0
        return replace(response, messages=self._shown(response.messages), reward=reward)
