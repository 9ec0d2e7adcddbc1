"""turnwise watch RUN: episodes of an agent, as films, in words, or step by step by hand."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnwise.cli.say import console, notice, parse, styled
from turnwise.recipes.settings.measure import WatchSettings
from turnwise.run.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from turnwise.evaluation.measures.agents.walk import Walk

LIKELY = 0.005
"""what is less likely is not printed"""
HELP = (
    "Enter: the agent acts, and what is seen is drawn. A name or a number instead is what is done, or seen. "
    "/new begins again, /state shows the hidden state, Ctrl-D ends it."
)


@dataclass(frozen=True)
class Run:
    """What is watched."""

    run: Path
    """Run folder of an agent that acts in an environment."""
    env: str | None = None
    """Environment, if not the one of training; it must look the same to the agent."""
    out: Path | None = None
    """Film to write, a .gif; none: episodes.gif in the run folder, if the environment renders pictures."""
    by_hand: bool = False
    """Step through one episode of a written-out POMDP, and see the belief; act and observe as you like."""
    json: bool = False
    """Print one result object on stdout."""


@dataclass(frozen=True)
class Watch:
    """Watch a trained agent: a film where its environment renders, and each step in words."""

    target: Run
    settings: WatchSettings = field(default_factory=WatchSettings)


def run(args: Sequence[str]) -> dict[str, Any]:
    """Watch, and say where the film is."""
    a = parse(Watch, args, "watch", Watch.__doc__ or "", alone="run")
    target, out = a.target, console(a.target.json)
    if target.by_hand:
        from turnwise.recipes.measuring.watch import walk

        steps = walk(target.run, target.env, seed=a.settings.seed, greedy=a.settings.greedy)
        return {"steps": _walk(steps, out)}
    from turnwise.recipes.measuring.watch import watch

    found = watch(target.run, target.env, out=target.out, **vars(a.settings))
    texts = iter([x for x in found.frames if isinstance(x, str)])
    for e in found.episodes:
        out.print(styled("[bold]{}[/bold] in {}", e["id"], found.env))
        for t, step in enumerate(e["steps"]):
            if found.rendered == "ansi":
                out.print(next(texts).rstrip(), markup=False)
            out.print(f"{t + 1:>4}  {_step(step, e['actions'])}", markup=False)
        if found.rendered == "ansi":
            for _ in range(e["length"] - len(e["steps"])):
                next(texts)
            out.print(next(texts).rstrip(), markup=False)
        more = e["length"] - len(e["steps"])
        left = f" ({more:,} steps more are not printed)" if more else ""
        paid = "" if e["discounted"] is None else f", discounted {e['discounted']:.4g}"
        ended = f"{e['ended']} after {e['length']:,} steps{left}: return {e['return']:.4g}{paid}"
        out.print(f"      {ended}", markup=False)
    if found.film is not None:
        out.print(f"film: {found.film} ({len(found.frames):,} pictures, {found.fps:g} a second)")
    return {
        "env": found.env,
        "rendered": found.rendered,
        "film": None if found.film is None else str(found.film),
        "episodes": list(found.episodes),
    }


def _step(step: Mapping[str, Any], actions: Sequence[str] | None) -> str:
    """A step in a line: what was seen, done and earned, and what is known beside it."""
    words = [f"saw {step['observation']}", f"did {step['action']}"]
    if "probabilities" in step and actions is not None:
        words[-1] += f" ({dict(zip(actions, step['probabilities'], strict=True))[step['action']]:.2f})"
    words.append(f"reward {step['reward']:g}")
    if "value" in step:
        words.append(f"V {step['value']:.3g}")
    if "state" in step:
        words.append(f"state {step['state']}")
    if step.get("belief"):
        words.append("belief " + ", ".join(f"{name} {p:.2f}" for name, p in step["belief"]))
    return "  ".join(words)


def _walk(walk: Walk, out: Console) -> list[dict[str, Any]]:
    """The steps that were taken, once nothing more is typed."""
    notice(HELP)
    steps: list[dict[str, Any]] = []
    while True:
        if not walk.over:
            _show(walk, out)
        action = _ask(walk, "/new or Ctrl-D" if walk.over else f"action ({walk.intended})", out)
        if action is None:
            return steps
        if action == "/new":
            walk.begin()
            steps = []
            continue
        if walk.over:
            continue
        try:
            likely = ", ".join(
                f"{name} {p:.2f}" for name, p in walk.observations(action or None) if p >= LIKELY
            )
            seen = _ask(walk, f"observation ({likely})", out)
            if seen is None:
                return steps
            if seen == "/new":
                walk.begin()
                steps = []
                continue
            step = walk.step(action or None, seen or None)
        except InputError as error:  # a name that is none; nothing has happened
            notice(str(error))
            continue
        steps.append(asdict(step))
        out.print(f"      did {step.action}, reward {step.reward:g}, saw {step.observation}", markup=False)
        if step.ended:
            out.print(f"      the episode is over: return {sum(walk.rewards):.4g}", markup=False)


def _show(walk: Walk, out: Console) -> None:
    """The belief, and what the agent makes of what it has seen."""
    belief = ", ".join(f"{name} {p:.3f}" for name, p in walk.belief() if p >= LIKELY)
    unit = "worth" if walk.values else "does"
    choices = ", ".join(f"{name} {x:.3g}" for name, x in walk.choices() if walk.values or x >= LIKELY)
    out.print(styled("[bold]belief[/bold]  {}", belief))
    out.print(styled("[bold]agent[/bold]   {} {}", unit, choices))


def _ask(walk: Walk, words: str, out: Console) -> str | None:
    """A line; None at the end of the input."""
    while True:
        sys.stderr.write(f"{words}> ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            sys.stderr.write("\n")
            return None
        if line.strip() != "/state":
            return line.strip()
        out.print(f"state   {walk.state}", markup=False)
