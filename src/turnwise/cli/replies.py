"""Where prompts and rewards come from: files, run folders, functions, the built-in task."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from turnwise.data.feedback import Prompt
from turnwise.data.sources import rows_of, unexpected
from turnwise.envs.dialogue import Message
from turnwise.envs.postcards import Postcards
from turnwise.rollout.replies import Reply
from turnwise.rollout.rewards import FromFunction, Reward
from turnwise.run.errors import InputError

BUILT_IN = "postcards"


class Gold:
    """The truth about replies of the built-in task, for any prompt of it."""

    def __init__(self) -> None:
        self.task = Postcards()

    def __call__(self, replies: Sequence[Reply]) -> np.ndarray:
        """[n], in units of gold."""
        try:
            return np.array([self.task.gold(r.prompt, r.text) for r in replies])
        except ValueError as e:
            raise InputError(f"gold of {BUILT_IN}: {e}") from e


def gold_of(name: str | None) -> Reward | None:
    """The truth of the built-in task of that name."""
    if name is None:
        return None
    if name != BUILT_IN:
        raise InputError(f"--gold {name}: expected {BUILT_IN}, the built-in task whose truth is known")
    return Gold()


Asked = list[tuple[Prompt, Mapping[str, Any]]]
"""prompts with whatever else is known of each"""


class Prompts(NamedTuple):
    """What is asked; `text` where all of it was given as text, not as messages."""

    learnt: Asked
    held: Asked
    text: bool


REPLIES = ("prompt", "chosen", "rejected", "completion", "completions", "completion_ids")
"""columns of files of feedback that a reward function does not get: it gets the policy's replies"""


def prompts_of(source: str) -> Prompts:
    """Prompts to learn from and prompts held out, of a file or the built-in task.

    Rows have `prompt`: text, or messages that end with the user's. Of a file every tenth is held out.
    """
    if source == BUILT_IN:
        learnt, held = Postcards().split()
        return Prompts([(p, {}) for p in learnt], [(p, {}) for p in held], text=False)
    prompts: dict[Prompt, Mapping[str, Any]] = {}
    text = True
    for where, _, row in rows_of(source):
        if not isinstance(row, dict):
            raise unexpected(where, "", "a JSON object with a prompt", row)
        text &= isinstance(row.get("prompt"), str)
        prompts.setdefault(
            _prompt(row.get("prompt"), where), {k: v for k, v in row.items() if k not in REPLIES}
        )
    if not prompts:
        raise InputError(f"{source}: expected at least one prompt; found nothing (it is empty)")
    everything = list(prompts.items())
    learnt = [x for i, x in enumerate(everything) if i % 10 != 9]
    return Prompts(learnt, everything[9::10], text)


def _prompt(value: Any, where: str) -> Prompt:
    if isinstance(value, str) and value.strip():
        return (Message("user", value),)
    if not isinstance(value, list) or not value:
        raise unexpected(where, "prompt", "text, or messages with role and content", value)
    found = []
    for i, m in enumerate(value):
        if (
            not isinstance(m, dict)
            or not isinstance(m.get("content"), str)
            or not isinstance(m.get("role"), str)
        ):
            raise unexpected(where, f"prompt[{i}]", "an object with role and content", m)
        found.append(Message(m["role"], m["content"]))
    if found[-1].role == "assistant":
        raise unexpected(where, "prompt", "a last message that is not the assistant's", value[-1])
    return tuple(found)


def function_of(name: str) -> Callable[..., Any]:
    """`module:function`, looked for in the working directory too."""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as e:
        raise InputError(f"--reward {name}: expected module:function that can be imported ({e})") from e
    if not callable(found):
        raise InputError(f"--reward {name}: expected a function; found {type(found).__name__}")
    return found


def named_reward(name: str, text: bool = False) -> Reward | Path:
    """A function (`module:function`), the built-in task's gold, or the folder of a reward model.

    A function is given plain text if `text`.
    """
    if name == BUILT_IN:
        return Gold()
    folder = Path(name)
    if folder.is_dir():
        return folder
    if ":" in name:
        return FromFunction(function_of(name), text)
    raise InputError(
        f"--reward {name}: expected the run folder of a reward model (turnwise train reward), a function as "
        f"module:function, or {BUILT_IN}"
    )
