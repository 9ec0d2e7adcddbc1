"""A training run: steps with progress, metrics, checkpoints, Ctrl-C and exact resumption.

It knows nothing of algorithms: they write their own loop around `Run.steps`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from turnwise.run import distributed
from turnwise.run.distributed import World
from turnwise.run.progress import Progress


B = TypeVar("B")


class Interrupted(Exception):
    """Ctrl-C, after a checkpoint was written."""


@dataclass(frozen=True)
class Learner:
    """Everything that training changes: the module that learns, its optimizer, slow copies beside it."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    target: nn.Module | None = None

    def state(self) -> dict[str, Any]:
        """Whole weights and optimizer state (on rank 0)."""
        return {
            "module": distributed.module_state(self.module),
            "optimizer": distributed.optimizer_state(self.module, self.optimizer),
            "target": None if self.target is None else distributed.module_state(self.target),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, on any number of processes."""
        distributed.load_module(self.module, state["module"])
        distributed.load_optimizer(self.module, self.optimizer, state["optimizer"])
        if self.target is not None:
            distributed.load_module(self.target, state["target"])


@dataclass
class Run:
    """One training run in its folder."""

    folder: Path
    world: World = World()
    what: str = "training"
    checkpoint_every: int = 200
    log_every: int = 10
    quiet: bool = False

    def __post_init__(self) -> None:
        self._checkpoint = self.folder / "checkpoint.pt"
        self._metrics = self.folder / "metrics.jsonl"
        self._live: dict[str, float] = {}
        self._seconds = 0.0
        self._began = time.monotonic()

    def steps(self, total: int, learner: Learner) -> Iterator[int]:
        """Step numbers still to do, from the checkpoint on if there is one; saves after every few of them."""
        first = self._restore(learner)
        stop = _StopSignal()
        with stop, Progress(self.what, total, quiet=self.quiet or not self.world.main) as progress:
            for step in range(first, total):
                yield step
                done = step + 1
                asked_to_stop = stop.asked_anywhere(self.world)
                if asked_to_stop or done % self.checkpoint_every == 0 or done == total:
                    self._save(done, learner)
                progress.at(done, self._live)
                if asked_to_stop and done < total:
                    raise Interrupted(f"stopped after step {done} of {total}")

    def log(self, step: int, metrics: Mapping[str, Tensor | float]) -> None:
        """Append metrics of a step (already of the global batch) to metrics.jsonl."""
        values = {k: float(v) for k, v in metrics.items()}
        self._live = {k: v for k, v in values.items() if "/" not in k}
        if self.world.main:
            seconds = round(self._seconds + time.monotonic() - self._began, 3)
            with self._metrics.open("a", encoding="utf-8") as f:
                f.write(json.dumps({"step": step, "seconds": seconds, **values}) + "\n")

    def due(self, step: int, total: int) -> bool:
        """Whether metrics of this step are logged."""
        return (step + 1) % self.log_every == 0 or step in (0, total - 1)

    def heldout(
        self,
        step: int,
        total: int,
        batches: Callable[[], Iterable[B]],
        sums: Callable[[B], Mapping[str, Tensor]],
    ) -> dict[str, float]:
        """Means per decision over held-out batches, named heldout/...; empty where they are not due."""
        if not (step == total - 1 or (step + 1) % (10 * self.log_every) == 0):
            return {}
        whole: dict[str, Tensor] = {}
        with torch.no_grad():
            for batch in batches():
                for name, value in sums(batch).items():
                    whole[name] = whole.get(name, torch.zeros((), dtype=torch.float64)) + value.double().cpu()
        if not whole:
            return {}
        decisions = float(whole.pop("decisions"))
        return {f"heldout/{name}": float(value) / decisions for name, value in whole.items()}

    def _save(self, done: int, learner: Learner) -> None:
        state = learner.state()
        if self.world.main:
            self.folder.mkdir(parents=True, exist_ok=True)
            seconds = self._seconds + time.monotonic() - self._began
            whole = {"step": done, "seconds": seconds, "torch_rng": torch.get_rng_state(), **state}
            part = self._checkpoint.with_suffix(".part")
            torch.save(whole, part)
            os.replace(part, self._checkpoint)
        self.world.barrier()

    def _restore(self, learner: Learner) -> int:
        self._began = time.monotonic()
        if not self._checkpoint.exists():
            if self.world.main and self._metrics.exists():
                self._metrics.unlink()
            return 0
        state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        learner.load(state)
        torch.set_rng_state(state["torch_rng"])
        self._seconds = state["seconds"]
        if self.world.main:
            _keep_lines_before(self._metrics, state["step"])
        return state["step"]


def _keep_lines_before(path: Path, step: int) -> None:
    """Drop metrics of steps that will be done again."""
    if not path.exists():
        return
    lines = [x for x in path.read_text(encoding="utf-8").splitlines(True) if json.loads(x)["step"] < step]
    part = path.with_suffix(".part")
    part.write_text("".join(lines), encoding="utf-8")
    os.replace(part, path)


class _StopSignal:
    """The first Ctrl-C (or SIGTERM) asks to stop after the step; the second one stops at once."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        except ValueError:  # not in the main thread: there, nobody can press Ctrl-C
            self._before = {}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def asked_anywhere(self, world: World) -> bool:
        """Whether any process was asked; all of them stop at the same step."""
        return bool(world.total(torch.tensor(float(self._asked))) > 0)
