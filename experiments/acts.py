"""HelpDesk per token, per turn and per act: the same 8,000 logs, each method with its defaults.

    python experiments/acts.py --seeds 0 --methods "IQL per act"     some of it, resumable
    python experiments/acts.py --table                               merge what is there: acts.json, acts.md

A token is one of a thousand, a turn a whole message, an act one of a few dozen things to mean. *Given*: the
log's own field `act` on both sides. *Discovered*: bare sentences, and acts as `turnwise train acts` finds
them. Each seed writes its own logs, trains its own models, and talks to its own 2,000 customers. Nothing is
tuned on these returns: the strength of a critic of tokens or turns is the algorithm's default. *Promised* is
the value of the first turn by the agent's own values, less what was earned.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    add_choice,
    add_seeds,
    logs_of,
    options,
    parse,
    read_part,
    trained,
    write_page,
    write_results,
)

import turnwise as tw
from turnwise.envs.tasks.helpdesk.exact import behavior_value, optimal_value
from turnwise.recipes.tasks import find_task
from turnwise.run.files.lock import has_ended
from turnwise.run.folder import write_json

CONVERSATIONS, EPISODES = 8_000, 2_000


@dataclass(frozen=True)
class Method:
    """A way of learning from the logs."""

    per: str
    folder: str
    config: Any
    given: bool = False
    """Whether the logs name the acts."""
    policy: str | None = None
    """Folder of the policy that it begins with."""


METHODS = {
    "BC per token": Method("token", "bc", tw.BC()),
    "Monte-Carlo Q per token": Method("token", "mc", tw.MC(), policy="bc"),
    "ILQL": Method("token", "ilql", tw.ILQL(), policy="bc"),
    "IQL per turn": Method("turn", "turn-iql", tw.TurnIQL(), policy="bc"),
    "BC per act": Method("act, given", "act-bc", tw.ActBC(), True),
    "Monte-Carlo Q per act": Method("act, given", "act-mc", tw.ActMC(), True),
    "IQL per act": Method("act, given", "act-iql", tw.ActIQL(), True),
    "CQL per act": Method("act, given", "act-cql", tw.ActCQL(), True),
    "Q-learning per act": Method("act, given", "act-q", tw.ActCQL(cql_weight=0.0), True),
    "IQL per act, discovered": Method("act, discovered", "found-iql", tw.ActIQL()),
    "CQL per act, discovered": Method("act, discovered", "found-cql", tw.ActCQL()),
}


def one(runs: Path, seed: int, name: str) -> None:
    """Train and measure one method on one seed, unless that is done."""
    method, home = METHODS[name], runs / f"seed{seed}"
    out, logs = home / method.folder, home / f"{'acts' if method.given else 'bare'}.jsonl"
    logs_of(find_task("helpdesk", {"acts": True} if method.given else {}), CONVERSATIONS, seed, logs)
    begins_with: dict[str, Any] = {"estimate": False}
    begins_with |= {} if method.policy is None else {"policy": str(home / method.policy)}
    if not has_ended(out):
        began = time.process_time()
        trained(method.config, str(logs), out, seed=seed, **begins_with)
        write_json(home / f"{method.folder}-time.json", {"seconds": time.process_time() - began})
    if not (out / "evaluation.json").exists():
        found = tw.evaluate(out, "helpdesk", episodes=EPISODES, seed=seed)
        print(f"{out}: {found.score} {found.interval}", flush=True)


def table(runs: Path) -> None:
    """Merge every finished evaluation into acts.json and acts.md."""
    rows: list[dict[str, Any]] = []
    for name, method in METHODS.items():
        files = sorted(runs.glob(f"seed*/{method.folder}/evaluation.json"))
        found = [(read_part(f), f.parent.parent / f"{method.folder}-time.json") for f in files]
        seeds = [
            {k: e[k] for k in ("seed", "mean", "low", "high", "episodes")}
            | {"promised": e.get("promised"), "seconds": read_part(t)["seconds"] if t.exists() else None}
            for e, t in found
        ]
        if seeds:
            mean = float(np.mean([s["mean"] for s in seeds]))
            rows.append({"name": name, "per": method.per, "mean": mean, "seeds": seeds})
    if not rows:
        return
    merged = {"optimum": optimal_value(), "behavior": behavior_value(), "rows": rows}
    write_results(runs, "acts", merged)
    lines = [
        "| per | policy | mean return over seeds | per seed (95% over 2,000 conversations) "
        "| promised less earned | CPU seconds of training |",
        "|---|---|---|---|---|---|",
        f"| | exact optimum | {merged['optimum']:.4f} | | | |",
    ]
    for r in sorted(rows, key=lambda r: -r["mean"]):
        per_seed = "; ".join(f"{s['mean']:.3f} ({s['low']:.3f} to {s['high']:.3f})" for s in r["seeds"])
        over = _mean([s["promised"]["over"] for s in r["seeds"] if s["promised"]], "+.3f")
        seconds = _mean([s["seconds"] for s in r["seeds"] if s["seconds"] is not None], ".0f")
        lines.append(f"| {r['per']} | {r['name']} | {r['mean']:.3f} | {per_seed} | {over} | {seconds} |")
    lines.append(f"| | behaviour policy (exact) | {merged['behavior']:.4f} | | | |")
    write_page(runs, "acts", "\n".join(lines))


def _mean(values: Sequence[float], form: str) -> str:
    return f"{np.mean(values):{form}}" if len(values) else ""


def main() -> None:
    """Make what is missing of the seeds that are named, and merge."""
    parser = options(__doc__, "acts")
    add_seeds(parser)
    add_choice(parser, "--methods", METHODS, "ways of learning")
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for name in a.methods:
            one(a.runs, seed, name)
            table(a.runs)
    table(a.runs)


if __name__ == "__main__":
    main()
