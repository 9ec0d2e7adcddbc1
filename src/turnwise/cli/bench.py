"""turnwise bench: every method on every task, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from turnwise.cli.say import console, notice, parse
from turnwise.recipes.settings.bench import BenchSettings


@dataclass(frozen=True)
class Output:
    """What this call prints."""

    json: bool = False
    """Print one result object on stdout."""


@dataclass(frozen=True)
class Bench:
    """Train every method on every task with every seed, measure each live, and fill one table."""

    settings: BenchSettings = field(default_factory=BenchSettings)
    output: Output = Output()


def run(args: Sequence[str]) -> dict[str, Any]:
    """Fill the cells that are not there, then print the table."""
    a = parse(Bench, args, "bench", Bench.__doc__ or "")
    from turnwise.evaluation.pages.report import write_report
    from turnwise.recipes.bench import bench, lines_of
    from turnwise.run.folder import write_text

    found = bench(a.settings, notice)
    lines = lines_of(found)
    write_text(a.settings.out / "bench.md", "\n".join(lines))
    out = console(a.output.json)
    for line in lines:
        out.print(line, markup=False, highlight=False)
    page = write_report(a.settings.out)
    out.print(f"report: {page.resolve()}")
    return {"report": str(page), **found}
