"""Language models in the partner's place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message, Response
from turnwise.envs.tasks.negotiation.game import NegotiationTable, Scenario
from turnwise.rollout.agent import Agent


class SpeakingModel:
    """An agent that answers in lanes: it hears new messages, speaks, and remembers across turns."""

    def __init__(self, agent: Agent, lanes: int):
        self.chat = agent.chat
        self.model = agent.lane_model(lanes, self.chat.stop)
        self._heard: dict[int, list[Message]] = {}

    def reset(self, lane: int, seed: int) -> None:
        """Forget the lane's conversation."""
        self._heard[lane] = []
        self.model.reset(lane, seed)

    def answer(self, lanes: Sequence[int], seen: Sequence[Sequence[Message]]) -> list[str | None]:
        """What the model says in each lane after `seen`, its whole view; None where its context is full."""
        for lane, messages in zip(lanes, seen, strict=True):
            old = self._heard[lane]
            ids = (
                self.chat.continuation(old, list(messages)[len(old) :])
                if old
                else self.chat.opening(messages)
            )
            self.model.submit(lane, ids)
        said: dict[int, str | None] = {}
        while len(said) < len(lanes):
            for u in self.model.collect():
                said[u.lane] = None if u.out_of_context else self.chat.text(u.ids)
        for lane, messages in zip(lanes, seen, strict=True):
            self._heard[lane] = [*messages, Message("assistant", said[lane] or "")]
        return [said[lane] for lane in lanes]


class NegotiationWithModel:
    """Deal or No Deal against a language model: side a is the agent's, side b the model's.

    A conversation's seed draws its scenario and who begins. The reward comes at the end: the agent's points.
    """

    def __init__(self, scenarios: Sequence[Scenario], table: NegotiationTable, partner: SpeakingModel):
        self.scenarios, self.table, self.partner = scenarios, table, partner
        self._hidden: dict[int, Mapping[str, Any]] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """New scenarios; the partner has spoken where it begins."""
        opening = []
        for lane, seed in zip(lanes, seeds, strict=True):
            rng = np.random.default_rng(seed)
            scenario = self.scenarios[int(rng.integers(len(self.scenarios)))]
            first = "a" if rng.random() < 0.5 else "b"
            self.table.open(lane, scenario, first=first)
            self.partner.reset(lane, int(rng.integers(2**62)))
            self._hidden[lane] = {"partner_values": list(scenario.values_b), "counts": list(scenario.counts)}
            if first == "b":
                opening.append(lane)
        self._let_partner_speak(opening)
        return [self.table.seen_by(lane, "a") for lane in lanes]

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """The agent speaks, then the partner wherever the talk goes on."""
        answering = [
            lane for lane, text in zip(lanes, replies, strict=True) if not self.table.say(lane, "a", text)
        ]
        full = self._let_partner_speak(answering)
        responses = []
        for lane in lanes:
            news = _since_own(self.table.seen_by(lane, "a")) if lane in answering and lane not in full else ()
            outcome = self.table.outcome(lane, "a")
            if outcome is None:
                responses.append(Response(news, 0.0, truncated=lane in full))
                continue
            info = {
                "success": outcome.agreed,
                "my_points": outcome.my_points,
                "partner_points": outcome.partner_points,
                "agreed": outcome.agreed,
                "pareto": outcome.pareto,
            }
            responses.append(Response(news, float(outcome.my_points), terminated=True, info=info))
        return responses

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """What is on the table and what it is worth to the partner."""
        return self._hidden[lane]

    def _let_partner_speak(self, lanes: Sequence[int]) -> set[int]:
        """The partner's turn in `lanes`; those in which its context is full."""
        if not lanes:
            return set()
        said = self.partner.answer(lanes, [self.table.seen_by(lane, "b") for lane in lanes])
        full = set()
        for lane, text in zip(lanes, said, strict=True):
            if text is None:
                full.add(lane)
            else:
                self.table.say(lane, "b", text)
        return full


def _since_own(messages: Sequence[Message]) -> tuple[Message, ...]:
    """What came after the agent's last message."""
    own = [i for i, m in enumerate(messages) if m.role == "assistant"]
    return tuple(messages[own[-1] + 1 :])
