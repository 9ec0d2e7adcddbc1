"""Conversations on the report page: each message and token with its figures, and V over the turns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import escape

from turnwise.evaluation.pages.critics import Scale
from turnwise.evaluation.pictures.conversations import value_line
from turnwise.evaluation.pictures.style import level, number

SHOWN = 60
"""conversations of a run at most"""


def conversations_view(
    conversations: Sequence[Mapping[str, Any]], agent: str, index: int, budget: int, scale: Scale
) -> dict[str, Any]:
    """Conversations of run number `index` as the templates show them, coloured on the `scale` of the run.

    As many as fit into `budget` bytes of markup, `SHOWN` at most, in the order of the file. If not all fit,
    the best, the worst and the most surprising one go first; the best is always there, cut short if it alone
    is too long. `agent` is the role whose messages are scored.
    """
    talks = []
    for i, conversation in enumerate(conversations):
        blank = dict.fromkeys(("id", "ended", "source", "hidden", "return"))
        talk = {**blank, **conversation, "messages": [_scored(m, agent) for m in conversation["messages"]]}
        talks.append(talk | {"order": i, "surprise": _surprise(talk)})
    shown, used = [], 0
    for talk in _first(talks)[:SHOWN]:
        size = _cut(talk, budget - used)
        if shown and talk["cut"]:
            break
        shown.append(talk)
        used += size
    shown.sort(key=lambda talk: talk["order"])
    spoken = [m for talk in shown for m in talk["messages"] if m["agent"]]
    tokens = [t["advantage"] for m in spoken for t in m["tokens"] if t.get("advantage") is not None]
    messages = [m["advantage"] for m in spoken if m["advantage"] is not None]
    values = [m["v"] for m in spoken if m["v"] is not None]
    ends = [*values, *(scale.returns or ())]
    span = (min(ends, default=0.0), max(ends, default=0.0))
    decimals = 3 if scale.full < 0.1 else 2 if scale.full < 10 else 1
    for i, talk in enumerate(shown):
        _colour(talk, scale, decimals, tokens=bool(tokens))
        _trace(talk, span, scale.mean, decimals)
        talk["key"] = f"talk-{index}-{i}"
        talk["id"] = talk["id"] or f"conversation {talk['order'] + 1}"
    what = "token" if tokens else "message" if messages else None
    return {"items": shown, "limit": number(scale.full), "knows": scale.knows, "sentence": scale.sentence,
            "decimals": decimals, "scale": what, "bytes": used,
            "valued": any(talk["line"] for talk in shown),
            "surprising": sum(talk["surprise"] is not None for talk in shown) > 1,
            "left_out": len(conversations) - len(shown)}  # fmt: skip


def _surprise(talk: Mapping[str, Any]) -> float | None:
    """How far the return is from V before the first turn; without V, how unlikely the agent's words are.

    The second is in nats a token, by the policy's own probabilities. None if neither is known.
    """
    spoken = [m for m in talk["messages"] if m["agent"]]
    expected = next((m["v"] for m in spoken if m["v"] is not None), None)
    if expected is not None and talk["return"] is not None:
        return abs(talk["return"] - expected)
    logps = [t["logp"] for m in spoken for t in m["tokens"] if t.get("logp") is not None]
    return -math.fsum(logps) / len(logps) if logps else None


def _first(talks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best, the worst and the most surprising one, then the others in their order."""
    returns = [talk for talk in talks if talk["return"] is not None]
    surprising = [talk for talk in talks if talk["surprise"] is not None]
    first = [
        *(
            [max(returns, key=lambda t: t["return"]), min(returns, key=lambda t: t["return"])]
            if returns
            else []
        ),
        *([max(surprising, key=lambda t: t["surprise"])] if surprising else []),
    ]
    return [talks[i] for i in dict.fromkeys([*(t["order"] for t in first), *range(len(talks))])]


def _scored(message: Mapping[str, Any], agent: str) -> dict[str, Any]:
    """A message with all its fields.

    If its tokens are scored and it is not, its V is the one before its first token and its advantage the sum
    over its tokens.
    """
    fields = {key: message.get(key) for key in ("v", "q", "advantage", "reward")}
    tokens = [dict(t) for t in message.get("tokens") or ()]
    advantages = [t["advantage"] for t in tokens if t.get("advantage") is not None]
    if advantages and fields["advantage"] is None:
        fields["advantage"] = math.fsum(advantages)
    if tokens and fields["v"] is None:
        fields["v"] = tokens[0].get("v")
    return {**fields, "role": message["role"], "content": message["content"], "tokens": tokens,
            "agent": message["role"] == agent}  # fmt: skip


def _cut(talk: dict[str, Any], budget: int) -> int:
    """Drop the messages that do not fit into `budget` bytes of markup; returns what the rest takes."""
    left, kept = budget - 1500, 0  # what surrounds the messages: head, entry of the list, two lines of V
    for message in talk["messages"]:
        texts = [t["text"] for t in message["tokens"]] or [message["content"]]
        left -= (450 if message["agent"] else 120) + sum(105 + len(escape(text).encode()) for text in texts)
        if left < 0 and kept:
            break
        kept += 1
    talk["cut"] = len(talk["messages"]) - kept
    talk["messages"] = talk["messages"][:kept]
    return budget - max(0, left)


def _colour(talk: Mapping[str, Any], scale: Scale, decimals: int, *, tokens: bool) -> None:
    """Colour class and hover text of every token and message; no colour if the critic knows nothing."""

    def shade(advantage: float | None) -> str:
        return level(advantage, scale.full) if scale.knows and advantage is not None else "z"

    for message in talk["messages"]:
        scored = message["advantage"] is not None
        message["shade"] = shade(message["advantage"])
        message["whole"] = scored and not tokens
        message["figures"] = _figures(message, decimals)
        message["hover"] = " · ".join(f"{name} {value}" for name, value in message["figures"])
        for token in message["tokens"]:
            token["shade"] = shade(token.get("advantage"))
            token["hover"] = " · ".join(f"{name} {value}" for name, value in _figures(token, decimals))


def _figures(entry: Mapping[str, Any], decimals: int) -> list[tuple[str, str]]:
    names = (("V", "v"), ("Q", "q"), ("advantage", "advantage"), ("log-prob", "logp"), ("shift", "shift"))
    found = [
        (name, number(entry[key], decimals, signed=key in ("advantage", "shift")))
        for name, key in names
        if entry.get(key) is not None
    ]
    if (reward := entry.get("reward")) is not None:  # a figure of the log or the task, not an estimate
        found.append(("reward", f"{reward:+.4g}".replace("-", "−") if reward else "0"))
    return found


def _trace(talk: dict[str, Any], span: tuple[float, float], mean: float | None, decimals: int) -> None:
    """V over the turns: the small line, the large one, and its largest swing in words."""
    scored = [
        (i, m) for i, m in enumerate((m for m in talk["messages"] if m["agent"]), 1) if m["v"] is not None
    ]
    values, shades = [m["v"] for _, m in scored], [m["shade"] for _, m in scored]
    talk["spark"] = value_line(values, shades, span, mean) if values else None
    talk["line"] = value_line(values, shades, span, mean, large=True) if values else None
    talk["swing"] = None
    for (_, before), (_, message) in pairwise(scored):
        message["moved"] = message["v"] - before["v"]
    if len(values) > 1:
        k = max(range(1, len(values)), key=lambda k: abs(values[k] - values[k - 1]))
        was, now = (number(v, decimals) for v in values[k - 1 : k + 1])
        talk["swing"] = f"V moved most from turn {scored[k - 1][0]} to turn {scored[k][0]}: {was} to {now}."
    talk["worth"] = None if talk["return"] is None else number(talk["return"], 2, signed=True)
