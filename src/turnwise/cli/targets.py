"""A trained policy by its folder, and whom it talks with, as flags of several verbs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnwise.run.errors import SettingError


@dataclass(frozen=True)
class TaskChoice:
    """The partner."""

    task: str | None = None
    """Built-in task to talk to (dealer, helpdesk, maze, negotiation, postcards, travel, twenty), or one's own
    as package.module:Task; none: the one that the run's logs come from, if they say so."""
    task_settings: tuple[str, ...] = ()
    """Settings of the task, each as KEY=VALUE."""
    partner: str | None = None
    """Run folder of a partner from logs (turnwise train partner), or of a plan (turnwise train pomdp), whose
    learnt models answer in sentences of the log: to talk to in place of a task."""

    def __post_init__(self) -> None:
        if self.task is not None and self.partner is not None:
            raise SettingError("partner", self.partner, "no task beside it: one of the two answers")

    @property
    def named(self) -> str | None:
        """What was named, of the two."""
        return self.task or self.partner


def opened(run: Path, threads: int) -> Any:
    """What a run folder holds, and the machine set up for it."""
    if not run.exists():
        raise SettingError("run", str(run), "the run folder of a trained policy; no such folder")
    import torch

    from turnwise.recipes.opened import load

    torch.set_num_threads(threads)
    return load(run)
