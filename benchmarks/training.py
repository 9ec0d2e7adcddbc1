"""Training throughput: a step of ILQL against a step of behaviour cloning with the same trunk and batches.

    python benchmarks/training.py --json training.json

Both take 64 HelpDesk conversations a step. Tokens read per second are counted, padding excluded. The two
alternate batch by batch, and the ratio is of medians over batches. ILQL runs the trunk once more for its slow
targets (forward only). It has two Q heads and a V head where cloning has one linear map, all of them at the
agent's tokens only.

If other jobs use the machine too, the CPU time of this process is the steadier clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from turnwise.algorithms.logs import bc, ilql
from turnwise.data.batch import Batch, pack_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue
from turnwise.data.order import BatchOrder
from turnwise.data.tokens import Tokens
from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.helpdesk.logs import helpdesk_logs
from turnwise.models.lm.critics import TokenCritic
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.parts import parameter_count, trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.target import slow_copy
from turnwise.run.learner import Learner

BAR = 0.55
CONTEXT, HEADS, ROWS = 512, 4, 64


@dataclass(frozen=True)
class Size:
    """A trunk and a vocabulary."""

    width: int
    layers: int
    vocab: int


SIZES = {"256x4": Size(256, 4, 512), "96x3": Size(96, 3, 1024)}


@dataclass(frozen=True)
class Seconds:
    """One step: tokens read, seconds of wall and of this process's CPU."""

    tokens: int
    wall: float
    cpu: float


def helpdesk_rows(vocab: int, conversations: int) -> tuple[list[Tokens], Any]:
    """Encoded conversations of the desk that acts by whim, and their tokenizer."""
    dialogues = [
        Dialogue(tuple(Message(m["role"], m["content"], m.get("reward", 0.0)) for m in log["messages"]))
        for log in helpdesk_logs(conversations, 0)
    ]
    tokenizer = train_tokenizer([m.content for d in dialogues for m in d.messages], vocab, CONTEXT)
    return ChatFormat(tokenizer).encode(dialogues), tokenizer


def fresh(size: Size, tokenizer: Any) -> Any:
    """A model with the vocabulary asked for, whether or not the tokenizer found that many words."""
    torch.manual_seed(0)
    return llama(
        size.vocab,
        width=size.width,
        layers=size.layers,
        heads=HEADS,
        context=CONTEXT,
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
    )


def steps(size: Size, tokenizer: Any) -> dict[str, Callable[[Batch, float], object]]:
    """One update of each algorithm, on models of their own with equal trunks."""
    objective, how = bc.Objective(LmPolicy(fresh(size, tokenizer))), bc.Config()
    cloning = Learner(objective, how.optimizer)
    critic, config = TokenCritic(trunk_of(fresh(size, tokenizer)), size.width, size.vocab), ilql.Config()
    valuing = Learner(critic, config.optimizer, slow_copy(critic))
    return {
        "bc": lambda batch, n: bc.update(cloning, [batch], n, how, how.optimizer.lr),
        "ilql": lambda batch, n: ilql.update(valuing, [batch], n, config, config.optimizer.lr, 0.5),
    }


def measure(name: str, batches: int) -> dict[str, Any]:
    """Seconds per step of both, alternating over the same batches; the first batch warms up."""
    size = SIZES[name]
    rows, tokenizer = helpdesk_rows(size.vocab, ROWS * (batches + 1))
    updates = steps(size, tokenizer)
    order = BatchOrder([len(t) for t in rows], ROWS, 0)
    taken: dict[str, list[Seconds]] = {way: [] for way in updates}
    for step in range(batches + 1):
        chosen = [rows[i] for i in order.rows(step)]
        batch, tokens = pack_tokens(chosen, gamma=1.0), sum(map(len, chosen))
        for way, update in updates.items():
            wall, cpu = time.perf_counter(), time.process_time()
            update(batch, float(batch.loss_mask.sum()))
            taken[way].append(Seconds(tokens, time.perf_counter() - wall, time.process_time() - cpu))
    return {
        "size": name,
        **asdict(size),
        "parameters": parameter_count(trunk_of(fresh(size, tokenizer))),
        "tokens_per_row": statistics.mean(map(len, rows)),
        "decisions_per_row": statistics.mean(len(t.decisions) for t in rows),
        **{clock: compared(taken, clock) for clock in ("wall", "cpu")},
    }


def compared(taken: dict[str, list[Seconds]], clock: str) -> dict[str, Any]:
    """Tokens per second of both, and the ratio of medians, with the ratios of single batches around it."""
    speed = {way: [s.tokens / getattr(s, clock) for s in all_of[1:]] for way, all_of in taken.items()}
    medians = {way: statistics.median(s) for way, s in speed.items()}
    ratios = [a / b for a, b in zip(speed["ilql"], speed["bc"], strict=True)]
    return {
        "tokens_per_second": speed,
        "medians": medians,
        "ratio": medians["ilql"] / medians["bc"],
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    print(f"tokens/s, {ROWS} conversations a step, {a.threads} thread(s), medians of {a.batches} [min, max]")
    rows = []
    for name in a.sizes:
        row = measure(name, a.batches)
        rows.append(row)
        print(
            f"{name}, vocabulary {row['vocab']}: trunk of {row['parameters']:,} parameters, "
            f"{row['tokens_per_row']:.0f} tokens and {row['decisions_per_row']:.0f} decisions a conversation"
        )
        for clock in ("wall", "cpu"):
            r = row[clock]
            print(
                f"  {clock:4}  bc {r['medians']['bc']:7,.0f}  ilql {r['medians']['ilql']:7,.0f}  "
                f"ilql / bc = {r['ratio']:.2f} [{r['ratio_min']:.2f}, {r['ratio_max']:.2f}]  "
                f"bar {BAR:g}: {'met' if r['ratio'] >= BAR else 'NOT met'}",
                flush=True,
            )
    if a.json is not None:
        machine = {"threads": a.threads, "cores": os.cpu_count(), "torch": torch.__version__}
        found = {"bar": BAR, "conversations": ROWS, "machine": machine, "rows": rows}
        a.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
