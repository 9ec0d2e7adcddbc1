"""A pretrained model with adapters: time and memory of a step, beside a plain loop of transformers and peft.

    python benchmarks/pretrained.py speed --model models/smollm2 --json speed.json
    python benchmarks/pretrained.py memory --model models/smollm2 --json memory.json

Rows are of one length, half of their tokens the agent's, in turns of 30, ids at random: what is measured
does not depend on words. LoRA has rank 8, on all linear layers. `speed` takes steps of each way in turn on
the same rows, in one process, and compares medians of this process's CPU time (of one thread: the steadier
clock while others use the machine) and of wall time. `memory` runs each way in a process of its own, and
takes the highest resident memory of a step, above that before the model was loaded; beside it stands what
`--dry-run` counts.

    peer         AutoModelForCausalLM and peft: logits and loss at all positions, all rows at once
    bc, ilql     a step as `turnwise train` takes it; ilql has a critic beside the policy, and a slow copy
    ... bf16     with autocast in bfloat16
    ... parts    gradients added up over micro-batches of two rows
    ... again    gradient checkpointing
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from turnwise.algorithms.logs import bc, ilql
from turnwise.data.batch import pack_tokens
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import load_lm
from turnwise.models.target import slow_copy
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.training.learning import How, ready, ready_beside, settled
from turnwise.run.distributed import World
from turnwise.run.learner import Learner

RANK, TURN = 8, 30
WORLD = World()
Step = Callable[[list[Tokens]], object]


def rows_of(rows: int, tokens: int, vocab: int) -> list[Tokens]:
    """Rows in which a partner and the agent take turns of 30 tokens."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(rows):
        writer = TokenWriter()
        for k in range(tokens // TURN):
            ids = rng.integers(10, vocab, TURN).tolist()
            if k % 2:
                writer.act(ids, 1.0 if k + 2 > tokens // TURN else 0.0, None)
            else:
                writer.read(ids)
        found.append(writer.tokens(terminated=True, next_known=True, id=str(i)))
    return found


def peer(model: str) -> Step:
    """The loop that anybody would write first."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    lm = get_peft_model(lm, config)
    optimizer = torch.optim.AdamW([p for p in lm.parameters() if p.requires_grad], lr=1e-4)

    def step(rows: list[Tokens]) -> None:
        ids = torch.from_numpy(np.stack([t.ids for t in rows])).long()
        own = torch.from_numpy(np.stack([t.action for t in rows]))
        out = lm(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids.masked_fill(~own, -100))
        optimizer.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        optimizer.step()

    return step


def cloning(model: str, learning: Learning, size: tuple[int, int]) -> tuple[Step, How]:
    """A step of `train bc`."""
    lm = ready(load_lm(model)[0], learning)
    objective, c = bc.Objective(LmPolicy(lm)), bc.Config()
    how = settled(
        objective,
        [trunk_of(lm)],
        learning,
        WORLD,
        rows=size[0],
        longest=size[1],
        vocab=lm.config.vocab_size,
    )
    learner = Learner(objective, c.optimizer, world=WORLD, through=how.passes)

    def step(rows: list[Tokens]) -> object:
        parts = [pack_tokens(part, gamma=1.0) for part in how.passes.parts(rows, size[1], WORLD)]
        return bc.update(learner, parts, float(sum(t.action.sum() for t in rows)), c, 1e-4)

    return step, how


def valuing(model: str, learning: Learning, size: tuple[int, int]) -> tuple[Step, How]:
    """A step of `train ilql`."""
    policy = load_lm(model)[0]
    own, c = ready_beside(policy, learning), ilql.Config()
    critic = ilql.new_critic(c, trunk_of(own), policy.get_output_embeddings().weight.detach(), 0.0)
    how = settled(
        critic,
        [critic.trunk],
        learning,
        WORLD,
        rows=size[0],
        longest=size[1],
        vocab=policy.config.vocab_size,
        beside=[policy],
        copies=1,
    )
    learner = Learner(critic, c.optimizer, slow_copy(critic), world=WORLD, through=how.passes)

    def step(rows: list[Tokens]) -> object:
        parts = [pack_tokens(part, gamma=1.0) for part in how.passes.parts(rows, size[1], WORLD)]
        return ilql.update(learner, parts, float(sum(t.action.sum() for t in rows)), c, 1e-4, 0.5)

    return step, how


WAYS: dict[str, dict[str, Any]] = {
    "peer": {},
    "bc": {},
    "bc bf16": {"autocast": "bfloat16"},
    "bc parts": {"micro_batch": 2},
    "bc again": {"gradient_checkpointing": True},
    "ilql": {},
    "ilql bf16": {"autocast": "bfloat16"},
    "ilql again": {"gradient_checkpointing": True},
}


def made(way: str, model: str, size: tuple[int, int]) -> tuple[Step, How | None]:
    """The step of a way, and how it goes through its rows."""
    if way == "peer":
        return peer(model), None
    kind = cloning if way.startswith("bc") else valuing
    return kind(model, Learning(lora_rank=RANK, **WAYS[way]), size)


def speed(model: str, ways: list[str], size: tuple[int, int], steps: int) -> dict[str, Any]:
    """Seconds of each way, step by step; the first round warms up."""
    rows = rows_of(*size, 49_000)
    each = {way: made(way, model, size)[0] for way in ways}
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for i in range(steps + 1):
        for way, step in each.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step(rows)
            if i:
                taken[way].append((time.perf_counter() - wall, time.process_time() - cpu))
    found = {}
    for clock, at in (("wall", 0), ("cpu", 1)):
        medians = {way: statistics.median(x[at] for x in t) for way, t in taken.items()}
        found[clock] = {
            "tokens_per_second": {way: size[0] * size[1] / s for way, s in medians.items()},
            "beside_peer": {way: medians["peer"] / s for way, s in medians.items() if "peer" in medians},
            "beside_bc": {way: medians["bc"] / s for way, s in medians.items() if "bc" in medians},
        }
    return found | {"seconds": taken}


def memory(model: str, way: str, size: tuple[int, int]) -> dict[str, Any]:
    """The highest resident memory of one step in this process, in MiB, and what was counted beforehand."""
    import peft  # noqa: F401  # libraries load what they load
    import transformers.models.llama.modeling_llama  # noqa: F401

    before, began = peak(), time.process_time()
    step, how = made(way, model, size)
    step(rows_of(*size, 49_000))
    counted = None if how is None else how.memory.total / 2**20
    at_once = None if how is None else how.rows
    return {
        "way": way,
        "rows": size[0],
        "tokens": size[1],
        "peak_mib": peak() - before,
        "counted_mib": counted,
        "rows_at_a_time": at_once,
        "cpu_seconds": time.process_time() - began,
    }


def peak() -> float:
    """The highest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("--model", required=True, help="folder of a causal language model")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS])
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="the one way in this process")
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = (a.rows, a.tokens)
    if a.what == "speed":
        found: Any = speed(a.model, a.ways, size, a.steps)
        for clock in ("wall", "cpu"):
            for way, s in found[clock]["tokens_per_second"].items():
                beside = found[clock]["beside_peer"].get(way, float("nan"))
                print(f"{clock:4} {way:10} {s:8,.1f} tokens/s  {beside:.2f} of the peer's", flush=True)
    elif a.alone:
        print(json.dumps(memory(a.model, a.ways[0], size)))
        return
    else:
        found = []
        for way in a.ways:
            words = [sys.executable, __file__, "memory", "--alone", "--model", a.model, "--ways", way]
            words += ["--rows", str(a.rows), "--tokens", str(a.tokens)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(found[-1], flush=True)
    if a.json:
        machine = {"load": os.getloadavg(), "cores": os.cpu_count(), "torch": torch.__version__}
        a.json.write_text(json.dumps({"machine": machine, "size": size, "found": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
