"""turnwise report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnwise.cli.say import console, notice, parse
from turnwise.run.errors import InputError
from turnwise.run.files.lock import expect_ended


@dataclass(frozen=True)
class Report:
    """Write the report page of a run, of a solved problem, or of a comparison of runs."""

    run: Path
    """Folder of a run, of a solved problem (turnwise solve --out), or of a comparison."""
    json: bool = False
    """Print one result object on stdout."""


def run(args: Sequence[str]) -> dict[str, Any]:
    """Write report.html."""
    a = parse(Report, args, "report", Report.__doc__ or "", alone="run")
    from turnwise.evaluation.pages.report import write_report

    page = write_report(a.run)
    if (a.run / "config.yaml").is_file() and not (a.run / "comparison.json").is_file():
        try:
            expect_ended(a.run)
        except InputError as e:
            notice(f"warning: {e}")
    console(a.json).print(f"report: {page}")
    return {"report": str(page)}
