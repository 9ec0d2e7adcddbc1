"""Logs of a scripted agent: any function that speaks, in any task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import TASK_COLUMN, Message
from turnwise.recipes.tasks import Task, find_task
from turnwise.rollout.conversations import episode_seed
from turnwise.run.errors import InputError
from turnwise.run.rehearsal import at_most

LONGEST = 200
"""turns after which a conversation that nobody ends is cut"""
REHEARSED = 60
"""conversations of a rehearsal"""

Speak = Callable[[Sequence[Message], np.random.Generator], str]
"""what the agent says after these messages; its chances come from the generator"""


def record(task: Any, speak: Speak, *, conversations: int = 1000, seed: int = 0) -> Logs:
    """Let `speak` talk to a task, and keep what was said: logs to learn from.

    `task`: a task object, the name of a built-in one, or `package.module:Task`. The same seed gives the same
    partners as in `evaluate`, whose agents meet them in the same order. InputError for an agent that says
    nothing, and for a conversation that goes on for more than 200 turns.
    """
    row = task if isinstance(task, Task) else find_task(task)
    live, found, task = row.live(), [], {TASK_COLUMN: row.words}
    for episode in range(at_most(REHEARSED, conversations)):
        rng = np.random.default_rng(episode_seed(seed, episode, 0))
        (opening,) = live.reset([0], [episode_seed(seed, episode, 1)])
        messages, ended = list(opening), False
        while not ended:
            text = speak(tuple(messages), rng)
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"the agent said {text!r}; expected text that is not empty")
            (response,) = live.step([0], [text])
            messages += [Message("assistant", text, response.reward), *response.messages]
            ended = response.terminated or response.truncated
            if not ended and sum(m.role == "assistant" for m in messages) >= LONGEST:
                raise InputError(f"{row.name}: conversation {episode} goes on after {LONGEST} turns")
        found.append(Dialogue(tuple(messages), response.terminated, id=str(episode), metadata=task))
    return Logs(tuple(found), f"{row.name}, {getattr(speak, '__name__', 'agent')}")
