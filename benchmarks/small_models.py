"""Autocast in bfloat16 for a small model from nothing: how much faster a step is, and if it learns alike.

    python benchmarks/small_models.py speed --json small_models_speed.json
    python benchmarks/small_models.py curves --json small_models_curves.json

A Llama of 3.4 million parameters (256 features, 4 layers, 4 heads) on HelpDesk's logs, one thread.

`speed`: a step of cloning and of ILQL, each with and without autocast, in turn on the same batches; medians
of this process's processor time, and of wall time.

`curves`: cloning with and without autocast, the same rows in the same order from the same first weights, some
seeds; nats per token of the agent's on held-out conversations, read without autocast, as the run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from training import SIZES, fresh, helpdesk_rows

from turnwise.algorithms.logs import bc, ilql
from turnwise.data.batch import Batch, pack_tokens
from turnwise.data.order import BatchOrder
from turnwise.data.tokens import Tokens
from turnwise.models.lm.critics import TokenCritic
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.target import slow_copy
from turnwise.run.learner import Learner
from turnwise.run.optim import warmed_up
from turnwise.run.passes import Passes
from turnwise.run.settings import AdamW

SIZE = SIZES["256x4"]
PASSES = {"float32": Passes(), "autocast": Passes(torch.bfloat16)}
Step = Callable[[Batch, float], object]


def stepping(algorithm: str, passes: Passes, tokenizer: Any) -> Step:
    """An update on a model of its own."""
    if algorithm == "bc":
        objective, c = bc.Objective(LmPolicy(fresh(SIZE, tokenizer))), bc.Config()
        cloning = Learner(objective, c.optimizer, through=passes)
        return lambda batch, n: bc.update(cloning, [batch], n, c, c.optimizer.lr)
    critic, d = TokenCritic(trunk_of(fresh(SIZE, tokenizer)), SIZE.width, SIZE.vocab), ilql.Config()
    valuing = Learner(critic, d.optimizer, slow_copy(critic), through=passes)
    return lambda batch, n: ilql.update(valuing, [batch], n, d, d.optimizer.lr, 0.5)


def speed(rows_at_once: int, batches: int) -> dict[str, Any]:
    """Seconds of each step; the first batch warms up."""
    rows, tokenizer = helpdesk_rows(SIZE.vocab, rows_at_once * (batches + 1))
    found: dict[str, Any] = {"conversations": rows_at_once, "batches": batches}
    for algorithm in ("bc", "ilql"):
        steps = {name: stepping(algorithm, passes, tokenizer) for name, passes in PASSES.items()}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
        for i in range(batches + 1):
            batch = pack_tokens(rows[i * rows_at_once : (i + 1) * rows_at_once], gamma=1.0)
            for name, step in steps.items():
                wall, cpu = time.perf_counter(), time.process_time()
                step(batch, float(batch.loss_mask.sum()))
                if i:
                    taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        found[algorithm] = {"seconds": taken} | {
            clock: {
                "ratio": statistics.median(t[at] for t in taken["float32"])
                / statistics.median(t[at] for t in taken["autocast"]),
                "each": [a[at] / b[at] for a, b in zip(taken["float32"], taken["autocast"], strict=True)],
            }
            for clock, at in (("wall", 0), ("cpu", 1))
        }
    return found


@torch.inference_mode()
def heldout_nats(lm: Any, rows: Sequence[Tokens]) -> float:
    """Nats per token of the agent's, in float32."""
    batch = pack_tokens(rows, gamma=1.0)
    return float(-LmPolicy(lm).logp(batch).sum() / batch.mask.sum())


def curve(passes: Passes, rows: list[Tokens], tokenizer: Any, seed: int, steps: int, at_once: int) -> Any:
    """Held-out nats after each tenth of the run."""
    held, learnt = rows[:100], rows[100:]
    lm = fresh(SIZE, tokenizer)
    torch.manual_seed(seed)
    with torch.no_grad():  # `fresh` begins with seed 0: other weights for other seeds
        for p in lm.parameters():
            if p.ndim > 1:
                torch.nn.init.normal_(p, std=SIZE.width**-0.5)
    objective, c = bc.Objective(LmPolicy(lm)), bc.Config(optimizer=AdamW(lr=2e-3, warmup=0.05))
    learner = Learner(objective, c.optimizer, through=passes)
    order = BatchOrder([len(t) for t in learnt], at_once, seed)
    denominator = at_once * statistics.mean(len(t.decisions) for t in learnt)
    found = []
    for step in range(steps):
        batch = pack_tokens([learnt[i] for i in order.rows(step)], gamma=1.0)
        bc.update(learner, [batch], denominator, c, warmed_up(c.optimizer, step, steps))
        if (step + 1) % max(1, steps // 5) == 0:
            found.append(heldout_nats(lm, held))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["speed", "curves"])
    parser.add_argument("--rows", type=int, help="conversations a step: 32, and 8 for curves")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()
    if a.what == "speed":
        found = speed(a.rows or 32, a.batches)
        for algorithm in ("bc", "ilql"):
            for clock in ("wall", "cpu"):
                r = found[algorithm][clock]
                each = f"{min(r['each']):.2f} to {max(r['each']):.2f}"
                print(f"{algorithm:5} {clock:4} autocast is {r['ratio']:.2f} times as fast ({each})")
    else:
        at_once = a.rows or 8
        rows, tokenizer = helpdesk_rows(SIZE.vocab, 100 + at_once * a.steps)
        found = {"steps": a.steps, "conversations": at_once, "nats": {}}
        for seed in a.seeds:
            for name, passes in PASSES.items():
                nats = curve(passes, rows, tokenizer, seed, a.steps, at_once)
                found["nats"][f"{name}, seed {seed}"] = nats
                print(name, seed, *(f"{x:.4f}" for x in nats), flush=True)
    if a.json:
        machine = {"load": [load, os.getloadavg()], "cores": os.cpu_count(), "torch": torch.__version__}
        a.json.write_text(json.dumps({"machine": machine, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
