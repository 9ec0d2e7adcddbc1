"""What acts found in logged talk are worth: HelpDesk's variants and the travel desk, from logs to live talk.

    python experiments/discovered_acts.py                           everything, resumable
    python experiments/discovered_acts.py --rows travel-words --seeds 0    some of it
    python experiments/discovered_acts.py --rows travel-model --model models/smollm2
    python experiments/discovered_acts.py --table                   merge what is there: .json, .md

Each seed has its own logs and its own 2,000 live partners. The verbs' defaults are the same in all rows:
`train acts` makes the codebooks, `train pomdp` learns a POMDP from them and plans in it; the number of acts
and of hidden states is chosen on held-out conversations, and no return of a live conversation is looked at.

*Predicted* is the plan's mean worth in the models of the logs, by simulation. *Read back* is the share of the
agent's turns that its codebook reads as the act that was wanted; *understood* is the share that the task's
own parser reads at all; *one act* is the share of turns whose act by the parser is the most frequent one of
the codebook's act. *Other* is the share of what was heard that is like nothing in the logs. *Of the gap* is
how far the return is on the way from the logged behaviour to the optimum, both of which are exact.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    add_choice,
    add_seeds,
    make_part,
    options,
    parse,
    read_truths_and_rows,
    story_of,
    write_page,
    write_results,
)

import turnwise as tw
from turnwise.data.acts.build import build_codes
from turnwise.data.acts.files import load_codes, save_codes
from turnwise.data.acts.talks import Codes
from turnwise.data.dataset import Logs
from turnwise.data.files.logs import read_logs
from turnwise.evaluation.measures.intervals import mean_interval
from turnwise.recipes.features import features_of
from turnwise.recipes.measuring.act_conversations import reading
from turnwise.recipes.tasks import Task, find_task
from turnwise.rollout.acts.conversations import converse_in_acts
from turnwise.rollout.conversations import Conversation
from turnwise.run.folder import read_result
from turnwise.run.rehearsal import at_most

CONVERSATIONS = 2000


@dataclass(frozen=True)
class Row:
    """A row of the table: a task under some settings, how many logs, and how acts are made."""

    about: str
    task: str
    settings: dict[str, bool] = field(default_factory=dict)
    logs: int = 8000
    embed: bool = False
    """whether sentences are compared by features of the model that is given"""
    learner: str = "pomdp"

    def find(self) -> Task:
        """The task."""
        return find_task(self.task, self.settings)


ROWS = {
    "helpdesk": Row("HelpDesk, bare sentences", "helpdesk"),
    "helpdesk-unseen": Row("half of the wordings never logged", "helpdesk", {"unseen_wordings": True}),
    "helpdesk-outcome": Row("outcome at the end", "helpdesk", {"outcome_at_end": True}),
    "helpdesk-acts-1000": Row("acts given, 1,000 logs", "helpdesk", {"acts": True}, logs=1000),
    "helpdesk-iql": Row("acts given, IQL per act", "helpdesk", {"acts": True}, learner="iql"),
    "travel-words": Row("travel desk, sparse words", "travel"),
    "travel-model": Row("travel desk, pretrained model", "travel", embed=True),
    "travel-acts": Row("travel desk, acts given", "travel", {"acts": True}),
}


def one(row: Row, seed: int, model: str | None, folder: Path) -> dict[str, Any]:
    """Learn from the logs of a seed, and talk to its partners."""
    task = row.find()
    logs = read_logs(list(task.rows(at_most(60, row.logs), seed)), quiet=True)
    codes = codes_of(row, logs, seed, model, folder / "acts")
    learner: Any = tw.LearntPomdp() if row.learner == "pomdp" else tw.ActIQL()
    policy = tw.fit(learner, logs, acts=codes, out=folder / "policy", seed=seed, quiet=True, estimate=False)
    talks = converse_in_acts(
        policy.agent, task.live(), episodes=range(at_most(20, CONVERSATIONS)), seed=seed + 1000, lanes=250
    )
    return facts_of(row, task, seed, talks, read_result(folder / "policy"))


def codes_of(row: Row, logs: Logs, seed: int, model: str | None, folder: Path) -> Codes:
    """The codebooks by their defaults; those that are there are not made again."""
    embed = None if not row.embed else features_of(str(model), quiet=True)
    name = "words" if embed is None else str(model)
    if not (folder / "codes.json").is_file():
        built = build_codes(logs, embed=embed, embed_name=name, seed=seed)
        save_codes(built.codes, folder)
    return load_codes(folder, embed=None if embed is None else {name: embed}.__getitem__)


def facts_of(
    row: Row, task: Task, seed: int, talks: Sequence[Conversation], result: dict[str, Any]
) -> dict[str, Any]:
    """A row of the table."""
    returns = [c.dialogue.undiscounted_return() for c in talks]
    e = mean_interval(returns, rng=np.random.default_rng(seed), resamples=2000)
    shares = reading(talks, seed)
    predicted = next((w["mean"] for w in result.get("worth", []) if w["role"] == "predicted"), None)
    behaviour, optimum = task.known("behaviour"), task.known("optimum")
    assert behaviour is not None and optimum is not None
    mean = float(e.mean)
    return {
        "seed": seed,
        "logs": row.logs,
        "mean": mean,
        "low": float(e.low),
        "high": float(e.high),
        "gap": (mean - behaviour) / (optimum - behaviour),
        "predicted": predicted,
        "difference": None if predicted is None else predicted - mean,
        "read_back": shares["read_back"]["value"],
        "other": shares["strange"]["value"],
        **understood(talks, task),
        "acts": len(result["acts"]) if "acts" in result else None,
        "answers": len(result["answers"]) if "answers" in result else None,
        "states": result.get("states"),
        "behaviour": behaviour,
        "optimum": optimum,
    }


def understood(talks: Sequence[Conversation], task: Task) -> dict[str, float]:
    """How the task's own parser reads the agent's turns."""
    from turnwise.envs.tasks.helpdesk.words import read_act as read_helpdesk
    from turnwise.envs.tasks.travel.reading import read_act as read_travel

    read = {"helpdesk": read_helpdesk, "travel": read_travel}[task.name]
    by_act: dict[Any, Counter[str]] = defaultdict(Counter)
    for c in talks:
        for message, turn in zip(c.dialogue.turns, c.turns, strict=True):
            by_act[turn["act"]][str(read(message.content))] += 1
    total = sum(c.total() for c in by_act.values())
    plain = sum(n for c in by_act.values() for act, n in c.items() if act != "none")
    most = sum(c.most_common(1)[0][1] for c in by_act.values())
    return {"understood": plain / total, "one_act": most / total}


def merge(runs: Path) -> None:
    """Write everything that is there as .json and .md."""
    rows = read_truths_and_rows(runs)[1]
    if not rows:
        return
    rows.sort(key=lambda r: (list(ROWS).index(r["row"]), r["seed"]))
    lines = [
        "| row | logs | seed | return | 95% interval | of the gap | predicted | minus return | read back "
        "| understood | one act | other | acts + answers | states |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        predicted = "" if r["predicted"] is None else f"{r['predicted']:.3f}"
        difference = "" if r["difference"] is None else f"{r['difference']:+.3f}"
        counts = "" if r["acts"] is None else f"{r['acts']} + {r['answers']}"
        lines.append(
            f"| {ROWS[r['row']].about} | {r['logs']:,} | {r['seed']} | {r['mean']:.3f} "
            f"| {r['low']:.3f} to {r['high']:.3f} | {r['gap']:.0%} | {predicted} | {difference} "
            f"| {r['read_back']:.3f} | {r['understood']:.3f} | {r['one_act']:.3f} | {r['other']:.3f} "
            f"| {counts} | {r['states'] or ''} |"
        )
    known = {ROWS[r["row"]].task: (r["behaviour"], r["optimum"]) for r in rows}
    says = "; ".join(f"{name}: {b:.4f} and {o:.4f}" for name, (b, o) in known.items())
    head = f"# Acts, from logs to live talk\n\n{story_of(__doc__)}\n\n"
    write_page(
        runs, "discovered_acts", head + f"Logged behaviour and optimum of {says}.\n\n" + "\n".join(lines)
    )
    write_results(runs, "discovered_acts", {"rows": rows})
    print("\n".join(lines))


def main() -> None:
    """Make the parts that are missing, then the table."""
    parser: argparse.ArgumentParser = options(__doc__, "discovered_acts")
    add_choice(parser, "--rows", ROWS, "rows of the table")
    add_seeds(parser, 0, 1, 2)
    parser.add_argument("--model", help="folder or name of the pretrained model")
    a = parse(parser)
    for name in [] if a.table else a.rows:
        if ROWS[name].embed and a.model is None:
            print(f"{name}: left out, it needs --model", flush=True)
            continue
        for seed in a.seeds:
            folder = a.runs / f"{name}-{seed}"

            def make(name: str = name, seed: int = seed, folder: Path = folder) -> dict[str, Any]:
                return {"row": name, **one(ROWS[name], seed, a.model, folder)}

            make_part(a.runs / f"{name}-{seed}.json", make)
    merge(a.runs)


if __name__ == "__main__":
    main()
