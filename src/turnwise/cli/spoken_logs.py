"""turnwise data talk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnwise.cli.say import console, parse
from turnwise.recipes.settings.measure import TalkSettings
from turnwise.run.checks import ONE_OR_MORE, check
from turnwise.run.errors import SettingError


@dataclass(frozen=True)
class Spoken:
    """Who speaks, and where it is written."""

    run: Path
    """Run folder of a policy, or any language model by folder."""
    out: Path
    """File to write, .jsonl or .jsonl.gz."""
    threads: int = 1
    """CPU threads."""
    overwrite: bool = False
    """Replace an existing file."""
    json: bool = False
    """Print one result object on stdout."""

    def __post_init__(self) -> None:
        check(self, threads=ONE_OR_MORE)


@dataclass(frozen=True)
class Heard:
    """Who answers."""

    task: str | None = None
    """Built-in task to talk to (dealer, helpdesk, maze, negotiation, postcards, travel, twenty), or one's own
    as package.module:Task; none, with no partner either: the one that the run's logs come from."""
    task_settings: tuple[str, ...] = ()
    """Settings of the task, each as KEY=VALUE."""
    partner: str | None = None
    """Run folder of a partner from logs (turnwise train partner), or of a plan (turnwise train pomdp), whose
    learnt models answer: nobody real is talked to."""


@dataclass(frozen=True)
class Talk:
    """Hold conversations of a policy with a partner, and write them as new logs."""

    spoken: Spoken
    heard: Heard = Heard()
    settings: TalkSettings = field(default_factory=TalkSettings)


def run(args: Sequence[str]) -> dict[str, Any]:
    """Hold them, and write them."""
    a = parse(Talk, args, "data talk", Talk.__doc__ or "", alone=("run", "out"))
    if not a.spoken.out.name.endswith((".jsonl", ".jsonl.gz")):
        raise SettingError("out", str(a.spoken.out), "a name that ends in .jsonl or .jsonl.gz")
    if a.heard.task is not None and a.heard.partner is not None:
        raise SettingError("partner", a.heard.partner, "no task beside it: one of the two answers")
    if not a.spoken.run.exists():
        raise SettingError("run", str(a.spoken.run), "the run folder of a trained policy; no such folder")
    import torch

    from turnwise.recipes.settings.words import parse_settings
    from turnwise.recipes.talking import write_talk

    torch.set_num_threads(a.spoken.threads)
    found = write_talk(
        a.spoken.run,
        a.heard.task if a.heard.partner is None else a.heard.partner,
        a.spoken.out,
        task_settings=parse_settings(a.heard.task_settings),
        overwrite=a.spoken.overwrite,
        **vars(a.settings),
    )
    console(a.spoken.json).print(str(found), markup=False, highlight=False)
    return vars(found)
