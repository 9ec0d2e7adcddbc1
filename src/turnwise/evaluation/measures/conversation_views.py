"""Conversations as the report page shows them: each message with what the critic makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.data.tokens import Tokens
from turnwise.models.lm.critics import TurnCritic
from turnwise.rollout.agent import Agent


def annotate_conversation(
    agent: Agent, dialogue: Dialogue, row: Tokens, *, source: str, hidden: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """One conversation with Q, V and advantage per token, or per turn if the critic is one of turns.

    `row` has the token ids of `dialogue`. `source` says who spoke as the agent, "policy" or "log"; `hidden`
    is what the agent could not see.
    """
    values = agent.values(row)
    per_turn = isinstance(agent.critic, TurnCritic)
    # Ids that the agent chose. The first id of a row is never a choice, so values begin at the second.
    chosen = np.flatnonzero(row.action[1:]) + 1  # [A]
    pieces = agent.chat.pieces(row.ids[chosen])
    last_of_turn = np.flatnonzero(row.turn_end[chosen])
    spans = np.split(np.arange(len(chosen)), last_of_turn + 1)  # one array of indices into `chosen` a turn
    messages, turn = [], 0
    # A conversation that filled the context has fewer turns in its row than messages: the rest stays plain.
    for m in dialogue.messages:
        shown: dict[str, Any] = {"role": m.role, "content": m.content}
        if m.role == dialogue.agent_role:
            shown["reward"] = m.reward
            if per_turn and turn < len(values["q"]):
                shown |= _estimates(values, turn)
            elif not per_turn and turn < len(spans):
                shown["tokens"] = [{"text": pieces[k], **_estimates(values, k)} for k in spans[turn]]
                if "v" in values and len(spans[turn]):
                    first, last = spans[turn][0], spans[turn][-1]
                    shown |= {"v": float(values["v"][first]), "q": float(values["q"][last])}
                    shown["advantage"] = shown["q"] - shown["v"]
            turn += 1
        messages.append(shown)
    return {
        "id": dialogue.id,
        "return": dialogue.undiscounted_return(),
        "ended": "terminated" if dialogue.terminated else "truncated",
        "source": source,
        "hidden": dict(hidden) if hidden else None,
        "messages": messages,
    }


def _estimates(values: Mapping[str, np.ndarray], k: int) -> dict[str, float]:
    """The critic's values at decision k, with advantage = Q - V."""
    found = {name: float(x[k]) for name, x in values.items()}
    if "q" in found:
        found["advantage"] = found["q"] - found["v"]
    return found
