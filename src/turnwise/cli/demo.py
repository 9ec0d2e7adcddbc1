"""turnwise demo."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turnwise.cli.say import comparison_table, console, interval, notice, parse
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
    """Learn, measure, compare; then the table and the page."""
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
    for line in said_before(found["estimates"]):
        out.print(line, markup=False, highlight=False)
    from turnwise.evaluation.pages.report import write_report

    page = write_report(a.settings.out)
    seconds = time.monotonic() - began
    out.print(f"report: {page.resolve()}  ({int(seconds) // 60}:{int(seconds) % 60:02d})")
    return {"report": str(page), "seconds": round(seconds, 1), **found}


def said_before(estimates: Sequence[Mapping[str, Any]]) -> list[str]:
    """What other logs say of policies, a line each."""
    if not estimates:
        return []
    count = estimates[0]["conversations"]
    found = [f"what {count:,} other logged conversations say of them, with nobody to talk to:"]
    for e in estimates:
        then = {"mean": e["then"]["value"], **e["then"]}
        said = "they cannot tell" if e["sure"] == "cannot tell" else f"worth {interval(then)}"
        if e["sure"] == "vouch":
            said += ", the logs vouch for it"
        if e["promised"] is not None:
            said += f"; learnt models promise {interval({'mean': e['promised']['value'], **e['promised']})}"
        safe = e["safe"]
        step = "the logged agent"
        if safe["t"]:
            worth = interval({"mean": safe["worth"]["value"], **safe["worth"]})
            step = f"{safe['t']:.0%} of its turns, worth {worth}"
        found.append(f"  {e['name']}: {said}; safe: {step}")
    return found
