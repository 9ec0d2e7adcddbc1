"""A policy's worth, measured: conversations with a live partner, and an interval over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from turnwise.envs.dialogue import DialogueTask
from turnwise.evaluation.measures.intervals import bootstrap_interval
from turnwise.rollout.agent import Agent
from turnwise.rollout.conversations import Conversation, converse

CONFIDENCE = 0.95


def hold(
    agent: Agent,
    task: DialogueTask,
    *,
    episodes: int,
    seed: int,
    lanes: int = 64,
    progress: Callable[[int], None] | None = None,
) -> list[Conversation]:
    """Conversations of `agent` with `task`; the same seed gives the same partners to every agent."""
    chat = agent.chat
    lanes = min(lanes, episodes)
    model = agent.lane_model(lanes, chat.stop)
    return converse(model, task, chat, episodes=range(episodes), seed=seed, lanes=lanes, progress=progress)


def summary(conversations: Sequence[Conversation], seed: int) -> dict[str, Any]:
    """Mean return with a 95% bootstrap interval over conversations, and what else a reader asks first."""
    returns = np.array([c.dialogue.undiscounted_return() for c in conversations])
    low, high = bootstrap_interval(returns, confidence=CONFIDENCE, rng=np.random.default_rng(seed))
    known = [bool(c.info["success"]) for c in conversations if "success" in c.info]
    return {
        "score": "mean return",
        "episodes": len(returns),
        "seed": seed,
        "mean": float(returns.mean()),
        "low": low,
        "high": high,
        "confidence": CONFIDENCE,
        "success": float(np.mean(known)) if known else None,
        "turns": float(np.mean([len(c.dialogue.turns) for c in conversations])),
        "truncated": sum(not c.dialogue.terminated for c in conversations),
    }


def best_setting(
    agent: Agent,
    task: DialogueTask,
    settings: Sequence[Mapping[str, Any]],
    *,
    episodes: int,
    seed: int,
    lanes: int = 64,
    progress: Callable[[int], None] | None = None,
) -> tuple[Agent, list[dict[str, Any]]]:
    """The agent under the best of several ways of acting, picked on validation conversations.

    `seed` must not be the one that the agent is scored with: whatever is picked by looking is optimistic
    where it was looked at.
    """
    tried = []
    for i, setting in enumerate(settings):
        held = hold(agent.with_acting(**setting), task, episodes=episodes, seed=seed, lanes=lanes)
        tried.append({**setting, **summary(held, seed)})
        if progress is not None:
            progress(i + 1)
    best = max(range(len(tried)), key=lambda i: tried[i]["mean"])
    return agent.with_acting(**settings[best]), tried
