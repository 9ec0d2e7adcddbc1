"""turnwise compare RUN... --logs FILE: which policy to take, from the logs of another alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnwise.cli.estimate import Judging
from turnwise.cli.say import console, notice, parse
from turnwise.cli.words import split_words
from turnwise.recipes.settings.measure import EstimateSettings
from turnwise.recipes.settings.train import LogReading
from turnwise.run.errors import SettingError


@dataclass(frozen=True)
class Runs:
    """What is compared, and by what."""

    runs: tuple[Path, ...]
    """Run folders of trained policies; the flag may be left away."""
    logs: str
    """Logged conversations of another agent, from which none of them has learnt: JSONL or Parquet file, a
    folder of them, or a datasets name or folder."""
    betas: tuple[float, ...] = ()
    """Strengths of the critic at which each run that has one is taken, in place of its own."""
    model: Path | None = None
    """Run folder of a plan (turnwise train pomdp) with the same codebooks, whose learnt models are to promise
    what the runs that choose acts are worth; none: a plan's own, of itself alone."""
    checkpoints: bool = False
    """Take the policies in each run's checkpoints as well: those that training kept (--checkpoints N)."""
    out: Path | None = None
    """Folder for the page of the comparison (compare.html) and its numbers (compare.json)."""


@dataclass(frozen=True)
class Compare:
    """Rank trained policies by what logged conversations say of them, and name the safe one."""

    target: Runs
    judging: Judging = field(default_factory=Judging)
    reading: LogReading = field(default_factory=LogReading)
    settings: EstimateSettings = field(default_factory=EstimateSettings)


def run(args: Sequence[str]) -> dict[str, Any]:
    """Estimate all of them on the same conversations, and print the ranking."""
    found = split_words(Compare, args)
    named = ["--runs", *found.flags.get("runs", ()), *found.alone] if found.alone else []
    rest = found.rest
    if found.alone and "runs" in found.flags:
        at = rest.index("--runs")
        rest = rest[:at] + rest[at + 1 + len(found.flags["runs"]) :]
    a = parse(Compare, [*named, *rest], "compare RUN ...", Compare.__doc__ or "")
    for folder in a.target.runs:
        if not folder.exists():
            raise SettingError("runs", str(folder), "run folders of trained policies; no such folder")
    import torch

    from turnwise.data.files.logs import read_logs
    from turnwise.recipes.measuring.compare import compare

    torch.set_num_threads(a.judging.threads)
    logs = read_logs(a.target.logs, **vars(a.reading))
    j = a.judging
    asked = {
        "betas": a.target.betas,
        "acts": j.acts,
        "reward": j.reward,
        "safe": j.safe,
        "model": a.target.model,
    }
    asked |= {"out": a.target.out, "checkpoints": a.target.checkpoints}
    result = compare(a.target.runs, logs, **asked, **vars(a.settings))
    for warning in result["warnings"]:
        notice(f"warning: {warning}")
    out = console(a.judging.json)
    out.print(_table(result))
    out.print(_safe(result["safe"]), markup=False, highlight=False)
    if a.judging.safe is not None:
        from turnwise.recipes.estimating.words import in_words_of_run

        for line in in_words_of_run(result["safe"]):
            out.print(line, markup=False, highlight=False)
    if a.target.out is not None:
        out.print(f"report: {result['report']}")
    return result


def _table(result: Mapping[str, Any]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=None)
    table.add_column("policy", overflow="fold")
    for name in (
        "worth",
        "gain (95%, all at once)",
        "best",
        "worse than logged",
        "how sure",
        "vouched up to",
    ):
        table.add_column(name, justify="right")
    for row in result["rows"]:
        gain, known = row["gain"], row["value"] is not None
        logged = row["logged"]
        table.add_row(
            row["name"],
            f"{row['value']:.3f}" if known else "no number",
            "" if logged or gain["low"] is None else
            f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})" if known else "",
            f"{row['best']:.0%}",
            "" if logged else f"{row['worse']:.0%}",
            "" if logged else row["sure"],
            "" if logged else f"{row['reached'] or 0:.0%}",
            style="dim" if logged else None,
        )  # fmt: skip
    return table


def _safe(safe: Mapping[str, Any]) -> str:
    if not safe["t"]:
        return "safe: the logged agent; nothing that these logs vouch for is better with certainty"
    gain = safe["gain"]
    step = "" if safe["t"] == 1 else f", {safe['t']:.0%} of the way to it"
    return (
        f"safe: {safe['name']}{step}, worth {safe['value']:.3f}; gain {gain['value']:+.3f} "
        f"({gain['low']:+.3f} to {gain['high']:+.3f}, 95%)"
    )
