"""What a policy of conversations is worth: conversations with a live partner, and an interval over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from turnwise.envs.dialogue import DialogueTask
from turnwise.evaluation.measures.intervals import bootstrap_interval
from turnwise.rollout.agent import Agent
from turnwise.rollout.conversations import Conversation, converse
from turnwise.rollout.engines.servers.engine import Engine
from turnwise.run.errors import InputError
from turnwise.run.shards.here import Workers, spread

CONFIDENCE = 0.95


def hold_conversations(
    agent: Agent,
    task: DialogueTask,
    *,
    episodes: int,
    seed: int,
    lanes: int = 64,
    progress: Callable[[int], None] | None = None,
    engine: Engine | None = None,
    workers: Workers | None = None,
    shards: int = 1,
) -> list[Conversation]:
    """Let `agent` talk with the partners of `task`, `lanes` conversations at a time.

    The same seed gives every agent the same partners: differences between agents are then paired, and need
    fewer conversations to be seen. `progress` is called with the number of finished conversations. An
    `engine` speaks for the agent, if there is one. `workers` hold them in `shards`, each with lanes of its
    own; what is said is the same but for rounding.
    """
    if workers is not None:
        return spread(workers, _held, (agent, task, seed, lanes), episodes, shards, progress)
    chat = agent.chat
    lanes = min(lanes, episodes)
    model = agent.lane_model(lanes, chat.stop, engine)
    return converse(model, task, chat, episodes=range(episodes), seed=seed, lanes=lanes, progress=progress)


def _held(shared: tuple[Agent, DialogueTask, int, int], part: range) -> list[Conversation]:
    """A shard: conversations are the same ones, whoever holds them."""
    agent, task, seed, lanes = shared
    lanes = min(lanes, len(part))
    model = agent.lane_model(lanes, agent.chat.stop, None)
    return converse(model, task, agent.chat, episodes=part, seed=seed, lanes=lanes)


def conversation_summary(conversations: Sequence[Conversation], seed: int) -> dict[str, Any]:
    """Mean undiscounted return with a 95% bootstrap interval over conversations, and what readers ask next.

    `success` is the share of conversations that the task calls a success, None if it names none; `turns` the
    mean number of the agent's messages; `truncated` how many conversations were cut. `measures` are means of
    the task's own ("measures" in the info of a conversation's end), each with its interval. `seed` draws the
    bootstrap, and is kept to tell which partners these were. Conversations whose partner failed are `failed`,
    and count for nothing else. InputError if all of them are.
    """
    failed = sum(c.failed for c in conversations)
    conversations = [c for c in conversations if not c.failed]
    if not conversations:
        raise InputError(f"the partner failed in all {failed:,} conversations: nothing can be measured")
    returns = np.array([c.dialogue.undiscounted_return() for c in conversations])
    low, high = bootstrap_interval(returns, confidence=CONFIDENCE, rng=np.random.default_rng(seed))
    successes = [bool(c.info["success"]) for c in conversations if "success" in c.info]
    return {
        "score": "mean return",
        "episodes": len(returns),
        "seed": seed,
        "mean": float(returns.mean()),
        "low": low,
        "high": high,
        "confidence": CONFIDENCE,
        "success": float(np.mean(successes)) if successes else None,
        "turns": float(np.mean([len(c.dialogue.turns) for c in conversations])),
        "truncated": sum(not c.dialogue.terminated for c in conversations),
        "measures": task_measures(conversations, seed),
    } | ({"failed": failed} if failed else {})


def task_measures(conversations: Sequence[Conversation], seed: int) -> dict[str, dict[str, float]]:
    """Means of the task's own measures over the conversations that have them, with 95% intervals.

    `conversations` says over how many. A measure of one conversation has no interval, and is left out.
    """
    found: dict[str, list[float]] = {}
    for c in conversations:
        for name, value in c.info.get("measures", {}).items():
            found.setdefault(name, []).append(float(value))
    means = {}
    for name, values in found.items():
        if len(values) < 2:
            continue
        low, high = bootstrap_interval(
            np.array(values), confidence=CONFIDENCE, rng=np.random.default_rng(seed)
        )
        means[name] = {"mean": float(np.mean(values)), "low": low, "high": high, "conversations": len(values)}
    return means


def measures_in_words(measures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Each of the task's own measures in one line: `planning gap 1.25 (1.13 to 1.37, 95%)`."""
    return [
        f"{name} {m['mean']:.4g} ({m['low']:.4g} to {m['high']:.4g}, {CONFIDENCE:.0%})"
        for name, m in measures.items()
    ]


def tune_acting(
    agent: Agent,
    task: DialogueTask,
    settings: Sequence[Mapping[str, Any]],
    *,
    episodes: int,
    seed: int,
    lanes: int = 64,
    progress: Callable[[int], None] | None = None,
    workers: Workers | None = None,
    shards: int = 1,
) -> tuple[Agent, list[dict[str, Any]]]:
    """The agent with the best of several ways of acting, and the summary of every way that was tried.

    `settings` are fields of `Acting`, such as {"beta": 4.0}. Each is measured on the same validation
    conversations.
    """
    # The seed must not be the one that the agent is scored with. The best of several noisy means is too high
    # on the conversations that it was chosen on (a maximum of estimates is biased upwards), and unbiased on
    # new ones.
    tried = []
    for i, setting in enumerate(settings):
        candidate = agent.with_acting(**setting)
        conversations = hold_conversations(
            candidate, task, episodes=episodes, seed=seed, lanes=lanes, workers=workers, shards=shards
        )
        tried.append({**setting, **conversation_summary(conversations, seed)})
        if progress is not None:
            progress(i + 1)
    best = max(range(len(tried)), key=lambda i: tried[i]["mean"])
    return agent.with_acting(**settings[best]), tried
