"""The car dealer: find out what moves a buyer, how deep the pocket is and what is on the lot; then quote.

Persona and budget of the buyer are hidden, and so is the stock, which a tool shows to whoever calls it. Each
question may be answered wrongly and costs patience; the sale ends the conversation, and only then anything is
earned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message, Reference, Response, signed, task_words
from turnwise.envs.tasks.dealer import rules
from turnwise.envs.tasks.dealer.buyer import BUYER, OPENING, shelf
from turnwise.envs.tasks.dealer.reading import called_cars, read_act, read_shelf
from turnwise.envs.tasks.dealer.rules import HORIZON, PERSONAS, PURSES, STOCKS, TOOL, WISHES, Act, call_id
from turnwise.run.errors import SettingError


@dataclass
class _Conversation:
    rng: np.random.Generator
    persona: int
    budget: int
    dearest: int
    pitches: int = 0
    discounts: int = 0
    turn: int = 0
    over: bool = False

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    @property
    def pays(self) -> int:
        """The dearest price that it takes now."""
        moved = rules.moved(self.persona, self.pitches > 0, self.discounts > 0)
        return self.budget + rules.MOVED * moved


class CarDealer:
    """A simulated buyer, and a tool: a `DialogueTask`.

    A sale earns the price in thousands, less 0.4 for each discount and 0.05 for each pitch. A buyer who
    leaves brings nothing, and so does a car that it takes and that is not on the lot, and the eighth turn
    without a sale. All ends are terminations. A message with a call of the tool is answered by the tool.
    """

    name = "dealer"

    def __init__(self, unseen_wordings: bool = False, acts: bool = False) -> None:
        """No setting changes what is meant, what is earned, or any of the references.

        `unseen_wordings`: half of the sentences for everything that the buyer means stand in no log, and are
        spoken live as often as the others. `acts`: every message of the logs, and every one of the live buyer
        and of the tool, carries its act. SettingError for what is not true or false.
        """
        for key, value in (("unseen_wordings", unseen_wordings), ("acts", acts)):
            if not isinstance(value, bool):
                raise SettingError(key, value, "true or false")
        self.unseen_wordings, self.acts = unseen_wordings, acts
        self.words = BUYER
        """what the buyer's sentences are drawn from"""
        self._lanes: dict[int, _Conversation] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {key: True for key in ("unseen_wordings", "acts") if getattr(self, key)}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """A new buyer from each seed. Its opening says nothing about what is hidden."""
        openings = []
        for lane, seed in zip(lanes, seeds, strict=True):
            rng = np.random.default_rng(seed)
            persona = int(rng.random() * len(PERSONAS))
            budget = int(np.searchsorted(np.cumsum(rules.BUDGET_CHANCES[:-1]), rng.random(), side="right"))
            dearest = STOCKS[int(rng.random() * len(STOCKS))]
            self._lanes[lane] = _Conversation(rng, persona, rules.BUDGETS[budget], dearest)
            openings.append((self._message(OPENING.say("comes in", rng).text, "comes in"),))
        return openings

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """Read each reply and answer it. ValueError if a lane's conversation is over."""
        return [self._answer(lane, reply) for lane, reply in zip(lanes, replies, strict=True)]

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """What moves the buyer, its budget, and the price of the dearest car on the lot."""
        talk = self._lanes[lane]
        return {"persona": PERSONAS[talk.persona], "budget": talk.budget, "dearest": talk.dearest}

    def rows(self, conversations: int, seed: int) -> Iterator[dict[str, Any]]:
        """Conversations of the seller of habits in the log format (`dealer_logs`)."""
        from turnwise.envs.tasks.dealer.logs import dealer_logs  # the logs are made with this class

        rows = dealer_logs(conversations, seed, halved=self.unseen_wordings, acts=self.acts)
        return signed(rows, task_words(self.name, self.settings))

    def references(self) -> list[Reference]:
        """What the best seller earns, what the logs earned, and what one price at once earns, exactly."""
        from turnwise.envs.tasks.dealer.exact import (  # as above
            behavior_value,
            improved_value,
            optimal_value,
            quote_value,
        )

        improved = "greedy on the behaviour's own exact values: as far as Monte-Carlo values lead"
        return [
            Reference("optimum", "optimum", optimal_value(), note="by backward induction over all beliefs"),
            Reference("behaviour", "behaviour", behavior_value(), note="the seller that wrote the logs"),
            Reference("one step of improvement", "baseline", improved_value(), note=improved),
            Reference("offers the saloon at once", "baseline", quote_value(2), note="before any question"),
        ]

    def _answer(self, lane: int, reply: str) -> Response:
        talk = self._lanes[lane]
        if talk.over:
            raise ValueError(f"lane {lane}: the conversation is over; reset the lane first")
        act = read_act(reply)
        talk.turn += 1
        info: dict[str, Any] = {"act": str(act), "read": act.kind != "none"}
        if act.kind == "quote" and act.price <= talk.pays:
            sold = act.price <= talk.dearest
            earned = act.price - rules.DISCOUNT * talk.discounts - rules.PITCH * talk.pitches if sold else 0.0
            return self._last(talk, "buys" if sold else "misses", earned, info)
        shown = self._shown(talk, reply) if act.kind == "look up" else ()
        leaves = self._leaves(talk, act)
        meant = self._meant(talk, act)
        if leaves or talk.turn == HORIZON:
            return self._last(talk, "leaves", 0.0, info, shown)
        return Response(
            shown or (self._message(self.words.say(meant, talk.rng).text, meant),), 0.0, info=info
        )

    def _leaves(self, talk: _Conversation, act: Act) -> bool:
        if act.kind == "pitch":
            talk.pitches += 1
            return talk.chance(rules.LEAVES_PITCHED[talk.persona])
        if act.kind == "discount":
            talk.discounts += 1
            return talk.chance(rules.LEAVES_DISCOUNTED[talk.persona])
        return talk.chance(rules.LEAVES_REFUSED if act.kind == "quote" else rules.LEAVES)

    def _meant(self, talk: _Conversation, act: Act) -> str:
        if act.kind == "ask wishes":
            return self._said(talk, WISHES, talk.persona)
        if act.kind == "ask budget":
            return self._said(talk, PURSES, talk.budget - 1)
        if act.kind in ("pitch", "discount"):
            return "warms" if talk.persona == (1 if act.kind == "pitch" else 0) else "shrugs"
        return "too dear" if act.kind == "quote" else "confused"

    def _said(self, talk: _Conversation, answers: Sequence[str], truth: int) -> str:
        if talk.chance(rules.RELIABILITY):
            return answers[truth]
        wrong = [a for i, a in enumerate(answers) if i != truth]
        return wrong[int(talk.rng.random() * len(wrong))]

    def _shown(self, talk: _Conversation, reply: str) -> tuple[Message, ...]:
        """The tool's answer; it belongs to the call of this turn."""
        text = shelf(talk.dearest, called_cars(reply))
        told = "/".join(map(str, read_shelf(text)))
        message = Message("tool", text, name=TOOL, tool_call_id=call_id(talk.turn), act=f"stock {told}")
        return (message if self.acts else replace(message, act=None),)

    def _last(
        self,
        talk: _Conversation,
        act: str,
        reward: float,
        info: dict[str, Any],
        shown: Sequence[Message] = (),
    ) -> Response:
        talk.over = True
        last = self._message(self.words.say(act, talk.rng).text, act)
        info = info | {"success": act == "buys"}
        return Response((*shown, last), reward, terminated=True, info=info)

    def _message(self, text: str, act: str) -> Message:
        message = Message("user", text, act=act)
        return message if self.acts else replace(message, act=None)
