"""Logs with the rewards that a function of one's own gives them, in place of those that were logged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.modules import function_named

Reward = Callable[[Dialogue], Any]
"""a conversation to what it earned: a number for the whole, or one for each message of the agent"""


def rerated(logs: Logs, reward: Reward | str) -> Logs:
    """The same conversations with other rewards. `reward`: a function of a `Dialogue`, which has `messages`,
    `turns` and `metadata`, or its name as module:function. A number is an outcome: it follows the agent's
    last message.

    SettingError for what is no function; InputError, by conversation, for one that raises, and for anything
    but finite numbers.
    """
    name = reward_name(reward)
    found = function_named("reward", reward) if isinstance(reward, str) else reward
    if not callable(found):
        raise SettingError("reward", reward, "a function of a conversation")
    return Logs([_one(d, found, name) for d in logs], logs.source, logs.reading)


def reward_name(reward: Any) -> str:
    """What a reward is called."""
    return reward if isinstance(reward, str) else getattr(reward, "__qualname__", type(reward).__name__)


def _one(d: Dialogue, reward: Callable[..., Any], name: str) -> Dialogue:
    at = f"reward {name}: conversation {d.id!r}"
    try:
        given = reward(d)
    except Exception as error:  # anybody's function may raise anything
        raise InputError(f"{at}: {type(error).__name__}: {error}") from error
    turns = len(d.turns)
    whole = not isinstance(given, Sequence) or isinstance(given, str)
    numbers: list[Any] = [0.0] * (turns - 1) + [given] if whole else list(given)
    if len(numbers) != turns:
        raise InputError(
            f"{at}: gave {len(numbers)} numbers; expected one, or one for each of {turns} messages"
        )
    try:
        rewards = [float(x) for x in numbers]
    except (TypeError, ValueError):
        raise InputError(
            f"{at}: gave {given!r}; expected a number, or one for each message of the agent"
        ) from None
    if not all(map(math.isfinite, rewards)):
        raise InputError(f"{at}: gave {given!r}; expected finite numbers")
    left = iter(rewards)
    messages = tuple(replace(m, reward=next(left)) if m.role == d.agent_role else m for m in d.messages)
    return replace(d, messages=messages, rated_by="outcome" if whole else "rewards")
