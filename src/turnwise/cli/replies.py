"""Where prompts and rewards come from: files, run folders, functions, the built-in task."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from turnwise.cli.say import notice
from turnwise.data.feedback import Prompt
from turnwise.data.files.feedback import prompt_of
from turnwise.data.files.sources import read_rows, unexpected
from turnwise.data.heldout import is_held_out
from turnwise.envs.tasks.postcards.task import Postcards
from turnwise.recipes.tasks import Gold
from turnwise.rollout.rewards import FromFunction, Reward
from turnwise.run.errors import InputError

BUILT_IN = "postcards"
HELD = 0.1
"""share of a file's prompts that is held out"""


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

    Rows have `prompt`: text, or messages that end with the user's; of rows of feedback without one it is what
    their replies begin with. Of a file a tenth is held out, by the prompts' words as the other verbs do it.
    """
    if source == BUILT_IN:
        learnt, held = Postcards().split()
        return Prompts([(p, {}) for p in learnt], [(p, {}) for p in held], text=False)
    prompts: dict[Prompt, Mapping[str, Any]] = {}
    text, again = True, 0
    for where, _, row in read_rows(source):
        if not isinstance(row, dict):
            raise unexpected(where, "", "a JSON object with a prompt", row)
        if clash := sorted({"prompts", "self"} & row.keys()):
            raise unexpected(
                where, clash[0], "another name (reward functions are given it already)", row[clash[0]]
            )
        prompt = prompt_of(row, where)
        text &= isinstance(row.get("prompt"), str) and len(prompt) == 1
        columns = {k: v for k, v in row.items() if k not in REPLIES}
        again += prompts.setdefault(prompt, columns) != columns
    if not prompts:
        raise InputError(f"{source}: expected at least one prompt; found nothing (it is empty)")
    if again:
        notice(f"mind: {again:,} rows repeat an earlier prompt with other columns, and are left out")
    held = [x for x in prompts.items() if is_held_out(x[0], HELD)]
    learnt = [x for x in prompts.items() if not is_held_out(x[0], HELD)]
    if not learnt:
        learnt, held = held, []
    if not held:
        notice(f"mind: none of {len(learnt):,} prompts is held out: what is measured, it has learnt from")
    return Prompts(learnt, held, text)


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
        return Gold(BUILT_IN, Postcards().gold)
    folder = Path(name)
    if folder.is_dir():
        return folder
    if ":" in name:
        return FromFunction(function_of(name), text)
    raise InputError(
        f"--reward {name}: expected the run folder of a reward model (turnwise train reward), a function as "
        f"module:function, or {BUILT_IN}"
    )
