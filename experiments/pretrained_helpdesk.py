"""HelpDesk from 2,000 logs: SmolLM2 with adapters beside a small model from nothing.

    python experiments/pretrained_helpdesk.py --model models/smollm2      everything, run by run
    python experiments/pretrained_helpdesk.py --parts small small-mc      some of it
    python experiments/pretrained_helpdesk.py --table                     merge what is there: .json, .md

Both learn from the same 2,000 conversations, of which a tenth is held out. Each run was made once, seed 0.

- The small model: 64 features, 2 layers, a tokenizer of its own, 20 passes; the weights of its least held-out
  loss are kept.
- SmolLM2-135M-Instruct (`docs/how-to/models.md` says where it comes from): adapters of rank 8 on all linear
  layers, half a pass (112 steps of 8 conversations), learning rate 1e-3, products in bfloat16. (A first try,
  28 steps of 32 at 5e-4 on the same conversations, came to 1.390 nats per held-out token, and was not asked
  to talk.)
- Critics on the frozen trunk of either clone, whose features are read once (`--frozen-trunk`): Monte-Carlo
  values of tokens, and turn-level IQL. What they know of the returns of held-out conversations stands beside
  a constant (0) and a regression on words; that of turn-level IQL after calibration, since it values a
  better agent (`docs/how-to/critics.md`).

True return: live conversations with customers of another seed, intervals 95% over conversations. Beta of
Monte-Carlo values is the better of 14 and 56 on validation conversations. CPU seconds are of one thread of a
busy machine: learning, with reading features; and talking. `discovered_acts.py` has codebooks of acts by
words and by SmolLM2's features, on the same 2,000 logs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import (
    add_choice,
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
from turnwise.run.settings import AdamW

CONVERSATIONS = 2000
SMALL = {"width": 64, "layers": 2, "heads": 4, "keep": "best", "heldout_every": 500}
ADAPTED = {"lora_rank": 8, "autocast": "bfloat16", "checkpoint_every": 20}
ON_FEATURES = {"frozen_trunk": True}


@dataclass(frozen=True)
class Part:
    """A way of learning, and how long it talks."""

    about: str
    config: Any
    settings: Mapping[str, Any]
    begins_with: str | None = None
    """The clone that it guides; None: it is one."""
    betas: tuple[float, ...] = ()
    episodes: int = 2000
    """Live conversations; 0: it is not asked to talk."""
    pretrained: bool = field(default=False, kw_only=True)


PARTS = {
    "small": Part("small model, clone", tw.BC(epochs=20.0, partner_weight=0.5), SMALL),
    "small-mc": Part("small model, Monte-Carlo values", tw.MC(), ON_FEATURES, "small", (14.0, 56.0)),
    "small-iql": Part("small model, turn-level IQL", tw.TurnIQL(), ON_FEATURES, "small"),
    "smollm2": Part(
        "SmolLM2, clone",
        tw.BC(epochs=0.5, batch_size=8, optimizer=AdamW(lr=1e-3, warmup=0.05)),
        ADAPTED,
        episodes=200,
        pretrained=True,
    ),
    "smollm2-mc": Part(
        "SmolLM2, Monte-Carlo values",
        tw.MC(),
        ON_FEATURES | {"autocast": "bfloat16"},
        "smollm2",
        (14.0, 56.0),
        episodes=200,
        pretrained=True,
    ),
    "smollm2-iql": Part(
        "SmolLM2, turn-level IQL",
        tw.TurnIQL(),
        ON_FEATURES | {"autocast": "bfloat16"},
        "smollm2",
        episodes=0,
        pretrained=True,
    ),
}


def learn(part: Part, out: Path, model: str) -> float:
    """Train into `out`; CPU seconds of what was left to do."""
    began = time.process_time()
    given: dict[str, Any] = {"heldout": 0.1, "estimate": False, "max_new_tokens": 32, **part.settings}
    if part.begins_with is not None:
        given |= {"policy": str(out.parent / part.begins_with), "features": out.parent / "features"}
    elif part.pretrained:
        given |= {"model": model}
    trained(part.config, str(out.parent / "logs.jsonl"), out, seed=0, **given)
    return time.process_time() - began


def talk(part: Part, out: Path) -> dict[str, Any]:
    """Live conversations."""
    began = time.process_time()
    asked = 60 if part.pretrained else 300
    found = tw.evaluate(
        out,
        "helpdesk",
        episodes=at_most(4, part.episodes),
        seed=1000,
        betas=part.betas,
        validation_episodes=at_most(4, asked),
    )
    print(f"{out}: {found.score} {found.interval}", flush=True)
    facts = read_part(out / "evaluation.json")
    kept = {k: facts.get(k) for k in ("mean", "low", "high", "episodes", "success", "turns", "beta")}
    return {**kept, "seconds": time.process_time() - began}


def judged(critic: dict[str, Any] | None) -> list[str]:
    """R2 of Q over all turns, of the critic and of the regression; calibrated for turn-level IQL."""
    if critic is None or "q" not in critic:
        return ["", ""]
    found = [critic["q"]["all"][who][critic["judged_by"]] for who in ("critic", "words")]
    return [f"{x['value']:.3f} ({x['low']:.3f} to {x['high']:.3f})" for x in found]


def table(runs: Path) -> None:
    """Merge what is there."""
    there = {name: read_part(f) for name in PARTS if (f := runs / f"{name}.json").exists()}
    lines = [
        "| policy | true return | conversations | success | turns | beta "
        "| clone's held-out loss, nats per token | critic's held-out R2 (Q, all turns) "
        "| a regression's on words | CPU seconds to learn | to talk |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        f"| exact optimum | {optimal_value():.4f} | | | | | | | | | |",
    ]
    for name, found in there.items():
        t = found["talk"]
        cells = [PARTS[name].about, "", "", "", "", ""]
        if t is not None:
            cells[1:] = [
                f"{t['mean']:.3f} ({t['low']:.3f} to {t['high']:.3f})",
                f"{t['episodes']:,}",
                "" if t["success"] is None else f"{t['success']:.0%}",
                f"{t['turns']:.1f}",
                "" if t["beta"] is None else f"{t['beta']:g}",
            ]
        loss = found["result"]["metrics"].get("heldout/loss") if PARTS[name].begins_with is None else None
        cells += ["" if loss is None else f"{loss:.3f}", *judged(found["result"].get("critic"))]
        cells += [f"{found['seconds']:,.0f}", "" if t is None else f"{t['seconds']:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| behaviour policy (exact) | {behavior_value():.4f} | | | | | | | | | |")
    write_results(runs, "pretrained_helpdesk", {"parts": there})
    title = "# HelpDesk from 2,000 logs: a pretrained model beside a small one from nothing"
    write_page(runs, "pretrained_helpdesk", "\n\n".join([title, "\n".join(lines), story_of(__doc__)]))
    print("\n".join(lines))


def whole(name: str, runs: Path, model: str) -> dict[str, Any]:
    """Learn and talk."""
    part, out = PARTS[name], runs / name
    seconds = learn(part, out, model)
    result = read_result(out)
    print(name, (result.get("critic") or {}).get("sentence", result["metrics"]), flush=True)
    return {"seconds": seconds, "result": result, "talk": talk(part, out) if part.episodes else None}


def main() -> None:
    """Make the parts that are missing, then the table."""
    parser = options(__doc__, "pretrained_helpdesk")
    parser.add_argument("--model", default="models/smollm2", help="folder of SmolLM2")
    add_choice(parser, "--parts", PARTS, "rows of the table")
    a = parse(parser)
    if not a.table:
        logs_of(find_task("helpdesk"), CONVERSATIONS, 0, a.runs / "logs.jsonl")
    for name in () if a.table else a.parts:
        make_part(a.runs / f"{name}.json", lambda name=name: whole(name, a.runs, a.model))
    table(a.runs)


if __name__ == "__main__":
    main()
