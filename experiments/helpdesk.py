"""HelpDesk: what each way of learning from logs is worth, over several seeds, beside the exact optimum.

    python experiments/helpdesk.py --seed 0            one seed (about half an hour on one core), resumable
    python experiments/helpdesk.py --table             merge what is there into helpdesk.json and helpdesk.md
    python experiments/helpdesk.py --seed 10 --taus .8 .9 .95    ILQL's tau, on validation conversations

Each seed writes its own 20,000 logs, trains its own tokenizer and models, and talks to its own 2,000
customers. Betas are picked on 300 validation conversations whose seed is another one (`turnwise evaluate`
does that). Everything else (tau, lookahead, epochs, weight decay) was chosen on logs, models and customers of
seeds 10 and 11, which are in no table; LOG.md has what was tried, and what earlier settings scored.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from turnwise.cli import main as turnwise
from turnwise.envs.tasks.helpdesk.exact import behavior_value, optimal_value

HERE = Path(__file__).parent
CONVERSATIONS, EPISODES, VALIDATION = 20_000, 2_000, 300
MODEL = ["--width", "64", "--layers", "2", "--heads", "4", "--partner-weight", "0.5", "--epochs", "6"]
DECAYED = ["--lr", "4e-4", "--weight-decay", "1", "--tau-within-turn", "0.86"]
METHODS: dict[str, tuple[str, str, list[str], list[str]]] = {
    # name: run, algorithm, options, betas
    "BC": ("bc", "bc", [*MODEL], []),
    "BC, top 10%": ("bc-top", "bc", ["--model", "{run}/bc", "--keep-top", "0.1", "--epochs", "3"], []),
    "BC, success only": (
        "bc-success",
        "bc",
        ["--model", "{run}/bc", "--min-return", "0", "--epochs", "2"],
        [],
    ),
    "Monte-Carlo Q": ("mc", "mc", ["--policy", "{run}/bc"], ["16", "32", "64", "128"]),
    "turn-level IQL": ("turn-iql", "turn-iql", ["--policy", "{run}/bc"], ["8", "32", "128"]),
    "ILQL": (
        "ilql",
        "ilql",
        ["--policy", "{run}/bc", "--epochs", "8", *DECAYED],
        ["16", "32", "64", "128"],
    ),
}


def call(*words: str) -> None:
    """A verb of the command line; what fails stops the experiment."""
    code = turnwise(list(words))
    if code:
        raise SystemExit(code)


def train(algorithm: str, logs: Path, out: Path, seed: int, options: list[str]) -> None:
    """Train into `out` unless it is finished there."""
    if not (out / "result.json").exists():
        resume = ["--resume"] if (out / "config.yaml").exists() else []
        call(
            "train", algorithm, "--logs", str(logs), "--out", str(out), "--seed", str(seed), *options, *resume
        )


def one_seed(runs: Path, seed: int, methods: list[str]) -> None:
    """All methods on one seed; finished parts are not done again."""
    run = runs / f"seed{seed}"
    logs = run / "logs.jsonl"
    logs.parent.mkdir(parents=True, exist_ok=True)
    if not logs.exists():
        call("data", "make", "--out", str(logs), "--conversations", str(CONVERSATIONS), "--seed", str(seed))
    for name in methods:
        folder, algorithm, options, betas = METHODS[name]
        train(algorithm, logs, run / folder, seed, [x.format(run=run) for x in options])
        if not (run / folder / "evaluation.json").exists():
            picked = ["--betas", *betas, "--validation-episodes", str(VALIDATION)] if betas else []
            call(
                "evaluate",
                "--run",
                str(run / folder),
                "--episodes",
                str(EPISODES),
                "--seed",
                str(seed),
                *picked,
            )
        table(runs)


def taus(runs: Path, seed: int, values: list[float]) -> None:
    """ILQL at several tau, scored on validation conversations; writes helpdesk_tau.json."""
    run = runs / f"seed{seed}"
    found = []
    for tau in values:
        out = run / f"ilql-tau{tau}"
        train("ilql", run / "logs.jsonl", out, seed, ["--policy", f"{run}/bc", "--tau", str(tau)])
        if not (out / "evaluation.json").exists():
            betas = METHODS["ILQL"][3]
            call(
                "evaluate", "--run", str(out), "--episodes", "2", "--seed", str(seed),
                "--betas", *betas, "--validation-episodes", str(VALIDATION),
            )  # fmt: skip
        tried = json.loads((out / "evaluation.json").read_text())["validation"]
        found += [{"tau": tau, **{k: t[k] for k in ("beta", "mean", "low", "high")}} for t in tried]
    (HERE / "helpdesk_tau.json").write_text(json.dumps(found, indent=1) + "\n")


def table(runs: Path) -> None:
    """Merge every finished evaluation into helpdesk.json and helpdesk.md."""
    rows = []
    for name, (folder, *_) in METHODS.items():
        files = sorted(runs.glob(f"seed*/{folder}/evaluation.json"))
        seeds = []
        for file in files:
            e = json.loads(file.read_text())
            kept = ("mean", "low", "high", "episodes", "success", "turns", "beta")
            seeds.append({"seed": e["seed"], **{k: e[k] for k in kept}})
        if seeds:
            means = np.array([s["mean"] for s in seeds])
            rows.append(
                {"name": name, "mean": float(means.mean()), "spread": float(np.ptp(means)), "seeds": seeds}
            )
    if not rows:
        return
    merged = {"optimum": optimal_value(), "behavior": behavior_value(), "rows": rows}
    (HERE / "helpdesk.json").write_text(json.dumps(merged, indent=1) + "\n")
    lines = [
        "| policy | mean return over seeds | per seed (95% over 2,000 conversations) | success | turns |",
        "|---|---|---|---|---|",
        f"| exact optimum | {merged['optimum']:.4f} | | | |",
    ]
    for r in sorted(rows, key=lambda r: -r["mean"]):
        per_seed = "; ".join(f"{s['mean']:.3f} ({s['low']:.3f} to {s['high']:.3f})" for s in r["seeds"])
        success, turns = (np.mean([s[k] for s in r["seeds"]]) for k in ("success", "turns"))
        lines.append(f"| {r['name']} | {r['mean']:.3f} | {per_seed} | {success:.0%} | {turns:.1f} |")
    lines.append(f"| behaviour policy (exact) | {merged['behavior']:.4f} | | | |")
    (HERE / "helpdesk.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/helpdesk"), help="where runs are kept")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--taus", nargs="+", type=float)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    asked.runs.mkdir(parents=True, exist_ok=True)
    if asked.seed is not None and asked.taus:
        taus(asked.runs, asked.seed, asked.taus)
    elif asked.seed is not None:
        one_seed(asked.runs, asked.seed, asked.methods)
    table(asked.runs)
