"""Conversations as the report page shows them: each message with what the critic makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from turnwise.data.batch import pack_turns
from turnwise.data.dialogue import Dialogue, spoken
from turnwise.data.tokens import Tokens
from turnwise.models.lm.critics import TurnCritic
from turnwise.rollout.agent import Agent

MOST = 60
"""conversations that are kept for a page"""
FEWEST = 12
"""conversations that are kept however long they are"""
AFFORDED = 3e11
"""tokens times parameters that may be read for a page: some ten seconds of one CPU core"""


def how_many(lengths: Sequence[int], parameters: int) -> int:
    """How many conversations, the first ones, are read for a page by a model of that size."""
    cost = np.cumsum(lengths) * float(parameters)
    return min(len(lengths), MOST, max(FEWEST, int(np.searchsorted(cost, AFFORDED, side="right"))))


def conversation_rows(rows: Iterable[Tokens]) -> list[list[Tokens]]:
    """The rows of each conversation: a long one has several, each of which goes on in the next."""
    found: list[list[Tokens]] = []
    goes_on = False
    for row in rows:
        if goes_on:
            found[-1].append(row)
        else:
            found.append([row])
        goes_on = row.continues
    return found


def annotate_conversation(
    agent: Agent,
    dialogue: Dialogue,
    rows: Sequence[Tokens],
    *,
    source: str,
    hidden: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One conversation with Q, V and advantage per token, or per turn if the critic is one of turns.

    `rows` have the token ids of `dialogue`, in segments if it is longer than the context. The values at a
    token are those of the row that learns from it, which has read the most before it. `source` says who
    spoke as the agent, "policy" or "log"; `hidden` is what the agent could not see.
    """
    turns = _turns(agent, rows)
    messages, turn = [], 0
    # A conversation that filled the context has fewer turns in its row than messages: the rest stays plain.
    for m in dialogue.messages:
        shown: dict[str, Any] = {"role": m.role, "content": spoken(m)}
        if m.role == dialogue.agent_role:
            shown["reward"] = m.reward
            if turn < len(turns):
                shown |= turns[turn]
            turn += 1
        messages.append(shown)
    return {
        "id": dialogue.id,
        "return": None if dialogue.rated_by == "nothing" else dialogue.undiscounted_return(),
        "ended": "terminated" if dialogue.terminated else "truncated",
        "source": source,
        "hidden": dict(hidden) if hidden else None,
        "messages": messages,
    }


def _turns(agent: Agent, rows: Sequence[Tokens]) -> list[dict[str, Any]]:
    """What is known of each turn of the agent."""
    per_turn = isinstance(agent.critic, TurnCritic)
    ids, turn_ends, parts = [], [], []
    for row in rows:
        decisions = row.decisions
        ends = decisions + 1
        if per_turn:
            batch = pack_turns([row], gamma=1.0)
            decisions, ends = batch.decisions[0, :-1].numpy(), batch.ends[0].numpy()
        own = decisions >= row.learn_from  # what is before was valued in the row before
        ids.append(row.ids[ends[own]])
        turn_ends.append(row.turn_end[ends[own]])
        parts.append({name: x[own] for name, x in agent.values(row).items()})
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    chosen, last_of_turn = np.concatenate(ids), np.flatnonzero(np.concatenate(turn_ends))
    spans = np.split(np.arange(len(chosen)), last_of_turn + 1)  # indices into `chosen`, an array a turn
    spans = [span for span in spans if len(span)]
    if per_turn:  # a turn that is longer than a row is several parts, each with values of its own
        return [_over(values, span[0], span[-1]) for span in spans]
    pieces = agent.chat.pieces(chosen)
    found = []
    for span in spans:
        shown: dict[str, Any] = {"tokens": _tokens(values, pieces, span)}
        if "v" in values:
            over = _over(values, span[0], span[-1])
            shown |= {name: over[name] for name in ("v", "q", "advantage")}
        found.append(shown)
    return found


def _tokens(
    values: Mapping[str, np.ndarray], pieces: Sequence[str], span: np.ndarray
) -> list[dict[str, Any]]:
    """A turn's tokens with their values; those of one character together."""
    found, first = [], None
    for k in span.tolist():
        first = k if first is None else first
        if pieces[k] or k == span[-1]:
            found.append({"text": pieces[k], **_over(values, first, k)})
            first = None
    return found


def _over(values: Mapping[str, np.ndarray], first: int, last: int) -> dict[str, float]:
    """The values of decisions `first` to `last` taken as one: V before, Q after, what lies between summed."""
    found = {name: float(x[first : last + 1].sum()) for name, x in values.items() if name not in ("v", "q")}
    if "q" in values:
        found |= {"q": float(values["q"][last]), "v": float(values["v"][first])}
        found["advantage"] = found["q"] - found["v"]
    return found
