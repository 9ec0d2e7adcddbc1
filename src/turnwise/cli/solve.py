"""turnwise solve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from turnwise.cli.say import Bounds, console, notice, parse, styled
from turnwise.recipes.settings.solve import SolveSettings
from turnwise.run import outwards

if TYPE_CHECKING:
    from rich.text import Text

    from turnwise.recipes.solved import Solved


@dataclass(frozen=True)
class Problem:
    """The problem, and where its solution is written."""

    problem: Annotated[str, tyro.conf.Positional]
    """A .pomdp or .pomdpx file (.gz too), a built-in problem by name, or one's own as module:name."""
    out: Path | None = None
    """Run folder to write: policy, bounds over time, report page."""
    json: bool = False
    """Print one result object on stdout."""


@dataclass(frozen=True)
class Solve:
    """Bounds of the best value of a POMDP, and a policy: with the whole history, or with limited memory."""

    target: Problem
    settings: SolveSettings = field(default_factory=SolveSettings)


def run(args: Sequence[str]) -> dict[str, Any]:
    """Solve, print, and write what was asked for."""
    a = parse(Solve, args, "solve", Solve.__doc__ or "")
    from turnwise.recipes.solve import Listener, solve

    out = console(a.target.json)
    with Bounds(a.settings.deadline) as bar:
        listener = Listener(
            warn=lambda text: notice(f"warning: {text}"),
            note=notice,
            began=lambda problem: out.print(_described(problem, a.settings.horizon)),
            bounds=bar.at,
            quiet=a.target.json,
        )
        found = solve(a.target.problem, out=a.target.out, listener=listener, **vars(a.settings))
    result = dict(found.result)
    for line in (
        _with_history(found, a.settings) if a.settings.nodes is None else _with_limits(found, a.settings)
    ):
        out.print(line)
    if found.report is not None:
        out.print(f"report: {found.report}")
    else:
        out.print(
            styled(
                "[dim]nothing is written; --out FOLDER keeps the policy, the bounds and a report page[/dim]"
            )
        )
    if (s := result.get("simulation")) and not s["inside"]:
        result["exit"] = 1
    return result


def _described(problem: Any, horizon: int | None) -> str:
    S, A, O = problem.shape
    ends = "episodes end" if problem.episodic else "continuing"
    if horizon is not None:
        ends = f"{horizon:,} step{'s' if horizon > 1 else ''}"
    return (
        f"{problem.name}: {S:,} states, {A} actions, {O} observations, discount {problem.discount:g}, "
        f"{ends}, {'no' if problem.initial is None else 'with an'} initial observation"
    )


def _with_history(found: Solved, a: SolveSettings) -> list[Text | str]:
    r = found.result
    why = {
        "gap": f"the gap asked for is {a.target_gap:g}",
        "deadline": f"the deadline is {a.deadline:g} s"
        if r["searched"]
        else f"the deadline of {a.deadline:g} s was over before the search began: these are first bounds",
        "interrupted": "interrupted: the best so far",
    }[r["stopped"]]
    lines: list[Text | str] = [
        styled(
            "optimal value between [bold]{}[/bold] and [bold]{}[/bold], gap {} after {} s ({})",
            outwards.lower(r["lower"]),
            outwards.upper(r["upper"]),
            outwards.upper(r["gap"], 3),
            f"{r['seconds']:.2f}",
            why,
        ),
        f"policy: {r['plans']:,} plans (alpha vectors); searched {r['beliefs']:,} beliefs",
    ]
    if s := r.get("simulation"):
        inside = "within its bounds" if s["inside"] else "[red]outside its bounds[/red] by more than 3 s.e."
        mean, error = f"{s['mean']:.4f}", f"{s['standard_error']:.4f}"
        form = "{} episodes: mean return {} +- {} (1 s.e.), " + inside
        lines.append(styled(form, f"{s['episodes']:,}", mean, error))
    return lines


def _with_limits(found: Solved, a: SolveSettings) -> list[Text | str]:
    r = found.result
    what = {
        0: "best deterministic memoryless policy",
        1: "best stochastic memoryless policy found",
    }.get(a.nodes or 0, f"best stochastic controller of {a.nodes} nodes found")
    bound = (
        ""
        if r["upper"] is None
        else f"; the fast informed bound of all policies is {outwards.upper(r['upper'])}"
    )
    form = "{}: exact value [bold]{}[/bold] after {} s{}"
    return [styled(form, what, f"{r['value']:.6g}", f"{r['seconds']:.2f}", bound)]
