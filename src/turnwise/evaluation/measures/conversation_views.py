"""Conversations as the report page shows them: what was said, and what the agent thought of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.data.tokens import Tokens
from turnwise.models.lm.critics import TurnCritic
from turnwise.rollout.agent import Agent


def annotate(
    agent: Agent, dialogue: Dialogue, row: Tokens, *, source: str, hidden: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """One conversation with Q, V and advantage per token (or per turn, for a critic of turns)."""
    values = agent.values(row)
    per_turn = isinstance(agent.critic, TurnCritic)
    chosen = np.flatnonzero(row.action[1:]) + 1
    pieces = agent.chat.pieces(row.ids[chosen])
    last_of_turn = np.flatnonzero(row.turn_end[chosen])
    spans = np.split(np.arange(len(chosen)), last_of_turn + 1)
    messages, turn = [], 0
    for m in dialogue.messages:
        shown: dict[str, Any] = {"role": m.role, "content": m.content}
        if m.role == dialogue.agent_role:
            shown["reward"] = m.reward
            if per_turn and turn < len(values["q"]):
                shown |= _thought(values, turn)
            elif not per_turn and turn < len(spans):
                shown["tokens"] = [{"text": pieces[k], **_thought(values, k)} for k in spans[turn]]
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


def _thought(values: Mapping[str, np.ndarray], k: int) -> dict[str, float]:
    found = {name: float(x[k]) for name, x in values.items()}
    if "q" in found:
        found["advantage"] = found["q"] - found["v"]
    return found
