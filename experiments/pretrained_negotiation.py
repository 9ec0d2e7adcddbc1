"""Deal or No Deal: how well SmolLM2 with adapters predicts what negotiators say, beside a small clone.

    python experiments/pretrained_negotiation.py --model models/smollm2     resumable
    python experiments/pretrained_negotiation.py --table                    merge what is there: .json, .md

The logs are those of `deal_or_no_deal.py`: its clone from nothing (128 features, 4 layers) took six passes
over all 10,095 sides of the training negotiations. SmolLM2-135M-Instruct gets adapters of rank 8 on all
linear layers, learning rate 1e-3, products in bfloat16, and sees 60 batches of 8: 480 sides once. Perplexity
is per word of the agents of the test split, an end of message being one, as there, so that tokenizers do not
matter; log-probabilities are computed in bfloat16. The clone is asked about the first 500 of 1,052 sides,
SmolLM2 as it came about the first 100. Intervals are 95% bootstraps over sides. CPU seconds are of one
thread of a busy machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    DATA,
    HERE,
    make_part,
    options,
    parse,
    read_part,
    story_of,
    write_page,
    write_results,
)
from deal_or_no_deal import prepare

import turnwise as tw
from turnwise.data.batch import pack_tokens
from turnwise.data.dialogue import Dialogue
from turnwise.data.order import chunks
from turnwise.data.rows import token_rows
from turnwise.models.lm.replies import actions_logp
from turnwise.rollout.agent import Agent
from turnwise.rollout.load import load_agent
from turnwise.run.rehearsal import at_most
from turnwise.run.settings import AdamW

STEPS, ROWS = 60, 8
SIDES, ASKED = 500, 100
"""of the test split, of which the clone and the model as it came are asked"""
CONTEXT = 512


def learn(runs: Path, model: str) -> float:
    """The clone; CPU seconds of what was left to do."""
    began, out, logs = time.process_time(), runs / "smollm2", runs / "train.jsonl"
    if not (out / "result.json").exists():
        sides = sum(1 for _ in logs.open(encoding="utf-8"))
        config = tw.BC(epochs=STEPS * ROWS / sides, batch_size=ROWS, optimizer=AdamW(lr=1e-3, warmup=0.05))
        tw.fit(
            config,
            str(logs),
            out=out,
            model=model,
            lora_rank=8,
            autocast="bfloat16",
            heldout=0.0,
            estimate=False,
            checkpoint_every=20,
            resume=(out / "config.yaml").exists(),
        )
    return time.process_time() - began


@torch.inference_mode()
def perplexity(agent: Agent, dialogues: Sequence[Dialogue]) -> dict[str, Any]:
    """exp of nats per word, with its interval over conversations."""
    began = time.process_time()
    words = np.array([sum(len(m.content.split()) + 1 for m in d.turns) for d in dialogues], float)
    rows = [*token_rows(dialogues, agent.chat, CONTEXT)]
    assert len(rows) == len(dialogues), "a conversation does not fit"
    nats = np.zeros(len(rows))
    order = np.argsort([len(t) for t in rows], kind="stable")
    for part in chunks(order.tolist(), 16):
        batch = pack_tokens([rows[i] for i in part], gamma=1.0)
        with torch.autocast("cpu", torch.bfloat16):
            nats[part] = -actions_logp(agent.lm, batch).double().sum(1)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=2000)
    low, high = np.quantile((draws @ nats) / (draws @ words), (0.025, 0.975))
    return {
        "perplexity": math.exp(nats.sum() / words.sum()),
        "low": math.exp(low),
        "high": math.exp(high),
        "sides": len(rows),
        "seconds": time.process_time() - began,
    }


def table(runs: Path) -> None:
    """Merge what is there."""
    small = read_part(HERE / "deal_or_no_deal.json")["perplexity"]["test"]
    lines = [
        "| policy | perplexity per word, test | sides | CPU seconds to learn | to be asked |",
        "|---|---|---|---|---|",
        f"| small model from nothing (`deal_or_no_deal.py`) | {small:.2f} | all | | |",
    ]
    kept: dict[str, Any] = {"small": small}
    for name, title in (("before", "SmolLM2 as it came"), ("after", "SmolLM2, 60 steps of adapters")):
        if (file := runs / f"{name}.json").exists():
            kept[name] = x = read_part(file)
            shown = f"{x['perplexity']:.2f} ({x['low']:.2f} to {x['high']:.2f})"
            learnt = f"{x['learning']:,.0f}" if "learning" in x else ""
            lines.append(f"| {title} | {shown} | {x['sides']:,} | {learnt} | {x['seconds']:,.0f} |")
    write_results(runs, "pretrained_negotiation", kept)
    title = "# Deal or No Deal: a pretrained model's clone"
    write_page(runs, "pretrained_negotiation", "\n\n".join([title, "\n".join(lines), story_of(__doc__)]))
    print("\n".join(lines))


def main() -> None:
    """Make what is missing, and merge."""
    parser = options(__doc__, "pretrained_negotiation")
    parser.add_argument("--model", default="models/smollm2", help="folder of SmolLM2")
    parser.add_argument("--data", type=Path, default=DATA / "deal_or_no_deal", help="folder of the data")
    a = parse(parser)
    if not a.table:
        if not (a.runs / "reader.json").exists():
            prepare(a.data, a.runs)
        test = [*tw.read_logs(str(a.runs / "test.jsonl"), quiet=True)]
        after = a.runs / "after.json"
        if not after.exists():
            seconds = learn(a.runs, a.model)
            clone = load_agent(a.runs / "smollm2")
            make_part(after, lambda: perplexity(clone, test[: at_most(4, SIDES)]) | {"learning": seconds})
        few = test[: at_most(4, ASKED)]
        make_part(a.runs / "before.json", lambda: perplexity(load_agent(a.model), few))
    table(a.runs)


if __name__ == "__main__":
    main()
