"""turnwise evaluate RUN --logs FILE, of a partner from logs: how good a partner it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnwise.cli.say import console, notice, parse
from turnwise.cli.words import split_words
from turnwise.recipes.settings.measure import PartnerMeasure
from turnwise.recipes.settings.train import LogReading
from turnwise.run.errors import SettingError

FILES = ("partner.json", "partner/partner.json")
"""by which a partner's folder is known, and that of its run"""


@dataclass(frozen=True)
class PartnerRun:
    """What is measured."""

    run: Path
    """Run folder of a partner (turnwise train partner); results are written into it."""
    logs: str
    """Logged conversations: those that it learnt from teach the baselines, the others measure it."""
    policy: Path | None = None
    """Run folder of the logged agent, cloned (turnwise train bc, act-bc), which holds the talks that are set
    beside logged ones."""
    acts: Path | None = None
    """Codebooks (turnwise train acts), by which answers are counted as acts."""
    policies: tuple[str, ...] = ()
    """Run folders of policies, whose returns with the partner are set beside those in the true task."""
    task: str | None = None
    """The true task, if there is one."""
    task_settings: tuple[str, ...] = ()
    """Settings of the task, each as KEY=VALUE."""
    threads: int = 1
    """CPU threads."""
    json: bool = False
    """Print one result object on stdout."""


@dataclass(frozen=True)
class EvaluatePartner:
    """Say how good a partner from logs is: what it tells of held-out conversations, whether its talks can be
    told from logged ones and by what, and whether policies earn with it what they earn in the true task."""

    target: PartnerRun
    settings: PartnerMeasure = field(default_factory=PartnerMeasure)
    reading: LogReading = field(default_factory=LogReading)


def is_partner(args: Sequence[str]) -> bool:
    """Whether what is to be measured is a partner from logs."""
    found = split_words(EvaluatePartner, args)
    folders = [Path(word) for word in (*found.flags.get("run", ()), *found.alone[:1])]
    return any((place / name).is_file() for place in folders for name in FILES)


def run(args: Sequence[str]) -> dict[str, Any]:
    """Measure, print, and write the figures into the run."""
    a = parse(EvaluatePartner, args, "evaluate", EvaluatePartner.__doc__ or "", alone="run")
    import torch

    from turnwise.recipes.measuring.partner import FILE, measure
    from turnwise.recipes.opened import load
    from turnwise.recipes.settings.words import parse_settings
    from turnwise.recipes.tasks import find_task
    from turnwise.recipes.trained import Counterpart

    torch.set_num_threads(a.target.threads)
    t, partner = a.target, load(a.target.run)
    assert isinstance(partner, Counterpart)
    if t.task is None and t.task_settings:
        raise SettingError("task_settings", t.task_settings[0], "a task beside them")
    task = None if t.task is None else find_task(t.task, parse_settings(t.task_settings))
    given = {"policy": t.policy, "acts": t.acts, "policies": t.policies, "task": task}
    found = measure(partner, t.logs, **given, settings=a.settings, reading=vars(a.reading))
    out = console(t.json)
    out.print(
        f"{t.run}: {found['held_out']:,} conversations that the partner has not learnt from", markup=False
    )
    for line in found["lines"]:
        out.print(f"  {line}", markup=False, highlight=False)
    if "downstream" in found:
        _print_returns(found["downstream"], out)
    if partner.folder is not None:
        out.print(f"report: {partner.folder / 'report.html'}", markup=False)
        notice(f"figures: {partner.folder / FILE}")
    return found


def _print_returns(found: Mapping[str, Any], out: Any) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("policy")
    for head in ("with the partner", f"in {found['task']}", "gap"):
        table.add_column(head, justify="right")
    for row in found["policies"]:
        cells = [
            f"{x['mean']:.3f} ({x['low']:.3f} to {x['high']:.3f})" for x in (row["partner"], row["task"])
        ]
        table.add_row(row["policy"], *cells, f"{row['gap']:+.3f}")
    out.print(table)
