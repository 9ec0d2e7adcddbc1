"""Logged conversations with what a trained agent thinks of them, for the page of its run."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from pathlib import Path

from turnwise.data.dialogue import Dialogue
from turnwise.data.rows import token_rows
from turnwise.evaluation.measures.conversation_views import (
    MOST,
    annotate_conversation,
    conversation_rows,
    how_many,
)
from turnwise.models.lm.parts import context_of, parameter_count
from turnwise.rollout.agent import Agent
from turnwise.run.folder import write_text

CANDIDATES = 2000
"""conversations, at most, from which those of the page are picked"""
EXTREMES = 5
"""conversations of the highest returns, and of the lowest, that are kept for the page in any case"""


def write_views(folder: Path, agent: Agent, dialogues: Sequence[Dialogue]) -> None:
    """Logged conversations with what the trained agent thinks of them, in their order.

    If there are more than a page holds, those of the highest and the lowest returns are among them.
    """
    # A conversation that was cut has no outcome to hold the values against: those come last.
    candidates = heapq.nsmallest(CANDIDATES, dialogues, key=lambda d: not d.terminated)
    order = sorted(range(len(candidates)), key=lambda i: candidates[i].undiscounted_return())
    ends = [i for pair in zip(order[::-1], order, strict=True) for i in pair][: 2 * EXTREMES]
    first = list(dict.fromkeys([*ends, *range(len(candidates))]))[:MOST]
    shown = [candidates[i] for i in first]
    found = conversation_rows(token_rows(shown, agent.chat, context_of(agent.lm)))
    kept = how_many([sum(map(len, rows)) for rows in found], parameter_count(agent.lm))
    views = {
        i: annotate_conversation(agent, d, rows, source="log")
        for i, d, rows in list(zip(first, shown, found, strict=True))[:kept]
    }
    lines = [json.dumps(views[i], ensure_ascii=False) for i in sorted(views)]
    write_text(folder / "conversations.jsonl", "".join(line + "\n" for line in lines))
