"""Deal or No Deal: offline RL from negotiations between people, scored against a model of them.

    python experiments/deal_or_no_deal.py --data ../shared/data/deal_or_no_deal     everything, resumable
    python experiments/deal_or_no_deal.py --table                                   merge results again

Data: Lewis et al. 2017, arXiv:1706.05125 (CC BY-NC 4.0; not part of this repository). Steps: convert the
official split to our log format (private values as the system message, points as the reward of the agent's
last message); fit the reader that closes deals, and that tells each side after every offer what closing now
would bring; clone agent and partner from the training negotiations (both sides of each); train MC, ILQL and
turn-level IQL offline, on the same talks under other private values as well; let each negotiate with the
cloned partner over test scenarios. Betas are picked on validation scenarios with other seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from turnwise.cli import main as turnwise
from turnwise.data.batch import pack_tokens
from turnwise.data.chat import token_rows
from turnwise.data.files.logs import read_logs, write_jsonl
from turnwise.data.order import chunks
from turnwise.envs.tasks.negotiation.corpus import (
    Recording,
    on_offer,
    read_negotiations,
    renamed,
    reordered,
    revalued,
    scenarios_of,
    to_log,
    values_by_counts,
)
from turnwise.envs.tasks.negotiation.game import NegotiationTable, Read
from turnwise.envs.tasks.negotiation.reading import AllocationReader, agreement, fit_reader
from turnwise.envs.tasks.negotiation.scenarios import one_of
from turnwise.envs.tasks.table import Against
from turnwise.evaluation.measures.conversations import hold_conversations, tune_acting
from turnwise.evaluation.measures.intervals import mean_interval
from turnwise.losses.policy import action_logp
from turnwise.models.lm.parts import context_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.rollout.agent import Agent
from turnwise.rollout.conversations import Conversation
from turnwise.rollout.load import load_agent
from turnwise.rollout.partners import SpeakingModel
from turnwise.run.progress import Progress

HERE = Path(__file__).parent
GAMES, VALIDATION, LANES = 1000, 200, 64
REVALUED = 3
BETAS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
MODEL = ["--width", "128", "--layers", "4", "--heads", "4", "--context", "384"]
METHODS: dict[str, tuple[str, str, str, list[str], list[float]]] = {
    # name: run, algorithm, training logs, options, betas
    "BC": ("bc", "bc", "train", [*MODEL, "--epochs", "6"], []),
    "BC, top 10%": (
        "bc-top",
        "bc",
        "train",
        ["--model", "{run}/bc", "--keep-top", "0.1", "--epochs", "3"],
        [],
    ),
    "Monte-Carlo Q": ("mc", "mc", "train_revalued", ["--policy", "{run}/bc", "--epochs", "1"], BETAS),
    "turn-level IQL": (
        "turn-iql",
        "turn-iql",
        "train_revalued",
        ["--policy", "{run}/bc", "--epochs", "1"],
        BETAS,
    ),
    "ILQL": ("ilql", "ilql", "train_revalued", ["--policy", "{run}/bc", "--epochs", "1.5"], BETAS),
}
PUBLISHED = [("likelihood", 5.4, 5.5), ("RL", 7.1, 4.2), ("rollouts", 7.3, 5.1), ("RL + rollouts", 8.3, 4.2)]


def prepare(data: Path, runs: Path) -> None:
    """Logs per split, training logs in a larger version, the reader and how well it agrees with people."""
    runs.mkdir(parents=True, exist_ok=True)
    rows = read_negotiations(data)
    train = [n for n in rows if n.split == "train"]
    reader = fit_reader(train)
    reader.save(runs / "reader.npz")
    for split in ("train", "val", "test"):
        logs = ((to_log(n, shares=on_offer(n, reader.read)), n) for n in rows if n.split == split)
        whole = (log | {"table": table_of(n)} for log, n in logs if log is not None)
        write_jsonl(runs / f"{split}.jsonl", whole, overwrite=True)
    write_jsonl(runs / "train_revalued.jsonl", revalue_all(train, reader.read), overwrite=True)
    found = {split: agreement(reader, [n for n in rows if n.split == split]) for split in ("val", "test")}
    (runs / "reader.json").write_text(json.dumps(found, indent=1) + "\n")


def revalue_all(rows: Sequence[Recording], read: Read) -> Iterator[dict[str, Any]]:
    """Each row with its own values and with `REVALUED` others, items named at random each time."""
    rng = np.random.default_rng(0)
    possible = values_by_counts(rows)
    orders = list(itertools.permutations(range(3)))
    for n in rows:
        shares = on_offer(n, read)
        others = [v for v in possible[n.counts] if v != n.values]
        chosen = rng.permutation(len(others))[:REVALUED]
        for i, values in enumerate([n.values, *(others[k] for k in chosen)]):
            order = orders[int(rng.integers(6))]
            moved = [None if x is None else reordered(x, order) for x in shares]
            if (log := to_log(renamed(revalued(n, values), order), f"-{i}", moved)) is not None:
                yield log | {"table": table_of(n)}


def table_of(n: Recording) -> str:
    """What both sides of a talk, and all versions of it, have in common: the scenario."""
    return f"{n.counts} {sorted([n.values, n.partner_values])}"


def perplexity(agent: Agent, logs: Path) -> float:
    """exp of the mean negative log-likelihood per word of the agent's messages, their ends included."""
    dialogues = read_logs(logs)
    words = sum(len(m.content.split()) + 1 for d in dialogues for m in d.turns)
    total = 0.0
    with torch.inference_mode():
        for rows in chunks(token_rows(dialogues, agent.chat, context_of(agent.lm)), 32):
            batch = pack_tokens(rows, gamma=1.0)
            logp = action_logp(LmPolicy(agent.lm)(batch.inputs, batch.decisions), batch.actions)
            total -= float(logp[batch.loss_mask].double().sum())
    return math.exp(total / words)


def game(data: Path, runs: Path, split: str) -> Against:
    """The task: test or validation scenarios, seen from both sides, against the cloned partner."""
    tables = scenarios_of(read_negotiations(data), split)
    both = list(dict.fromkeys([*tables, *(s.swapped() for s in tables)]))
    read = AllocationReader.load(runs / "reader.npz").read
    return Against(
        NegotiationTable(read, notes=True, draw=one_of(both)), SpeakingModel(load_agent(runs / "bc"))
    )


def scores(held: Sequence[Conversation]) -> dict[str, Any]:
    """Points of both sides, agreement and Pareto share, with 95% bootstrap intervals over games."""
    rng = np.random.default_rng(0)
    over = [c for c in held if c.dialogue.terminated]
    agreed = [c for c in over if c.info["agreed"]]

    def estimate(values: Sequence[float]) -> dict[str, float]:
        e = mean_interval(np.asarray(values, float), rng=rng)
        return {"mean": e.mean, "low": e.low, "high": e.high}

    # A game cut off by a full context is no agreement: both sides get nothing.
    return {
        "games": len(held),
        "cut_off": len(held) - len(over),
        "mine": estimate([c.dialogue.undiscounted_return() for c in held]),
        "partner": estimate([c.info.get("partner_points", 0) for c in held]),
        "mine_agreed": estimate([c.info["my_points"] for c in agreed]),
        "partner_agreed": estimate([c.info["partner_points"] for c in agreed]),
        "agreed": estimate([c.info.get("agreed", False) for c in held]),
        "pareto": estimate([c.info["pareto"] for c in agreed]),
        "utterances": float(np.mean([len(c.dialogue.turns) for c in held])),
    }


def evaluate(data: Path, runs: Path, name: str) -> None:
    """Pick beta on validation scenarios, then play the test scenarios once."""
    folder, *_, betas = METHODS[name]
    out = runs / folder / "negotiation.json"
    if out.exists():
        return
    agent, tried = load_agent(runs / folder), []
    if betas:
        settings = [{"beta": b} for b in betas]
        with Progress(f"{name}: beta", len(betas)) as bar:
            agent, tried = tune_acting(
                agent,
                game(data, runs, "val"),
                settings,
                episodes=VALIDATION,
                seed=77,
                lanes=LANES,
                progress=bar.at,
            )
    with Progress(f"{name}: test", GAMES) as bar:
        held = hold_conversations(
            agent, game(data, runs, "test"), episodes=GAMES, seed=0, lanes=LANES, progress=bar.at
        )
    found = {
        "name": name,
        "beta": agent.acting.beta if betas else None,
        **scores(held),
        "validation": [{k: t[k] for k in ("beta", "mean", "low", "high")} for t in tried],
        "transcripts": [transcript(c) for c in held[:10]],
    }
    out.write_text(json.dumps(found, indent=1) + "\n")


def transcript(c: Conversation) -> dict[str, Any]:
    """One of the first games, as it went."""
    return {
        "messages": [f"{m.role}: {m.content}" for m in c.dialogue.messages],
        "partner_values": c.hidden["partner_values"],
        "mine": c.info.get("my_points", 0),
        "partner": c.info.get("partner_points", 0),
        "agreed": bool(c.info.get("agreed", False)),
    }


def table(runs: Path) -> None:
    """Merge what is finished into deal_or_no_deal.json and .md."""
    files = [runs / folder / "negotiation.json" for folder, *_ in METHODS.values()]
    rows = [json.loads(f.read_text()) for f in files if f.exists()]
    if not rows:
        return
    kept = {k: json.loads((runs / f"{k}.json").read_text()) for k in ("reader", "perplexity")}
    ten = {r["name"]: r.pop("transcripts") for r in rows}
    merged = {**kept, "published": PUBLISHED, "rows": rows}
    (HERE / "deal_or_no_deal.json").write_text(json.dumps(merged, indent=1) + "\n")
    lines = [
        "| policy | mine, all | partner, all | mine, agreed | partner, agreed | agreed | Pareto | beta |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = [_cell(r[k]) for k in ("mine", "partner", "mine_agreed", "partner_agreed")]
        shares = [_cell(r[k], percent=True) for k in ("agreed", "pareto")]
        lines.append(f"| {r['name']} | {' | '.join([*cells, *shares])} | {r['beta'] or ''} |")
    lines += [f"| published: {name} | {mine} | {other} | | | | | |" for name, mine, other in PUBLISHED]
    read, words = (merged[k]["test"] for k in ("reader", "perplexity"))
    right, of = (sum(read[k][i] for k in ("agreed", "no agreement")) for i in (0, 1))
    lines += [
        "",
        f"{rows[0]['games']:,} games each on the test scenarios, both sides, against the clone; 95% "
        f"bootstrap intervals over games. The clone's perplexity is {words:.1f} per word of the test split's "
        f"agents. The reading that closes deals finds what the humans wrote down in {right} of {of} test "
        f"rows ({right / of:.1%}). Betas were picked on {VALIDATION} validation games each.",
    ]
    for name in ("ILQL", "BC"):
        if name in ten:
            lines += ["", f"## {name}: ten games, the first ten of the evaluation", ""]
            lines += ["\n".join(told(t)) + "\n" for t in ten[name]]
    (HERE / "deal_or_no_deal.md").write_text("\n".join(lines).rstrip() + "\n")


def told(t: dict[str, Any]) -> list[str]:
    """A game as Markdown."""
    names = {"system": "*the agent has*", "user": "partner", "assistant": "**agent**", "tool": "*note*"}
    said = [m.split(": ", 1) for m in t["messages"]]
    end = "agreed" if t["agreed"] else "no agreement"
    points = f"agent {t['mine']}, partner {t['partner']} (values {' '.join(map(str, t['partner_values']))})"
    return [*(f"- {names[role]}: {text}" for role, text in said), f"- *{end}: {points}*"]


def _cell(e: dict[str, float], percent: bool = False) -> str:
    if percent:
        return f"{e['mean']:.0%} ({e['low']:.0%} to {e['high']:.0%})"
    return f"{e['mean']:.2f} ({e['low']:.2f} to {e['high']:.2f})"


def everything(data: Path, runs: Path, methods: Sequence[str]) -> None:
    """Every step that is not done yet."""
    torch.set_num_threads(1)
    if not (runs / "reader.json").exists():
        prepare(data, runs)
    for name in methods:
        folder, algorithm, logs, options, _ = METHODS[name]
        out = runs / folder
        if not (out / "result.json").exists():
            words = [x.format(run=runs) for x in options]
            resume = ["--resume"] if (out / "config.yaml").exists() else []
            where = ["--logs", str(runs / f"{logs}.jsonl"), "--out", str(out)]
            held = ["--heldout", "0.02", "--heldout-by", "table"]
            if turnwise(["train", algorithm, *where, *held, *words, *resume]):
                raise SystemExit(1)
        if name == "BC" and not (runs / "perplexity.json").exists():
            agent = load_agent(out)
            found = {split: perplexity(agent, runs / f"{split}.jsonl") for split in ("val", "test")}
            (runs / "perplexity.json").write_text(json.dumps(found, indent=1) + "\n")
        evaluate(data, runs, name)
        table(runs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/deal_or_no_deal"))
    parser.add_argument("--runs", type=Path, default=Path("runs/deal_or_no_deal"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if not asked.table:
        everything(asked.data, asked.runs, asked.methods)
    table(asked.runs)
