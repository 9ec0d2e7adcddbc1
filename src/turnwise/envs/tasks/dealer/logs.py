"""The scripted seller that acts by habit, and the conversations it leaves behind.

What it does next depends on what it did last and on nothing that it heard: whoever asks does not listen, and
whoever looks at the stock offers what is not there as soon as what is. So no logged seller both finds out
something and acts on it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message, ToolCall
from turnwise.envs.tasks.dealer.buyer import BUYER, HALF
from turnwise.envs.tasks.dealer.rules import ACTS, TOOL, Act, Kind, call_id
from turnwise.envs.tasks.dealer.seller import say
from turnwise.envs.tasks.dealer.task import CarDealer
from turnwise.envs.tasks.grammar import draw

HABITS = (
    (0.20, 0.20, 0.12, 0.08, 0.15, 0.05, 0.10, 0.06, 0.04),  # at first
    (0.22, 0.22, 0.04, 0.04, 0.08, 0.10, 0.10, 0.10, 0.10),  # asked: asks on, or offers any car
    (0.12, 0.12, 0.06, 0.04, 0.06, 0.15, 0.15, 0.15, 0.15),  # looked: offers any car
    (0.05, 0.05, 0.28, 0.12, 0.05, 0.06, 0.14, 0.15, 0.10),  # pushed: pushes on, or offers a dear car
    (0.06, 0.06, 0.06, 0.10, 0.04, 0.30, 0.20, 0.10, 0.08),  # was refused: offers cheap cars
)
"""P of each of `ACTS` (ask wishes, ask budget, pitch, discount, look up, quote 1 to 4) in each habit"""
AFTER: Mapping[Kind, int] = MappingProxyType(
    {"ask wishes": 1, "ask budget": 1, "look up": 2, "pitch": 3, "discount": 3, "quote": 4}
)
"""the habit after an act"""


def behavior_probabilities(last: Act | None) -> tuple[float, ...]:
    """The probability of each of `ACTS` after the last one; None before any."""
    return HABITS[0 if last is None else AFTER[last.kind]]


def dealer_logs(
    conversations: int, seed: int, *, halved: bool = False, acts: bool = False
) -> Iterator[dict[str, Any]]:
    """Conversations of the seller in the log format, one dict each.

    What was earned is the `outcome` of the row. Agent messages carry `behavior_logp`, the exact
    log-probability of the very message: of its act, and of its wording and its call. `persona`, `budget`,
    `dearest` and `success` are metadata, not for the agent's eyes. The first n conversations are the same
    whatever the number asked for.

    `halved`: the buyer speaks with half of its sentences. `acts`: every message carries its act, and the
    agent's ones `act_logp`, the log of the act's probability, whatever its wording.
    """
    seeds = np.random.default_rng(seed).integers(2**63, size=(conversations, 2))
    buyer = CarDealer(acts=True)
    buyer.words = HALF if halved else BUYER
    for i, (task_seed, seller_seed) in enumerate(seeds.tolist()):
        row = _converse(buyer, task_seed, np.random.default_rng(seller_seed))
        if not acts:
            for message in row["messages"]:
                del message["act"]
                message.pop("act_logp", None)
        yield {"id": f"d-{i + 1:06d}", **row}


def _converse(buyer: CarDealer, task_seed: int, rng: np.random.Generator) -> dict[str, Any]:
    (opening,) = buyer.reset([0], [task_seed])
    truth = buyer.hidden(0)
    messages = [_as_dict(m) for m in opening]
    last = None
    for turn in itertools.count(1):
        probabilities = behavior_probabilities(last)
        chosen = draw(probabilities, rng)
        last = ACTS[chosen]
        said = say(last, rng)
        (response,) = buyer.step([0], [said.text])
        calls = None if said.arguments is None else (ToolCall(call_id(turn), TOOL, said.arguments),)
        act_logp = math.log(probabilities[chosen])
        row = _as_dict(Message("assistant", said.content, tool_calls=calls, act=str(last)))
        messages.append(row | {"act_logp": act_logp, "behavior_logp": act_logp + said.logp})
        messages += [_as_dict(m) for m in response.messages]
        if response.terminated:
            end = {"terminated": True, "outcome": response.reward, "success": response.info["success"]}
            return {"messages": messages, **end, **truth}
    raise AssertionError("a conversation has an end")


def _as_dict(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        row["name"] = message.name
    if message.tool_calls is not None:
        row["tool_calls"] = [_call_as_dict(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        row["tool_call_id"] = message.tool_call_id
    return row | {"act": message.act}


def _call_as_dict(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
