"""turnwise plan: an online planner acts in a POMDP, beside the solver's bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from turnwise.cli.say import Bounds, against_proof, console, notice, parse, styled
from turnwise.recipes.settings.plan import PlanSettings


@dataclass(frozen=True)
class Problem:
    """What is planned in."""

    problem: Annotated[str, tyro.conf.Positional]
    """A .pomdp or .pomdpx file (.gz too), a built-in problem by name, or one's own as module:name: a problem
    or a simulator."""
    json: bool = False
    """Print one result object on stdout."""


@dataclass(frozen=True)
class Plan:
    """Act by simulations from what is believed (PO-UCT, POMCP), and set the mean beside the best policy's."""

    target: Problem
    settings: PlanSettings = field(default_factory=PlanSettings)


def run(args: Sequence[str]) -> dict[str, Any]:
    """Plan, act and print."""
    a = parse(Plan, args, "plan", Plan.__doc__ or "")
    from turnwise.recipes.plan import plan

    out = console(a.target.json)
    with Bounds(a.settings.deadline) as bar:
        found = plan(
            a.target.problem,
            quiet=a.target.json,
            warn=lambda text: notice(f"warning: {text}"),
            bounds=bar.at,
            **vars(a.settings),
        )
    r = dict(found.result)
    form = "{}: {} [bold]{}[/bold] ({} to {}, 95%), {} episodes"
    ends = (f"{r['mean']:.4g}", f"{r['low']:.4g}", f"{r['high']:.4g}", f"{r['episodes']:,}")
    out.print(styled(form, r["problem"], r["score"], *ends))
    belief = f"{r['particles']:,} particles" if r["particles"] else "the exact belief"
    how = f"{r['simulations']:,} simulations a move from {belief}, rollouts: {r['rollouts']}"
    out.print(f"  {how}; {r['seconds']:.3g} s")
    for line in found.beside:
        out.print(f"  {line}")
    for line in against_proof(r, "a fault of problem, bound or planner"):
        out.print(line)
    return r
