"""What critics know: logs of which the answer is known beforehand, and negotiations between people.

    python experiments/critics.py                        all logs and methods (some 20 minutes), resumable
    python experiments/critics.py --logs word shuffled   only those that need no data
    python experiments/critics.py --table                merge what is there into critics.json and critics.md

A critic has values and colours whether it learnt something or not. Three kinds of logs:

- **word**: talks of random words. The outcome is 1 if the agent said *gladly* in any of its turns, else 0.
  All that can be known stands in the text, and a critic should find it.
- **shuffled**: the same talks, with the outcomes dealt out anew at random. Nothing can be known, and the
  page has to say so.
- **negotiations**: Deal or No Deal between people (Lewis et al. 2017, arXiv:1706.05125, CC BY-NC 4.0; not
  part of this repository), from both sides, scored by the agent's points. Nobody knows what can be known.

A fifth of the conversations is held out. V is read before a turn and Q after it. What is judged is Q over all
turns: plain R² for Monte-Carlo values, and R² after calibration for methods that estimate a better agent than
the logged one ([what a critic knows](../docs/how-to/critics.md)). Ridge is a regression on bags of words that
learnt from the same conversations. Intervals (95%) are bootstraps over held-out conversations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import (
    DATA,
    add_choice,
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
from turnwise.envs.tasks.negotiation.corpus import read_negotiations, to_log
from turnwise.run.rehearsal import at_most

TALKS, NEGOTIATIONS = 1500, 2000
HELD_OUT, WORD, SAID = 0.2, "gladly", 0.25
_TEXT = """
the a my your it this is was has can will please now then here there lamp phone printer kettle radio screen
button cable blue red warm cold old new check open turn press look off on again yes no maybe never often soon
"""
WORDS = _TEXT.split()
METHODS: dict[str, Any] = {
    "Monte-Carlo Q": tw.MC(epochs=8.0),
    "ILQL": tw.ILQL(epochs=8.0),
    "turn-level IQL": tw.TurnIQL(epochs=8.0),
}


def talks(shuffled: bool, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Conversations of one to three turns; see the top of this file for their outcomes."""
    rng = np.random.default_rng(seed)

    def sentence() -> list[str]:
        return list(rng.choice(WORDS, size=rng.integers(3, 7)))

    rows, outcomes = [], []
    for _ in range(count):
        messages, said = [], False
        for _ in range(rng.integers(1, 4)):
            reply = sentence()
            if rng.random() < SAID:
                reply.insert(int(rng.integers(len(reply) + 1)), WORD)
                said = True
            messages.append({"role": "user", "content": " ".join(sentence())})
            messages.append({"role": "assistant", "content": " ".join(reply)})
        rows.append(messages)
        outcomes.append(float(said))
    order = rng.permutation(count) if shuffled else np.arange(count)
    return [{"id": str(i), "messages": rows[i], "outcome": outcomes[order[i]]} for i in range(count)]


def negotiations(folder: Path) -> list[dict[str, Any]]:
    """The first training negotiations, from both sides."""
    found = (to_log(n) for n in read_negotiations(folder) if n.split == "train")
    return [log for log in found if log is not None][: at_most(100, NEGOTIATIONS)]


def logs_of(kind: str, data: Path) -> list[dict[str, Any]]:
    """Rows of one kind of logs."""
    return negotiations(data) if kind == "negotiations" else talks(kind == "shuffled", at_most(100, TALKS))


def judged(kind: str, method: str, data: Path, runs: Path) -> dict[str, Any]:
    """What the critic of a method knows, learnt from one kind of logs."""
    rows, clone = logs_of(kind, data), runs / kind / "bc"
    size = (
        {"width": 64, "layers": 2, "context": 256} if kind == "negotiations" else {"width": 32, "layers": 2}
    )
    trained(tw.BC(epochs=3.0), rows, clone, heldout=HELD_OUT, **size)
    found = tw.fit(METHODS[method], rows, policy=str(clone), heldout=HELD_OUT, estimate=False).result[
        "critic"
    ]
    return {"logs": kind, "method": method, **found}


def table(runs: Path) -> None:
    """Merge what is finished into critics.json and critics.md."""
    files = [_file(runs, kind, method) for kind in KINDS for method in METHODS]
    rows = [read_part(f) for f in files if f.exists()]
    if not rows:
        return
    write_results(runs, "critics", rows)
    lines = ["# What critics know", "", story_of(__doc__), ""]
    lines += [
        "| logs | method | verdict | R² | calibrated | rank correlation | ridge: R² | ridge: calibrated |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if "q" not in r:
            continue
        figures = r["q"]["all"]
        own = [figures["critic"][k] for k in ("r2", "calibrated_r2", "spearman")]
        theirs = [figures["words"][k] for k in ("r2", "calibrated_r2")]
        knows = f"knows, {r['beside_words']} beside ridge" if r["knows"] else "knows nothing"
        cells = [_cell(x) for x in (*own, *theirs)]
        lines.append(f"| {r['logs']} | {r['method']} | {knows} | {' | '.join(cells)} |")
    lines += ["", "In the words of the page:", ""]
    lines += [f"- {r['logs']}, {r['method']}: {r['sentence']} {r['shift']['sentence']}" for r in rows]
    write_page(runs, "critics", "\n".join(lines))


KINDS = ("word", "shuffled", "negotiations")


def _file(runs: Path, kind: str, method: str) -> Path:
    return runs / f"{kind}-{method.replace(' ', '-')}.json"


def _cell(x: dict[str, float]) -> str:
    return f"{x['value']:.2f} ({x['low']:.2f} to {x['high']:.2f})"


def main() -> None:
    """Make what is missing, and merge."""
    parser = options(__doc__, "critics")
    add_choice(parser, "--logs", KINDS, "kinds of logs")
    add_choice(parser, "--methods", METHODS, "ways of learning values")
    folder = DATA / "deal_or_no_deal"
    parser.add_argument("--data", type=Path, default=folder, help="folder of the negotiations")
    a = parse(parser)
    for kind in () if a.table else a.logs:
        for method in a.methods:
            make_part(_file(a.runs, kind, method), lambda k=kind, m=method: judged(k, m, a.data, a.runs))
            table(a.runs)
    table(a.runs)


if __name__ == "__main__":
    main()
