"""The machine that a run has: processes, device, threads, seed; and what it says to people meanwhile."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from turnwise.recipes.settings.train import RunSettings
from turnwise.recipes.training.learning import How
from turnwise.run import distributed
from turnwise.run.distributed import Strategy, World
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.lock import expect_unlocked
from turnwise.run.folder import expect_fresh, read_config
from turnwise.run.progress import Progress
from turnwise.run.terminal import say
from turnwise.run.tracking import expect_tracker
from turnwise.run.training import TrainingRun

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Machine:
    """Where a run happens."""

    run: RunSettings
    world: World
    quiet: bool = False
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """what the run lets go of at its end, however it ends"""

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.run.out

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.run.seed

    @property
    def device(self) -> torch.device:
        """This process's device."""
        return self.world.device

    @property
    def silent(self) -> bool:
        """Whether this process shows nothing: people asked for silence, or another process speaks."""
        return self.quiet or not self.world.main

    def whole(self, module: M) -> M:
        """What can be saved and act after training: the module, or a copy if training splits it.

        `gather` gives the copy its weights. Only the process that saves needs one.
        """
        return copy.deepcopy(module) if self.world.splits and self.world.main else module

    def gather(self, module: nn.Module, whole: nn.Module) -> None:
        """Give what `whole` returned the weights of now. All processes call it."""
        if self.world.splits:
            distributed.copy_whole(module, whole)

    def warn(self, text: str) -> None:
        """One line for people, on stderr, unless they asked for silence."""
        if not self.silent:
            say(f"warning: {text}")

    def progress(self, what: str, total: int) -> Progress:
        """A count that people see, to be used in a `with`."""
        return Progress(what, total, quiet=self.silent)

    def training_run(self, what: str, how: How | None, criterion: str | None = None) -> TrainingRun:
        """Steps with progress, checkpoints and metrics in the run folder."""
        return TrainingRun(
            self.out,
            self.world,
            what=what,
            checkpoint_every=self.run.checkpoint_every,
            checkpoints=self.run.checkpoints,
            log_every=self.run.log_every,
            track=self.run.track,
            quiet=self.quiet,
            **({} if how is None else how.of_run(criterion)),
        )


def batch_size_of(config: Any, m: Machine, decided: int) -> int:
    """What was set, else what a resumed run began with (it may be longer now), else what the data decide."""
    if config.batch_size is not None:
        return config.batch_size
    if m.run.resume and (m.out / "config.yaml").is_file():
        begun = read_config(m.out).get("batch_size")
        if isinstance(begun, int):
            return begun
    return decided


def busy(threads: int, load: float | None = None, cores: int | None = None) -> str | None:
    """What to say if `threads` wait for each other, since other programs keep the cores; None if they do not.

    `load`: programs that run now, on `cores`; None asks the system.
    """
    cores = cores or os.cpu_count() or 1
    if load is None:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads == 1 or load + threads <= cores + 0.5:
        return None
    return (
        f"other programs keep {min(load, cores):.1f} of {cores} cores busy: {threads} threads wait for each "
        "other, and have been a third as fast as one (threads 1)"
    )


@contextlib.contextmanager
def machine(
    run: RunSettings,
    *,
    quiet: bool = False,
    strategy: Strategy | None = None,
    auto: str = "auto",
) -> Iterator[Machine]:
    """Refuse a folder or a device that cannot be used; then set threads and seed while the run lasts.

    `strategy`: how the model is spread over processes; None: the recipe runs in one process only. `auto`: the
    device that "auto" means. PyTorch's threads and its generators are the caller's again afterwards.
    """
    if run.device == "cuda" and not torch.cuda.is_available():
        raise SettingError("device", run.device, "cpu or auto: PyTorch can use no GPU on this machine")
    expect_tracker(run.track)
    expect_fresh(run.out, resume=run.resume)
    expect_unlocked(run.out)
    world = distributed.start(auto if run.device == "auto" else run.device, strategy or "ddp")
    if world.size > 1 and strategy is None:
        raise InputError(f"{world.size} processes: this algorithm learns in one; expected no torchrun")
    threads = torch.get_num_threads()
    # Weights and samples are drawn from PyTorch's global generators, which are the caller's as well.
    gpus = [world.device.index or 0] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        if world.device.type == "cpu":
            torch.set_num_threads(run.threads)
        torch.manual_seed(run.seed)
        try:
            with contextlib.ExitStack() as closing:
                made = Machine(run, world, quiet, closing)
                if world.device.type == "cpu" and (text := busy(run.threads)) is not None:
                    made.warn(text)
                yield made
        finally:
            torch.set_num_threads(threads)
