"""turnwise data talk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnwise.cli.say import console, parse
from turnwise.cli.targets import TaskChoice, opened
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
class Talk:
    """Hold conversations of a policy with a partner, and write them as new logs."""

    spoken: Spoken
    task: TaskChoice = field(default_factory=TaskChoice)
    settings: TalkSettings = field(default_factory=TalkSettings)


def run(args: Sequence[str]) -> dict[str, Any]:
    """Hold them, and write them."""
    a = parse(Talk, args, "data talk", Talk.__doc__ or "", alone=("run", "out"))
    if not a.spoken.out.name.endswith((".jsonl", ".jsonl.gz")):
        raise SettingError("out", str(a.spoken.out), "a name that ends in .jsonl or .jsonl.gz")
    from turnwise.recipes.settings.words import parse_settings
    from turnwise.recipes.talking import write_talk

    found = write_talk(
        opened(a.spoken.run, a.spoken.threads),
        a.task.named,
        a.spoken.out,
        task_settings=parse_settings(a.task.task_settings),
        overwrite=a.spoken.overwrite,
        **vars(a.settings),
    )
    console(a.spoken.json).print(str(found), markup=False, highlight=False)
    return vars(found)
