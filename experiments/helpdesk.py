"""HelpDesk: what each way of learning from logs is worth, over several seeds, beside the exact optimum.

    python experiments/helpdesk.py --seeds 0           one seed (about half an hour on one core), resumable
    python experiments/helpdesk.py --table             merge what is there into helpdesk.json and helpdesk.md
    python experiments/helpdesk.py --seeds 10 --taus .8 .9 .95   ILQL's tau, on validation conversations

Each seed writes its own 20,000 logs, trains its own tokenizer and models, and talks to its own 2,000
customers. Betas are picked on 300 validation conversations of another seed (`tw.evaluate` does that).
Everything else (tau, lookahead, epochs, weight decay) was chosen on the logs, models and customers of seeds
10 and 11, which are in no table. LOG.md has what was tried, and what earlier settings scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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

CONVERSATIONS, EPISODES, VALIDATION = 20_000, 2_000, 300
CLONE = {"width": 64, "layers": 2, "heads": 4}


@dataclass(frozen=True)
class Method:
    """A way of learning from logs."""

    folder: str
    config: Any
    begins_with: str | None = None
    """What is handed over of the seed's clone: `model`, to clone further, or `policy`, to be guided."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    betas: tuple[float, ...] = ()
    """Strengths of the critic to choose from."""


METHODS = {
    "BC": Method("bc", tw.BC(epochs=6.0, partner_weight=0.5), settings=CLONE),
    "BC, top 10%": Method("bc-top", tw.BC(epochs=3.0, keep_top=0.1), "model"),
    "BC, success only": Method("bc-success", tw.BC(epochs=2.0, min_return=0.0), "model"),
    "Monte-Carlo Q": Method("mc", tw.MC(), "policy", betas=(14.0, 28.0, 56.0, 112.0)),
    "turn-level IQL": Method("turn-iql", tw.TurnIQL(), "policy", betas=(7.0, 28.0, 112.0)),
    "ILQL": Method(
        "ilql",
        tw.ILQL(
            epochs=8.0,
            optimizer=replace(tw.ILQL().optimizer, lr=4e-4, weight_decay=1.0),
            tau_within_turn=0.86,
        ),
        "policy",
        betas=(14.0, 28.0, 56.0, 112.0),
    ),
}


def train(method: Method, home: Path, out: Path, seed: int) -> None:
    """Train on the seed's logs into `out`, unless that run is finished; go on with it if it has begun."""
    begins_with = {} if method.begins_with is None else {method.begins_with: str(home / "bc")}
    settings = {**method.settings, **begins_with, "estimate": False}
    trained(method.config, str(home / "logs.jsonl"), out, seed=seed, **settings)


def measure(out: Path, seed: int, betas: Sequence[float], episodes: int) -> None:
    """Talk to the seed's customers, with the best of the betas, unless that is done."""
    if not (out / "evaluation.json").exists():
        found = tw.evaluate(
            out,
            "helpdesk",
            episodes=episodes,
            seed=seed,
            betas=tuple(betas),
            validation_episodes=VALIDATION,
        )
        print(f"{out}: {found.score} {found.interval}", flush=True)


def one_seed(runs: Path, seed: int, methods: Sequence[str]) -> None:
    """All methods on one seed; finished parts are not done again."""
    home = runs / f"seed{seed}"
    write_logs(home, seed)
    for method in (METHODS[name] for name in methods):
        train(method, home, home / method.folder, seed)
        measure(home / method.folder, seed, method.betas, EPISODES)
        table(runs)


def write_logs(home: Path, seed: int) -> None:
    """The seed's conversations, unless they are there."""
    logs_of(find_task("helpdesk"), CONVERSATIONS, seed, home / "logs.jsonl")


def compare_taus(runs: Path, seed: int, taus: Sequence[float]) -> None:
    """ILQL at several tau, scored on validation conversations; writes helpdesk_tau.json."""
    home, found = runs / f"seed{seed}", []
    for tau in taus:
        method = replace(METHODS["ILQL"], config=tw.ILQL(tau=tau))
        out = home / f"ilql-tau{tau}"
        train(method, home, out, seed)
        measure(out, seed, method.betas, episodes=2)  # the validation conversations are what counts
        validation = read_part(out / "evaluation.json")["validation"]
        found += [{"tau": tau, **{k: v[k] for k in ("beta", "mean", "low", "high")}} for v in validation]
    write_results(runs, "helpdesk_tau", found)


def table(runs: Path) -> None:
    """Merge every finished evaluation into helpdesk.json and helpdesk.md."""
    rows = []
    kept = ("mean", "low", "high", "episodes", "success", "turns", "beta")
    for name, method in METHODS.items():
        found = [read_part(f) for f in sorted(runs.glob(f"seed*/{method.folder}/evaluation.json"))]
        seeds = [{"seed": e["seed"], **{k: e[k] for k in kept}} for e in found]
        if seeds:
            means = np.array([s["mean"] for s in seeds])
            spread = float(np.ptp(means))
            rows.append({"name": name, "mean": float(means.mean()), "spread": spread, "seeds": seeds})
    if not rows:
        return
    merged = {"optimum": optimal_value(), "behavior": behavior_value(), "rows": rows}
    write_results(runs, "helpdesk", merged)
    lines = [
        "| policy | mean return over seeds | per seed (95% over 2,000 conversations) | success | turns |",
        "|---|---|---|---|---|",
        f"| exact optimum | {merged['optimum']:.4f} | | | |",
    ]
    for r in sorted(rows, key=lambda r: -r["mean"]):
        per_seed = "; ".join(f"{s['mean']:.3f} ({s['low']:.3f} to {s['high']:.3f})" for s in r["seeds"])
        # A rehearsal's policy may fill its context in every conversation: then none succeeds and none fails.
        successes = [s["success"] for s in r["seeds"] if s["success"] is not None]
        success = f"{np.mean(successes):.0%}" if successes else ""
        turns = np.mean([s["turns"] for s in r["seeds"]])
        lines.append(f"| {r['name']} | {r['mean']:.3f} | {per_seed} | {success} | {turns:.1f} |")
    lines.append(f"| behaviour policy (exact) | {merged['behavior']:.4f} | | | |")
    write_page(runs, "helpdesk", "\n".join(lines))


def main() -> None:
    """Make what is missing of the seeds that are named, and merge."""
    parser = options(__doc__, "helpdesk")
    add_seeds(parser)
    add_choice(parser, "--methods", METHODS, "ways of learning")
    parser.add_argument("--taus", nargs="+", type=float, help="compare these tau of ILQL instead")
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        if a.taus:
            compare_taus(a.runs, seed, a.taus)
        else:
            one_seed(a.runs, seed, a.methods)
    table(a.runs)


if __name__ == "__main__":
    main()
