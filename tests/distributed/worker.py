"""Small training runs of every language-model algorithm, alone or as one of several processes.

A plan is a list of keyword arguments of `train`. `launch` begins processes as torchrun does: the same
variables tell them who they are. They are forked from one that has loaded the libraries, which takes longer
than the runs.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import runpy
import signal
import socket
import warnings
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from turnwise.algorithms.logs import awr, bc, ilql, mc, turn_iql
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.models.lm.critics import TokenCritic, TurnCritic
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.run import distributed
from turnwise.run.errors import InputError, Interrupted
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun

VOCAB, WIDTH = 23, 16
ALONE = distributed.World()
ALGORITHMS = ("bc", "mc", "ilql", "turn_iql", "awr")


def conversations(n: int, seed: int) -> list[Tokens]:
    """Random talk of 2 to 6 turns, ragged in every way: lengths, rewards, how it ended, burn-in."""
    rng = np.random.default_rng(seed)

    def ids(most: int) -> list[int]:
        return rng.integers(0, VOCAB, rng.integers(1, most)).tolist()

    rows = []
    for i in range(n):
        row, kind = TokenWriter(), i % 3  # ended; cut after the partner; cut after the agent
        for _ in range(rng.integers(2, 7)):
            row.read(ids(7))
            row.act(ids(6), float(rng.normal()), None)
        if kind == 1:
            row.read(ids(7))
        tokens = row.tokens(terminated=kind == 0, next_known=kind != 2, id=str(i))
        if i % 4 == 0:  # the first turn is read and not learnt from
            first_end = int(np.flatnonzero(tokens.turn_end)[0])
            tokens = Tokens(**{**vars(tokens), "learn_from": first_end})
        rows.append(tokens)
    return rows


def model(algorithm: str, lora: int = 0) -> tuple[nn.Module, nn.Module]:
    """What learns, and its trunk; the same weights every time."""
    torch.manual_seed(3)
    lm = llama(VOCAB, width=WIDTH, layers=2, heads=2, context=96, eos=1, pad=0)
    if lora:
        lm = with_lora(lm, lora)
    trunk = trunk_of(lm)
    if algorithm in ("bc", "awr"):
        return LmPolicy(lm), trunk
    if algorithm == "turn_iql":
        return TurnCritic(trunk, WIDTH, initial=0.3), trunk
    if algorithm == "mc":
        return TokenCritic(trunk, WIDTH, VOCAB, ensemble=1, initial=0.3), trunk
    return TokenCritic(trunk, WIDTH, VOCAB, initial=0.3), trunk


def weighing() -> TokenCritic:
    """The critic that AWR learns under, which is not trained: it has opinions from the start."""
    critic: Any = model("ilql")[0]
    for head in critic.q:
        nn.init.normal_(head.out.weight)
    return critic


def config(algorithm: str, epochs: float) -> Any:
    """A few large steps, so that differences show."""
    shared: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": 6,
        "optimizer": AdamW(lr=3e-3, warmup=0.4, weight_decay=0.01),
    }
    if algorithm == "bc":
        return bc.Config(**shared, partner_weight=0.3)
    if algorithm == "awr":
        return awr.Config(**shared, beta=1.0)
    if algorithm == "mc":
        return mc.Config(**shared, gamma=0.9)
    if algorithm == "ilql":
        return ilql.Config(**shared, gamma=0.9, polyak=0.05, cql_weight=0.1)
    return turn_iql.Config(**shared, gamma=0.9, polyak=0.05)


def interrupt_at(trunk: nn.Module, step: int) -> None:
    """Press Ctrl-C in this process while it takes step `step`."""
    steps = itertools.count()

    def press(*_: object) -> None:
        if torch.is_grad_enabled() and next(steps) == step:  # targets and held-out rows have no gradient
            os.kill(os.getpid(), signal.SIGINT)

    trunk.register_forward_pre_hook(press)


def train(
    algorithm: str,
    folder: Path | str,
    world: distributed.World = ALONE,
    *,
    dtype: str = "float64",
    epochs: float = 4.0,
    stop_at: int | None = None,
    lora: int = 0,
    checkpoint_every: int = 7,
) -> str:
    """Train in `folder`, from its checkpoint if it has one; "ended", "interrupted", or why it was refused.

    25 rows in batches of 6 are 5 steps an epoch, one of them with a single row. With `stop_at`, the last
    process alone is interrupted at that step (as counted from where this call begins). Only rank 0 is told
    the folder: the others have one of their own, where nothing must appear.
    """
    module, trunk = model(algorithm, lora)
    module.to(getattr(torch, dtype))
    if stop_at is not None and world.rank == world.size - 1:
        interrupt_at(trunk, stop_at)
    own = Path(folder) if world.main else Path(f"{folder}-of-rank-{world.rank}")
    run = TrainingRun(own, world, log_every=1, checkpoint_every=checkpoint_every, quiet=True)
    stories = {"bc": bc, "mc": mc, "ilql": ilql, "turn_iql": turn_iql, "awr": awr}
    learning = [module, weighing().to(getattr(torch, dtype))] if algorithm == "awr" else [module]
    rows, heldout = conversations(25, 5), conversations(7, 6)
    try:
        stories[algorithm].train(config(algorithm, epochs), rows, heldout, *learning, run, 11)
    except Interrupted:
        return "interrupted"
    except InputError as e:
        return str(e)
    plain, _ = model(algorithm, lora)
    distributed.copy_whole(module, plain.to(getattr(torch, dtype)))
    if world.main:
        torch.save(plain.state_dict(), f"{folder}.weights")
    return "ended"


def compare(world: distributed.World, found: str) -> str:
    """What a process is told whose data are `found`."""
    try:
        world.expect_same("data", found)
    except InputError as e:
        return str(e)
    return "the same"


FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload([
    "turnwise.algorithms.logs.awr",
    "turnwise.algorithms.logs.bc",
    "turnwise.algorithms.logs.ilql",
    "turnwise.algorithms.logs.mc",
    "turnwise.algorithms.logs.turn_iql",
    "turnwise.models.lm.parts",
    "torch._dynamo",
    "transformers.models.llama.modeling_llama",
    "peft",
])  # fmt: skip


def launch(plan: Sequence[dict[str, Any]], file: Path, size: int) -> list[BaseProcess]:
    """Begin `size` processes that do what a plan says and write what came of it to FILE.RANK."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    begun = []
    for rank in map(str, range(size)):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(size)}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        # Nothing can import this file by a name: the new process runs it.
        args = (__file__, {"PLAN": (plan, f"{file}.{rank}", own)}, "__main__")
        begun.append(FORKED.Process(target=runpy.run_path, args=args))
        begun[-1].start()
    return begun


def main(plan: Sequence[dict[str, Any]], file: str, variables: dict[str, str]) -> None:
    """Do what the plan says, as one of the processes."""
    warnings.simplefilter("error")
    os.environ.update(variables)
    outcomes = []
    for job in plan:
        world = distributed.start("cpu", job.pop("strategy", "ddp"))
        if "found" in job:
            outcomes.append(compare(world, job["found"][world.rank]))
            continue
        script = job.pop("script", None)  # with a `train` of its own
        story = train if script is None else runpy.run_path(script)["train"]
        outcomes.append(story(job.pop("algorithm"), job.pop("folder"), world, **job))
    Path(file).write_text(json.dumps(outcomes))
    distributed.stop()


if __name__ == "__main__":
    main(*globals()["PLAN"])
