"""A plan's imagined conversations as logs: a language model takes over the plan, and nobody is talked to.

    python experiments/imagined_talk.py                         all tasks, seed 0 (half an hour), resumable
    python experiments/imagined_talk.py --seeds 1 2             for other seeds
    python experiments/imagined_talk.py --tasks twenty          for one task
    python experiments/imagined_talk.py --table                 merge what is there into .json and .md

Each seed has logs of its own, which say acts. Four things are made of them, all with default settings but for
the context in the maze, whose longest talks of 100 moves take 2,400 tokens:

- **clone of the logs**: behaviour cloning, per token;
- **plan**: a POMDP of acts learnt from the logs, and a plan in it (`pomdp`). It chooses acts, and speaks in
  sentences of the logs;
- **imagined talk**: the plan talks with its own models, which answer in sentences of the logs. As many
  conversations as were logged are written down as logs, and again 10,000 (`turnwise data talk`). What they
  earned is the models' opinion;
- **clone of the imagined talk**: behaviour cloning of these, per token, and of the 10,000. It chooses every
  token by itself, and neither acts nor the plan are asked when it speaks.

Each policy then talks to 1,000 real partners. The way goes from the agent that wrote the logs (0%) to the
optimum (100%), both exact. Intervals (95%) are over conversations; CPU-s are of making it, one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    add_choice,
    add_seeds,
    logs_of,
    make_part,
    options,
    parse,
    read_part,
    story_of,
    trained,
    write_page,
    write_results,
)

import turnwise as tw
from turnwise.recipes.talking import Talked
from turnwise.recipes.tasks import Task, find_task
from turnwise.run.rehearsal import at_most

TASKS: dict[str, tuple[str, Mapping[str, Any], int, int]] = {
    "helpdesk": ("helpdesk", {"acts": True}, 8000, 512),
    "maze-part": ("maze", {"observed": "part", "acts": True}, 1240, 2400),
    "twenty": ("twenty", {"acts": True}, 5000, 512),
    "dealer": ("dealer", {"acts": True}, 5000, 512),
}
"""tasks, their settings, their logged conversations, and a context that the longest talk fits: 100 moves"""
EPISODES, MORE = 1000, 10_000
ROWS = {
    "clone": "clone of the logs, per token",
    "plan": "plan, per act",
    "talk": "imagined talk of the plan, as its models pay it",
    "imagined": "clone of as much imagined talk as was logged, per token",
    "more": "clone of 10,000 imagined conversations, per token",
}


class Home:
    """What one seed of a task has; each thing is made when it is first asked for."""

    def __init__(self, runs: Path, name: str, seed: int) -> None:
        task, settings, self.count, self.context = TASKS[name]
        self.task: Task = replace(find_task(task), settings=dict(settings))
        self.seed, self.folder = seed, runs / f"{name}-seed{seed}"
        self.folder.mkdir(exist_ok=True)

    def logs(self) -> Path:
        """The agent's conversations."""
        return logs_of(self.task, self.count, self.seed, self.folder / "logs.jsonl")

    def trained(self, config: Any, logs: Path, name: str, **given: Any) -> Path:
        """A run with these settings, which goes on if it was stopped."""
        return trained(config, logs, self.folder / name, seed=self.seed, estimate=False, **given)

    def clone(self) -> Path:
        """The run of the clone of the logs."""
        return self.trained(tw.BC(), self.logs(), "clone", context=self.context)

    def plan(self) -> Path:
        """The run of the plan."""
        return self.trained(tw.LearntPomdp(), self.logs(), "plan")

    def talk(self, name: str, conversations: int) -> Talked:
        """What the plan and its models say to each other."""
        plan, file = self.plan(), self.folder / f"{name}.jsonl"
        asked = {"conversations": conversations, "seed": self.seed, "overwrite": True}
        return tw.write_talk(plan, plan, file, **asked)

    def taught(self, name: str, talk: str) -> Path:
        """The run of a clone of imagined talk."""
        return self.trained(tw.BC(), self.folder / f"{talk}.jsonl", name, context=self.context)

    def more(self) -> Path:
        """The run of the clone of more of it."""
        self.talk("more-talk", MORE)
        return self.taught("more", "more-talk")

    def row(self, name: str) -> dict[str, Any]:
        """Make one, and measure it."""
        began = time.process_time()
        if name == "talk":
            found = vars(self.talk("talk", self.count))
            made = time.process_time() - began
        else:
            ways: dict[str, Callable[[], Path]] = {
                "clone": self.clone,
                "plan": self.plan,
                "imagined": lambda: self.taught("imagined", "talk"),
                "more": self.more,
            }
            run = ways[name]()
            made = time.process_time() - began
            found = dict(tw.evaluate(run, self.task, episodes=at_most(8, EPISODES), seed=self.seed).result)
        roles = {r.role: r.mean for r in self.task.references()}
        share = (found["mean"] - roles["behaviour"]) / (roles["optimum"] - roles["behaviour"])
        ends = {"behaviour": roles["behaviour"], "optimum": roles["optimum"]}
        kept = {k: found[k] for k in ("mean", "low", "high")} | {"cut": found.get("truncated", 0)}
        return {"seed": self.seed, "row": name, **kept, "share": share, "seconds": made, **ends}


def table(runs: Path) -> None:
    """Merge what is finished into imagined_talk.json and imagined_talk.md."""
    parts = [read_part(f) for f in sorted(runs.glob("*-seed*-*.json"))]
    if not parts:
        return
    write_results(runs, "imagined_talk", parts)
    lines = ["# A language model takes over a plan", "", story_of(__doc__)]
    for task in TASKS:
        found = [p for p in parts if p["task"] == task]
        if not found:
            continue
        ends = f"the agent that wrote the logs {found[0]['behaviour']:.4g}, optimum {found[0]['optimum']:.4g}"
        seeds = ", ".join(map(str, sorted({p["seed"] for p in found})))
        lines += ["", f"## {task}, seed {seeds}", "", f"Mean returns, a figure for each seed; {ends}.", ""]
        lines += ["| | return (95%) | of the way | CPU-s |", "|---|---|---|---|"]
        for name, title in ROWS.items():
            own = sorted((p for p in found if p["row"] == name), key=lambda p: p["seed"])
            if own:
                returns = "; ".join(f"{p['mean']:.3f} ({p['low']:.3f} to {p['high']:.3f})" for p in own)
                cut = sum(p.get("cut", 0) for p in own)
                returns += f"; {cut} talks were cut before they had paid" if cut else ""
                share, took = (np.mean([p[k] for p in own]) for k in ("share", "seconds"))
                lines.append(f"| {title} | {returns} | {share:.0%} | {took:.0f} |")
    write_page(runs, "imagined_talk", "\n".join(lines))


def main() -> None:
    """Make what is missing, and merge."""
    parser = options(__doc__, "imagined_talk")
    add_seeds(parser, 0)
    add_choice(parser, "--tasks", TASKS, "tasks")
    add_choice(parser, "--rows", ROWS, "rows")
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for task in a.tasks:
            home = Home(a.runs, task, seed)
            for name in a.rows:
                file = a.runs / f"{task}-seed{seed}-{name}.json"
                make_part(file, lambda h=home, n=name, t=task: {"task": t, **h.row(n)})
                table(a.runs)
    table(a.runs)


if __name__ == "__main__":
    main()
