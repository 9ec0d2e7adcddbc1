"""turnwise improve --logs FILE --out RUN: from logs to a better policy in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnwise.cli.say import console, notice, parse
from turnwise.recipes.settings.improve import ImproveSettings, Labour
from turnwise.recipes.settings.train import LogReading


@dataclass(frozen=True)
class Source:
    """What is learnt from, and where to."""

    logs: str
    """Logged conversations with outcomes: JSONL or Parquet file, a folder of them, or a datasets name or
    folder."""
    out: Path
    """New folder for everything: the policy, its page, and a run for each stage."""
    json: bool = False
    """Print one result object on stdout."""


@dataclass(frozen=True)
class Improve:
    """Learn from logged conversations, judge what was learnt by others of them, and say what to do."""

    target: Source
    settings: ImproveSettings = field(default_factory=ImproveSettings)
    labour: Labour = field(default_factory=Labour)
    reading: LogReading = field(default_factory=LogReading)


def run(args: Sequence[str]) -> dict[str, Any]:
    """Carry it out, and print the answer."""
    a = parse(Improve, args, "improve", Improve.__doc__ or "", alone="logs")
    import torch

    from turnwise.recipes.improving.story import improve

    torch.set_num_threads(1)
    found = improve(a.target.logs, a.target.out, **vars(a.labour), **vars(a.settings), **vars(a.reading))
    out = console(a.target.json)
    for line in lines_of(found.result):
        out.print(line, markup=False, highlight=False)
    out.print(f"report: {found.report}")
    if found.policy is not None:
        notice(f"next: turnwise talk {a.target.out}")
    return {**found.result, "report": str(found.report)}


def lines_of(result: Mapping[str, Any]) -> list[str]:
    """The answer in words, and the policies beside it."""
    choice, compared = result["choice"], result["compared"]
    found = [_answer(result)]
    found += [f"  {why}" for why in choice["why"]]
    if compared is not None:
        logged = next(row for row in compared["rows"] if row["logged"])
        told = result["opinions"]
        found.append(f"{'policy':<28}{'by the logs':>28}  {'how sure':<12}{'by a second model':>26}")
        for row in sorted(compared["rows"], key=lambda r: -_order(r, told)):
            sure = "" if row["logged"] else row["sure"]
            second = _ends(told[row["name"]]) if row["name"] in told else ""
            found.append(f"{row['name']:<28}{_ends(row):>28}  {sure:<12}{second:>26}")
        assert logged is not None
    failed = [x for x in result["stages"] if x["failed"] is not None]
    return found + [f"not done: {x['title']}: {x['failed']}" for x in failed]


def _order(row: Mapping[str, Any], told: Mapping[str, Any]) -> float:
    found = told[row["name"]]["value"] if row["name"] in told else row["value"]
    return float("-inf") if found is None else found


def _answer(result: Mapping[str, Any]) -> str:
    choice, compared = result["choice"], result["compared"]
    if choice["word"] == "keep":
        return "keep what you have"
    logged = next(row for row in compared["rows"] if row["logged"])
    way = "" if choice["t"] == 1 else f"{choice['t']:.0%} of the way to "
    who = "models say it, and not the logs alone" if choice["word"] == "models" else "the logs vouch for it"
    return (
        f"take {way}{choice['name']}: it would earn {_ends(choice['worth'])}, where the logged agent earned "
        f"{_ends(logged)}; {who}"
    )


def _ends(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "no number"
    value = f"{row['value']:.3f}"
    if row["low"] is None or row["high"] is None:
        return value
    return f"{value} ({row['low']:.3f} to {row['high']:.3f})"
