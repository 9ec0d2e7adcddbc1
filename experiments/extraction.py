"""One critic and three ways to act on it: shifted tokens, a choice among utterances, a policy cloned again.

    python experiments/extraction.py                     HelpDesk, seed 0 (some hours of a core), resumable
    python experiments/extraction.py --seeds 1           for another seed
    python experiments/extraction.py --tasks twenty      for another task
    python experiments/extraction.py --table             merge what is there into .json and .md

Each seed has 8,000 logs of its own (which say no acts), a clone of their agent, and on it one critic of
tokens (ILQL) and one of turns (turn-level IQL), all with the settings as they are. From the critic of tokens:

- **shifted tokens**: each log-probability of the clone is raised by beta (min Q - V);
- **choice among n**: the clone proposes n utterances, and one is said with probability proportional to
  exp(beta Q), Q of its last token;
- **AWR**: the clone learns from the logs once more, each token by min(exp(beta (min Q - V)), 20), and speaks
  without a critic.

At beta 0 AWR is behaviour cloning: as many passes more, which show what of its gain is the critic's.

The critic of turns chooses among utterances by their Q, and weighs all tokens of an utterance alike. Beta is
in nats per standard deviation of the return. The same betas are tried for every way, each on 200 validation
conversations, and the best one talks to 2,000 other customers; no figure of these chose anything. The gap
goes from the agent that wrote the logs (0%) to the optimum (100%), both exact on HelpDesk. CPU-seconds are of
one thread, for a conversation among 64 at a time; AWR has learnt for the time that stands beside it, the
other ways have nothing to learn but the critic. *Words that count* is the effective share of weighed tokens,
(sum w)^2 / (n sum w^2), of held-out conversations. Intervals (95%) are over conversations.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from turnwise.evaluation.measures.conversations import conversation_summary, hold_conversations
from turnwise.recipes.tasks import Task, find_task
from turnwise.rollout.agent import Agent
from turnwise.rollout.load import load_agent
from turnwise.run.folder import read_result
from turnwise.run.rehearsal import at_most

TASKS: dict[str, Mapping[str, Any]] = {"helpdesk": {}, "twenty": {}}
"""tasks, and their settings"""
LOGS, EPISODES, VALIDATION = 8_000, 2_000, 200
BETAS = (3.5, 14.0, 56.0)
VALIDATION_SEED = 1_000_003
CRITICS: dict[str, Any] = {"ILQL": tw.ILQL(), "turn-level IQL": tw.TurnIQL()}


@dataclass(frozen=True)
class Way:
    """A way to act on a critic."""

    critic: str | None
    """none: the clone, which has no beta"""
    title: str
    proposals: int = 1
    learns: bool = False
    """whether a policy is cloned under the critic, for each beta"""
    betas: tuple[float, ...] = BETAS
    """those that are tried"""


WAYS = {
    "clone": Way(None, "none: the clone"),
    "again": Way("ILQL", "none: AWR at beta 0", learns=True, betas=(0.0,)),
    "shifted": Way("ILQL", "shifted tokens"),
    "choice-4": Way("ILQL", "choice among 4", 4),
    "choice-16": Way("ILQL", "choice among 16", 16),
    "awr": Way("ILQL", "AWR, per token", learns=True),
    "turn-choice-4": Way("turn-level IQL", "choice among 4", 4),
    "turn-choice-16": Way("turn-level IQL", "choice among 16", 16),
    "turn-awr": Way("turn-level IQL", "AWR, per utterance", learns=True),
}


class Home:
    """What one seed of a task has: logs and runs, each made when it is first asked for."""

    def __init__(self, runs: Path, task: str, seed: int) -> None:
        self.task: Task = replace(find_task(task), settings=dict(TASKS[task]))
        self.seed, self.folder = seed, runs / f"{task}-seed{seed}"
        self.folder.mkdir(exist_ok=True)

    @property
    def logs(self) -> Path:
        """The agent's conversations."""
        return logs_of(self.task, LOGS, self.seed, self.folder / "logs.jsonl")

    @property
    def clone(self) -> Path:
        """The run of the clone."""
        return self.trained(tw.BC(), "clone")

    def critic(self, name: str) -> Path:
        """The run of a critic."""
        return self.trained(CRITICS[name], name.replace(" ", "-"), policy=str(self.clone))

    def trained(self, config: Any, folder: str, **given: Any) -> Path:
        """A run with these settings, which goes on if it was stopped."""
        return trained(config, self.logs, self.folder / folder, seed=self.seed, estimate=False, **given)

    def agent(self, way: Way, beta: float) -> tuple[Agent, dict[str, Any]]:
        """Who speaks; and what its learning under the critic was, if it did learn."""
        if way.critic is None:
            return load_agent(self.clone), {}
        run = self.critic(way.critic)
        if not way.learns:
            return load_agent(run).with_acting(beta=beta, proposals=way.proposals), {}
        given = {"policy": str(self.clone), "critic": str(run)}
        out = self.trained(tw.AWR(beta=beta), f"awr-{run.name}-{beta:g}", **given)
        m = read_result(out)["metrics"]
        share = m["heldout/weight"] ** 2 / m["heldout/squared_weight"] if "heldout/weight" in m else None
        return load_agent(out), {"counts": share, "seconds": m["seconds"]}

    def talked(self, agent: Agent, episodes: int, seed: int) -> dict[str, Any]:
        """What conversations earned, and the processor's time that each took."""
        episodes, began = at_most(4, episodes), time.process_time()
        held = hold_conversations(agent, self.task.live(), episodes=episodes, seed=seed)
        spent = (time.process_time() - began) / episodes
        found = conversation_summary(held, seed)
        return {k: found[k] for k in ("mean", "low", "high", "turns", "success")} | {"cpu": spent}

    def row(self, name: str) -> dict[str, Any]:
        """A way of acting at the best of the betas, measured."""
        way, tried = WAYS[name], []
        for beta in way.betas if way.critic is not None and len(way.betas) > 1 else ():
            agent, _ = self.agent(way, beta)
            tried.append({"beta": beta, **self.talked(agent, VALIDATION, self.seed + VALIDATION_SEED)})
        best = max(tried, key=lambda t: t["mean"])["beta"] if tried else 0.0
        agent, learning = self.agent(way, best)
        found = self.talked(agent, EPISODES, self.seed)
        roles = {r.role: r.mean for r in self.task.references()}
        share = (found["mean"] - roles["behaviour"]) / (roles["optimum"] - roles["behaviour"])
        task = {"task": self.task.name, "seed": self.seed, "behaviour": roles["behaviour"]}
        return {
            **task,
            "optimum": roles["optimum"],
            "way": name,
            "beta": best,
            **found,
            "share": share,
            **learning,
            "tried": tried,
        }


def table(runs: Path) -> None:
    """Merge what is finished into extraction.json and extraction.md."""
    rows = [read_part(f) for f in sorted(runs.glob("*-seed*-*.json"))]
    if not rows:
        return
    write_results(runs, "extraction", rows)
    lines = ["# One critic, three ways to act on it", "", story_of(__doc__)]
    for task in TASKS:
        found = [r for r in rows if r["task"] == task]
        if found:
            lines += ["", *_of_task(task, found)]
    write_page(runs, "extraction", "\n".join(lines))


def _of_task(task: str, rows: list[dict[str, Any]]) -> list[str]:
    seeds = ", ".join(map(str, sorted({r["seed"] for r in rows})))
    ends = f"the agent that wrote the logs {rows[0]['behaviour']:.4g}, optimum {rows[0]['optimum']:.4g}"
    lines = [
        f"## {task}, seed {seeds}",
        "",
        f"Mean returns, a figure for each seed; {ends}.",
        "",
        "| critic | way | beta | return (95%) | share of the gap | CPU-s a conversation | s of learning | "
        "words that count |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, way in WAYS.items():
        own = sorted((r for r in rows if r["way"] == name), key=lambda r: r["seed"])
        if not own:
            continue
        returns = "; ".join(f"{r['mean']:.3f} ({r['low']:.3f} to {r['high']:.3f})" for r in own)
        betas = "; ".join(f"{r['beta']:g}" for r in own) if way.critic is not None else ""
        share, cpu = (np.mean([r[k] for r in own]) for k in ("share", "cpu"))
        learnt = [r for r in own if r.get("seconds") is not None]
        took = f"{np.mean([r['seconds'] for r in learnt]):.0f}" if learnt else ""
        counts = f"{np.mean([r['counts'] for r in learnt]):.0%}" if learnt and learnt[0]["counts"] else ""
        cells = (way.critic or "", way.title, betas, returns, f"{share:.0%}", f"{cpu:.3f}", took, counts)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Make what is missing, and merge."""
    parser = options(__doc__, "extraction")
    add_seeds(parser, 0)
    parser.add_argument("--tasks", nargs="+", default=["helpdesk"], choices=list(TASKS), help="tasks")
    add_choice(parser, "--ways", WAYS, "ways of acting")
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for task in a.tasks:
            home = Home(a.runs, task, seed)
            for name in a.ways:
                make_part(a.runs / f"{task}-seed{seed}-{name}.json", lambda h=home, n=name: h.row(n))
                table(a.runs)
    table(a.runs)


if __name__ == "__main__":
    main()
