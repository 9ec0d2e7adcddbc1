"""From logs to a better policy in one call: is what it says true, and does it keep what cannot be bettered?

    python experiments/improve.py                                everything, resumable
    python experiments/improve.py --kinds logs --seeds 0         some of it
    python experiments/improve.py --table                        merge what is there: .json, .md

A part is one set of logs of HelpDesk and one call of `tw.improve` with its defaults.

- *logs*: 8,000 conversations of the whimsical desk, bare sentences; acts are found in them.
- *shuffled*: 3,000 of them with acts, whose outcomes are dealt out anew: nothing that is said has a part in
  what is earned, and the agent is to be kept.
- *near-optimal*: 3,000 conversations with acts of a desk that follows the best plan but for one turn in
  thirty, which it spends by whim. Little is left to gain, less than 3,000 conversations can show for
  certain, and the agent is to be kept.

*Said*: what the choice would earn, by what vouches for it. *True*: 2,000 live conversations of the policy to
take, and of the plan. Nothing is true of a plan for outcomes that were dealt out anew.
"""

from __future__ import annotations

import math
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import add_seeds, make_part, options, parse, read_part, story_of, write_page, write_results

import turnwise as tw
from turnwise.data.files.writing import write_jsonl
from turnwise.envs.tasks.helpdesk.acts_only import mixed, optimal
from turnwise.envs.tasks.helpdesk.customer import Customer
from turnwise.envs.tasks.helpdesk.exact import behavior_acts, behavior_value, policy_value
from turnwise.envs.tasks.helpdesk.rules import ACTS, PARTS
from turnwise.envs.tasks.helpdesk.words import Phrasebook, pick, read_answer, wordings
from turnwise.run.rehearsal import at_most

KINDS = ("logs", "shuffled", "near-optimal")
WHIMS = 1 / 30
EPISODES = 2000


def near_optimal(n: int, seed: int) -> list[dict[str, Any]]:
    """Conversations of the desk that mostly follows the best plan, with the chances of its acts."""
    policy, customer = mixed(WHIMS, optimal(), behavior_acts), Customer(Phrasebook())
    found = []
    for i, (a, b) in enumerate(np.random.default_rng((seed, 5)).integers(2**62, size=(n, 2)).tolist()):
        rng = np.random.default_rng(b)
        messages: list[dict[str, Any]] = [as_dict(m) for m in customer.reset([0], [a])[0]]
        net, last, turn, over = [0] * len(PARTS), None, 0, False
        while not over:
            p = np.array(policy(tuple(net), last, turn))
            k = int(rng.choice(len(p), p=p / p.sum()))
            (answer,) = customer.step([0], [text := pick(wordings(ACTS[k]), rng)])
            said = {"role": "assistant", "content": text, "act": str(ACTS[k]), "act_logp": math.log(p[k])}
            messages += [said | {"reward": answer.reward}, *(as_dict(m) for m in answer.messages)]
            for m in answer.messages:
                if (heard := read_answer(m.content)) is not None:
                    net[heard[0]] += 1 if heard[1] else -1
            last, turn, over = ACTS[k].part, turn + 1, answer.terminated
        found.append({"id": f"n-{i}", "messages": messages, "terminated": True})
    return found


def as_dict(m: tw.Message) -> dict[str, Any]:
    """A message as logs have it."""
    return {"role": m.role, "content": m.content, "act": m.act}


def shuffled(n: int, seed: int) -> list[dict[str, Any]]:
    """Conversations of the whimsical desk, each with the outcome of another one."""
    rows = list(tw.HelpDesk(acts=True, outcome_at_end=True).rows(n, seed))
    order = np.random.default_rng((seed, 6)).permutation(n)
    return [{**row, "outcome": rows[i]["outcome"]} for row, i in zip(rows, order.tolist(), strict=True)]


def one(kind: str, seed: int) -> dict[str, Any]:
    """One set of logs, improved, and the truth."""
    n = at_most(120, 8000 if kind == "logs" else 3000)
    if kind == "logs":
        rows = list(tw.HelpDesk().rows(n, seed))
    else:
        rows = shuffled(n, seed) if kind == "shuffled" else near_optimal(n, seed)
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder) / "logs.jsonl"
        write_jsonl(logs, rows)
        began = time.process_time()
        found = tw.improve(str(logs), Path(folder) / "out", workers=0, seed=seed, quiet=True)
        seconds = time.process_time() - began
        truth: dict[str, float | None] = {"mean": None, "low": None, "high": None}
        if found.policy is not None:
            live = tw.evaluate(
                found.policy, "helpdesk", episodes=at_most(20, EPISODES), seed=seed, quiet=True
            )
            truth = {"mean": live.mean, "low": live.low, "high": live.high}
        plan = tw.load(Path(folder) / "out" / "plan") if (Path(folder) / "out" / "plan").is_dir() else None
        best = None
        if plan is not None and kind != "shuffled":
            best = tw.evaluate(plan, "helpdesk", episodes=at_most(20, EPISODES), seed=seed, quiet=True).mean
    choice = found.result["choice"]
    return {
        "kind": kind, "seed": seed, "seconds": seconds, "word": choice["word"], "name": choice["name"],
        "said": choice["worth"], "truth": truth, "plan": best,
        "second": found.result["opinions"].get("plan in a learnt model"),
    }  # fmt: skip


def merge(runs: Path) -> None:
    """The table of all parts that are there."""
    rows = [read_part(f) for f in sorted(runs.glob("*.json"))]
    if not rows:
        print("nothing to merge")
        return
    near = policy_value(mixed(WHIMS, optimal(), behavior_acts))
    lines = [
        f"# From logs to a better policy\n\n{story_of(__doc__)}",
        f"The whimsical desk earns {behavior_value():.3f}, the near-optimal one {near:.3f}.\n",
        "| logs | seed | word | policy | said | true | plan, second model | plan, true | CPU-s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: (KINDS.index(r["kind"]), r["seed"])):
        true = "" if r["truth"]["mean"] is None else ends({"value": r["truth"]["mean"], **r["truth"]})
        plan = "" if r["plan"] is None or r["kind"] == "shuffled" else f"{r['plan']:.3f}"
        lines.append(
            f"| {r['kind']} | {r['seed']} | {r['word']} | {r['name'] or ''} | {ends(r['said'])} | {true} "
            f"| {ends(r['second'])} | {plan} | {r['seconds']:.0f} |"
        )
    write_page(runs, "improve", text := "\n".join(lines))
    write_results(runs, "improve", {"rows": rows})
    print(text)


def ends(row: dict[str, Any] | None) -> str:
    """A value with its interval."""
    if row is None:
        return ""
    value = f"{row['value']:.3f}"
    return value if row["low"] is None else f"{value} ({row['low']:.3f} to {row['high']:.3f})"


def main() -> None:
    """Make the parts that are missing, and merge."""
    parser = options(__doc__, "improve")
    add_seeds(parser, 0, 1, 2)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    a = parse(parser)
    for kind in [] if a.table else a.kinds:
        for seed in a.seeds:
            make_part(a.runs / f"{kind}-{seed}.json", partial(one, kind, seed))
    merge(a.runs)


if __name__ == "__main__":
    main()
