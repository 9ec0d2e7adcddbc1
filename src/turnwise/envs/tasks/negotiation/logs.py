"""Logs of negotiations: two scripts at the table, or people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.negotiation.corpus import Recording, on_offer, to_log
from turnwise.envs.tasks.negotiation.game import NegotiationTable, Read, read_system_message
from turnwise.envs.tasks.negotiation.script import ScriptedNegotiator
from turnwise.envs.tasks.negotiation.words import read_deal
from turnwise.envs.tasks.table import Against


def scripted_logs(conversations: int, seed: int, *, notes: bool = True) -> Iterator[dict[str, Any]]:
    """Negotiations of the script with itself in the log format, one dict each.

    One of the two is the agent: its last message carries its points as reward, and all its messages carry
    `behavior_logp`, the exact log-probability of the very sentence. What only the partner or the outcome
    knows is metadata. The first n conversations are the same whatever the number asked for.
    """
    seeds = np.random.default_rng(seed).integers(2**63, size=(conversations, 2))
    task = Against(NegotiationTable(read_deal, notes=notes), ScriptedNegotiator())
    agent = ScriptedNegotiator()
    for i, (game_seed, agent_seed) in enumerate(seeds.tolist()):
        agent.reset([0], [agent_seed])
        yield {"id": f"n-{i + 1:06d}", **_negotiated(task, agent, game_seed)}


def _negotiated(task: Against, agent: ScriptedNegotiator, seed: int) -> dict[str, Any]:
    (seen,) = task.reset([0], [seed])
    messages = [_as_dict(m) for m in seen]
    while True:
        text, probability = agent.say(0, seen)
        (response,) = task.step([0], [text])
        said = {"role": "assistant", "content": text, "reward": response.reward}
        messages.append(said | {"behavior_logp": math.log(probability)})
        messages += [_as_dict(m) for m in response.messages]
        if response.terminated:
            break
        seen = (*seen, Message("assistant", text), *response.messages)
    counts, values = read_system_message(seen[0].content)
    return {
        "messages": messages,
        "terminated": True,
        "counts": list(counts),
        "values": list(values),
        "partner_values": task.hidden(0)["partner_values"],
        "agreed": response.info["agreed"],
        "partner_points": response.info["partner_points"],
    }


def _as_dict(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": message.content}


def corpus_logs(
    rows: Sequence[Recording], read: Read, conversations: int, seed: int, *, notes: bool = True
) -> Iterator[dict[str, Any]]:
    """Negotiations between people in the log format, in an order drawn from the seed."""
    written = 0
    for i in np.random.default_rng(seed).permutation(len(rows)).tolist():
        if written == conversations:
            return
        shares = on_offer(rows[i], read) if notes else ()
        if (log := to_log(rows[i], shares=shares)) is not None:
            written += 1
            yield log
