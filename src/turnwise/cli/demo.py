"""turnwise demo."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from turnwise.cli.say import comparison_table, console, notice, parse
from turnwise.recipes.settings.demo import DemoSettings


@dataclass(frozen=True)
class Output:
    """What this call prints."""

    dry_run: bool = False
    """Print the verbs that do the same, one by one, and stop."""
    json: bool = False
    """Print one result object on stdout."""


@dataclass(frozen=True)
class Demo:
    """The main job on a built-in task: logs in, a better policy and a report page out."""

    settings: DemoSettings = field(default_factory=DemoSettings)
    output: Output = Output()


def run(args: Sequence[str]) -> dict[str, Any]:
    """Improve, measure, compare; then the table and the page."""
    a = parse(Demo, args, "demo", Demo.__doc__ or "")
    out = console(a.output.json)
    from turnwise.recipes.demo import demo, steps

    if a.output.dry_run:
        verbs = steps(a.settings)
        for verb in verbs:
            out.print(verb)
        return {"verbs": [shlex.split(verb)[1:] for verb in verbs]}
    began = time.monotonic()
    found = demo(a.settings, notice)
    out.print(comparison_table(found))
    out.print(f"said before anybody talked to it: {found['said']['sentence']}", markup=False, highlight=False)
    from turnwise.evaluation.pages.report import write_report

    page = write_report(a.settings.out)
    seconds = time.monotonic() - began
    out.print(f"report: {page.resolve()}  ({int(seconds) // 60}:{int(seconds) % 60:02d})")
    return {"report": str(page), "seconds": round(seconds, 1), **found}
