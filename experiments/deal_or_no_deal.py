"""Deal or No Deal: offline RL from negotiations between people, scored against a model of them.

    python experiments/deal_or_no_deal.py                       everything, resumable
    python experiments/deal_or_no_deal.py --data FOLDER         if the data are not in $TURNWISE_DATA
    python experiments/deal_or_no_deal.py --table               merge results again

Data: Lewis et al. 2017, arXiv:1706.05125 (CC BY-NC 4.0; not part of this repository). The steps:

1. Convert the official split to our log format: private values are the system message, points are the reward
   of the agent's last message.
2. Fit the reader that closes deals. After every offer it also tells each side what closing now would bring.
3. Clone agent and partner from the training negotiations, both sides of each.
4. Train MC, ILQL and turn-level IQL offline, on the same negotiations under other private values as well.
5. Let each negotiate with the cloned partner over test scenarios. Betas are picked on validation scenarios
   with other seeds.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    DATA,
    add_choice,
    make_part,
    options,
    parse,
    read_part,
    trained,
    write_page,
    write_results,
)

import turnwise as tw
from turnwise.data.batch import pack_tokens
from turnwise.data.files.writing import write_jsonl
from turnwise.data.order import chunks
from turnwise.data.rows import token_rows
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
from turnwise.rollout.partners.speakers import SpeakingModel
from turnwise.run.folder import write_text
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most

GAMES, VALIDATION, LANES = 1000, 200, 64
REVALUED = 3
"""other private values under which each negotiation is learnt from as well"""
BETAS = (3.5, 7.0, 14.0, 28.0, 56.0, 112.0)
CLONE = {"width": 128, "layers": 4, "heads": 4, "context": 384}


@dataclass(frozen=True)
class Method:
    """A way of learning from negotiations."""

    folder: str
    config: Any
    begins_with: str | None = None
    """What is handed over of the clone: `model`, to clone further, or `policy`, to be guided."""
    logs: str = "train"
    betas: tuple[float, ...] = ()
    """Strengths of the critic to choose from."""


METHODS = {
    "BC": Method("bc", tw.BC(epochs=6.0)),
    "BC, top 10%": Method("bc-top", tw.BC(epochs=3.0, keep_top=0.1), "model"),
    "Monte-Carlo Q": Method("mc", tw.MC(epochs=1.0), "policy", "train_revalued", BETAS),
    "turn-level IQL": Method("turn-iql", tw.TurnIQL(epochs=1.0), "policy", "train_revalued", BETAS),
    "ILQL": Method("ilql", tw.ILQL(epochs=1.5), "policy", "train_revalued", BETAS),
}
PUBLISHED = [("likelihood", 5.4, 5.5), ("RL", 7.1, 4.2), ("rollouts", 7.3, 5.1), ("RL + rollouts", 8.3, 4.2)]


def prepare(data: Path, runs: Path) -> None:
    """Logs per split, training logs in a larger version, the reader and how well it agrees with people."""
    rows = read_negotiations(data)
    splits = {split: [n for n in rows if n.split == split] for split in ("train", "val", "test")}
    splits = {split: found[: at_most(300, len(found))] for split, found in splits.items()}
    train = splits["train"]
    reader = fit_reader(train)
    reader.save(runs / "reader.npz")
    for split, found in splits.items():
        logs = ((to_log(n, shares=on_offer(n, reader.read)), n) for n in found)
        complete = (log | {"table": table_of(n)} for log, n in logs if log is not None)
        write_jsonl(runs / f"{split}.jsonl", complete, overwrite=True)
    write_jsonl(runs / "train_revalued.jsonl", revalue_all(train, reader.read), overwrite=True)
    # Written last: whoever finds it finds all of these files.
    agreed = {split: agreement(reader, splits[split]) for split in ("val", "test")}
    write_text(runs / "reader.json", json.dumps(agreed, indent=1) + "\n")


def revalue_all(rows: Sequence[Recording], read: Read) -> Iterator[dict[str, Any]]:
    """Each row with its own values and with `REVALUED` others; the items are renamed at random each time."""
    rng = np.random.default_rng(0)
    possible = values_by_counts(rows)
    orders = list(itertools.permutations(range(3)))
    for n in rows:
        shares = on_offer(n, read)
        others = [v for v in possible[n.counts] if v != n.values]
        chosen = rng.permutation(len(others))[:REVALUED]
        for i, values in enumerate([n.values, *(others[k] for k in chosen)]):
            order = orders[int(rng.integers(6))]
            shares_there = [None if x is None else reordered(x, order) for x in shares]
            if (log := to_log(renamed(revalued(n, values), order), f"-{i}", shares_there)) is not None:
                yield log | {"table": table_of(n)}


def table_of(n: Recording) -> str:
    """The scenario as text: the same for both sides of a negotiation and for all versions of it."""
    return f"{n.counts} {sorted([n.values, n.partner_values])}"


def perplexity(agent: Agent, logs: Path) -> float:
    """exp of the mean negative log-likelihood per word of the agent's messages, their ends included."""
    dialogues = tw.read_logs(logs)
    words = sum(len(m.content.split()) + 1 for d in dialogues for m in d.turns)
    total = 0.0
    with torch.inference_mode():
        for rows in chunks(token_rows(dialogues, agent.chat, context_of(agent.lm)), 32):
            batch = pack_tokens(rows, gamma=1.0)
            logp = action_logp(LmPolicy(agent.lm)(batch.inputs, batch.decisions), batch.actions)
            total -= float(logp[batch.loss_mask].double().sum())
    return math.exp(total / words)


def game(data: Path, runs: Path, split: str, clone: str = "bc") -> Against:
    """The task: the scenarios of a split, seen from both sides, against the cloned partner."""
    tables = scenarios_of(read_negotiations(data), split)
    both = list(dict.fromkeys([*tables, *(s.swapped() for s in tables)]))
    read = AllocationReader.load(runs / "reader.npz").read
    return Against(
        NegotiationTable(read, notes=True, draw=one_of(both)), SpeakingModel(load_agent(runs / clone))
    )


def scores(games: Sequence[Conversation]) -> dict[str, Any]:
    """Points of both sides, agreement and Pareto share, with 95% bootstrap intervals over games."""
    rng = np.random.default_rng(0)
    over = [c for c in games if c.dialogue.terminated]
    agreed = [c for c in over if c.info["agreed"]]

    def estimate(values: Sequence[float]) -> dict[str, float] | None:
        if len(values) < 2:  # a rehearsal has few games, and maybe no agreement
            return None
        e = mean_interval(np.asarray(values, float), rng=rng)
        return {"mean": e.mean, "low": e.low, "high": e.high}

    # A game cut off by a full context is no agreement: both sides get nothing.
    return {
        "games": len(games),
        "cut_off": len(games) - len(over),
        "mine": estimate([c.dialogue.undiscounted_return() for c in games]),
        "partner": estimate([c.info.get("partner_points", 0) for c in games]),
        "mine_agreed": estimate([c.info["my_points"] for c in agreed]),
        "partner_agreed": estimate([c.info["partner_points"] for c in agreed]),
        "agreed": estimate([c.info.get("agreed", False) for c in games]),
        "pareto": estimate([c.info["pareto"] for c in agreed]),
        "utterances": float(np.mean([len(c.dialogue.turns) for c in games])),
    }


def evaluate(data: Path, runs: Path, name: str) -> dict[str, Any]:
    """Pick beta on validation scenarios, then play the test scenarios once."""
    method = METHODS[name]
    betas = method.betas[: at_most(2, len(method.betas))]
    validation, games = at_most(4, VALIDATION), at_most(4, GAMES)
    agent, tried = load_agent(runs / method.folder), []
    if betas:
        with Progress(f"{name}: beta", len(betas)) as bar:
            agent, tried = tune_acting(
                agent,
                game(data, runs, "val"),
                [{"beta": b} for b in betas],
                episodes=validation,
                seed=77,
                lanes=LANES,
                progress=bar.at,
            )
    with Progress(f"{name}: test", games) as bar:
        held = hold_conversations(
            agent, game(data, runs, "test"), episodes=games, seed=0, lanes=LANES, progress=bar.at
        )
    return {
        "name": name,
        "beta": agent.acting.beta if betas else None,
        **scores(held),
        "validation": [{k: t[k] for k in ("beta", "mean", "low", "high")} for t in tried],
        "transcripts": [transcript(c) for c in held[:10]],
    }


def transcript(c: Conversation) -> dict[str, Any]:
    """A game: what was said, and how it ended."""
    return {
        "messages": [f"{m.role}: {m.content}" for m in c.dialogue.messages],
        "partner_values": c.hidden["partner_values"],
        "mine": c.info.get("my_points", 0),
        "partner": c.info.get("partner_points", 0),
        "agreed": bool(c.info.get("agreed", False)),
    }


def table(runs: Path) -> None:
    """Merge what is finished into deal_or_no_deal.json and .md."""
    files = [runs / method.folder / "negotiation.json" for method in METHODS.values()]
    rows = [read_part(f) for f in files if f.exists()]
    if not rows:
        return
    kept = {k: read_part(runs / f"{k}.json") for k in ("reader", "perplexity")}
    transcripts = {r["name"]: r.pop("transcripts") for r in rows}
    merged = {**kept, "published": PUBLISHED, "rows": rows}
    write_results(runs, "deal_or_no_deal", merged)
    lines = [
        "| policy | mine, all | partner, all | mine, agreed | partner, agreed | agreed | Pareto | beta |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = [_cell(r[k]) for k in ("mine", "partner", "mine_agreed", "partner_agreed")]
        shares = [_cell(r[k], percent=True) for k in ("agreed", "pareto")]
        lines.append(f"| {r['name']} | {' | '.join([*cells, *shares])} | {r['beta'] or ''} |")
    lines += [f"| published: {name} | {mine} | {other} | | | | | |" for name, mine, other in PUBLISHED]
    reading, words = (merged[k]["test"] for k in ("reader", "perplexity"))
    right, of = (sum(reading[k][i] for k in ("agreed", "no agreement")) for i in (0, 1))
    lines += [
        "",
        f"{rows[0]['games']:,} games each on the test scenarios, both sides, against the clone; 95% "
        f"bootstrap intervals over games. The clone's perplexity is {words:.1f} per word of the test split's "
        f"agents. The reading that closes deals finds what the humans wrote down in {right} of {of} test "
        f"rows ({right / of:.1%}). Betas were picked on {VALIDATION} validation games each.",
    ]
    for name in ("ILQL", "BC"):
        if name in transcripts:
            lines += ["", f"## {name}: ten games, the first ten of the evaluation", ""]
            lines += ["\n".join(as_list(t)) + "\n" for t in transcripts[name]]
    write_page(runs, "deal_or_no_deal", "\n".join(lines).rstrip())


def as_list(t: dict[str, Any]) -> list[str]:
    """A transcript as the items of a Markdown list."""
    names = {"system": "*the agent has*", "user": "partner", "assistant": "**agent**", "tool": "*note*"}
    said = [m.split(": ", 1) for m in t["messages"]]
    end = "agreed" if t["agreed"] else "no agreement"
    points = f"agent {t['mine']}, partner {t['partner']} (values {' '.join(map(str, t['partner_values']))})"
    return [*(f"- {names[role]}: {text}" for role, text in said), f"- *{end}: {points}*"]


def _cell(e: dict[str, float] | None, percent: bool = False) -> str:
    if e is None:
        return ""
    if percent:
        return f"{e['mean']:.0%} ({e['low']:.0%} to {e['high']:.0%})"
    return f"{e['mean']:.2f} ({e['low']:.2f} to {e['high']:.2f})"


def train(method: Method, runs: Path) -> None:
    """Train on the logs, unless that run is finished; go on with it if it has begun."""
    out = runs / method.folder
    settings: dict[str, Any] = {"heldout": 0.02, "heldout_by": "table", "estimate": False}
    settings |= CLONE if method.begins_with is None else {method.begins_with: str(runs / "bc")}
    trained(method.config, str(runs / f"{method.logs}.jsonl"), out, **settings)


def everything(data: Path, runs: Path, methods: Sequence[str]) -> None:
    """Every step that is not done yet."""
    if not (runs / "reader.json").exists():
        prepare(data, runs)
    for name in methods:
        method = METHODS[name]
        out = runs / method.folder
        train(method, runs)
        if name == "BC":
            agent = load_agent(out)
            make_part(
                runs / "perplexity.json",
                lambda agent=agent: {s: perplexity(agent, runs / f"{s}.jsonl") for s in ("val", "test")},
            )
        make_part(out / "negotiation.json", lambda name=name: evaluate(data, runs, name))
        table(runs)


def main() -> None:
    """Make what is missing, and merge."""
    parser = options(__doc__, "deal_or_no_deal")
    folder = DATA / "deal_or_no_deal"
    parser.add_argument("--data", type=Path, default=folder, help="data.txt and split_of_data_rows.txt")
    add_choice(parser, "--methods", METHODS, "ways of learning")
    a = parse(parser)
    if not a.table:
        everything(a.data, a.runs, a.methods)
    table(a.runs)


if __name__ == "__main__":
    main()
