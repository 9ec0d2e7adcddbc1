"""Q by few directions beside Q by each token's own weights: what it costs in quality, on HelpDesk.

    python experiments/low_rank_q.py                        everything, run by run, resumable
    python experiments/low_rank_q.py --methods mc --seeds 0
    python experiments/low_rank_q.py --table                merge what is there: .json, .md

Beyond a vocabulary of 4,096 tokens Q tells tokens apart by 64 directions in the policy's embeddings
(`q_rank`; `docs/how-to/pretrained.md` has the formula). A full head is out of reach there, so the two are
compared where both are possible: a small model from nothing (64 features, 2 layers, some 500 tokens). A rank
of 8 is to its 64 features what 64 is to the 576 of SmolLM2; a rank of 2 says where it breaks.

Each seed has its own 3,000 logs, clone and 400 live customers; all ranks of a seed begin with one clone and
learn from the same batches. Beta is 28 for all. R2 is that of Q over all turns of held-out conversations (a
tenth), after calibration for ILQL, which values a better agent than the logged one. Intervals are 95% over
conversations.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from turnwise.envs.tasks.helpdesk.exact import behavior_value, optimal_value
from turnwise.recipes.tasks import find_task
from turnwise.run.folder import read_result
from turnwise.run.rehearsal import at_most

CONVERSATIONS, EPISODES = 3000, 400
RANKS = (0, 8, 2)
BETA = 28.0
METHODS: dict[str, Any] = {
    "mc": tw.MC(),
    "ilql": tw.ILQL(
        epochs=4.0,
        optimizer=replace(tw.ILQL().optimizer, lr=4e-4, weight_decay=1.0),
        tau_within_turn=0.86,
    ),
}
TITLES = {"mc": "Monte-Carlo values", "ilql": "ILQL"}


def begin(home: Path, seed: int) -> None:
    """The seed's logs, and its clone."""
    logs = home / "logs.jsonl"
    logs_of(find_task("helpdesk"), CONVERSATIONS, seed, logs)
    size: dict[str, Any] = {"width": 64, "layers": 2, "heads": 4, "heldout": 0.1, "estimate": False}
    trained(tw.BC(epochs=4.0, partner_weight=0.5), str(logs), home / "bc", seed=seed, **size)


def one(method: str, rank: int, home: Path, seed: int) -> dict[str, Any]:
    """Learn and talk."""
    out = home / f"{method}-{rank}"
    config = replace(METHODS[method], q_rank=rank, beta=BETA)
    began = time.process_time()
    given: dict[str, Any] = {"policy": str(home / "bc"), "heldout": 0.1, "estimate": False}
    trained(config, str(home / "logs.jsonl"), out, seed=seed, **given)
    seconds, result = time.process_time() - began, read_result(out)
    found = tw.evaluate(
        out,
        "helpdesk",
        episodes=at_most(4, EPISODES),
        seed=seed,
    )
    kept = {k: found.result.get(k) for k in ("mean", "low", "high")}
    critic = result["critic"]
    known = critic["q"]["all"]["critic"][critic["judged_by"]] if "q" in critic else None
    facts = {"seed": seed, "method": method, "rank": rank, "parameters": result["parameters"]}
    return {**facts, **kept, "r2": known, "seconds": seconds}


def table(runs: Path) -> None:
    """Merge what is there."""
    rows = [read_part(f) for f in runs.glob("*.json")]
    if not rows:
        return
    rows.sort(key=lambda r: (list(METHODS).index(r["method"]), RANKS.index(r["rank"]), r["seed"]))
    lines = [
        "| values | Q | seed | true return | held-out R2 of Q | weights, trunk included | CPU seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        r2 = "" if r["r2"] is None else "{value:.3f} ({low:.3f} to {high:.3f})".format(**r["r2"])
        head = "full head" if r["rank"] == 0 else f"{r['rank']} directions"
        lines.append(
            f"| {TITLES[r['method']]} | {head} | {r['seed']} | {r['mean']:.3f} ({r['low']:.3f} to "
            f"{r['high']:.3f}) | {r2} | {r['parameters']:,} | {r['seconds']:,.0f} |"
        )
    write_results(runs, "low_rank_q", {"rows": rows})
    known = f"Behaviour policy {behavior_value():.4f}, optimum {optimal_value():.4f} (both exact)."
    title = "# Q by few directions beside a full head"
    write_page(runs, "low_rank_q", "\n\n".join([title, "\n".join(lines), known, story_of(__doc__)]))
    print("\n".join(lines))


def main() -> None:
    """Make the parts that are missing, then the table."""
    parser = options(__doc__, "low_rank_q")
    add_choice(parser, "--methods", METHODS, "what learns values")
    parser.add_argument("--ranks", nargs="+", type=int, default=list(RANKS), choices=RANKS, help="of Q")
    add_seeds(parser, 0, 1)
    a = parse(parser)
    for method in () if a.table else a.methods:
        for seed in a.seeds:
            home = a.runs / f"seed{seed}"
            begin(home, seed)
            for rank in a.ranks:
                file = a.runs / f"{method}-{rank}-{seed}.json"
                make_part(file, lambda m=method, r=rank, h=home, s=seed: one(m, r, h, s))
    table(a.runs)


if __name__ == "__main__":
    main()
