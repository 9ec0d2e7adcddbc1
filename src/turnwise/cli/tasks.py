"""The built-in tasks by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from turnwise.envs.dialogue import DialogueTask
from turnwise.envs.tasks.helpdesk.exact import behavior_value, optimal_value
from turnwise.envs.tasks.helpdesk.logs import helpdesk_logs
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.run.errors import InputError


@dataclass(frozen=True)
class BuiltIn:
    """A task to talk to, its logs, and what is known of it exactly (in undiscounted return)."""

    live: Callable[[], DialogueTask]
    logs: Callable[[int, int], Iterator[dict[str, Any]]]
    optimum: Callable[[], float]
    behavior: Callable[[], float]


TASKS = {
    "helpdesk": BuiltIn(live=HelpDesk, logs=helpdesk_logs, optimum=optimal_value, behavior=behavior_value)
}


def find_task(name: str) -> BuiltIn:
    """The task of that name."""
    if name not in TASKS:
        raise InputError(f"--task {name}: expected one of {', '.join(sorted(TASKS))}")
    return TASKS[name]
