"""Where the loss on held-out rows was least, and when waiting for a smaller one has been long enough."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from turnwise.run.distributed import World, load_module, module_state
from turnwise.run.files.checkpoint import CHECKPOINTS, SUFFIX, read_checkpoint, write_checkpoint


@dataclass
class Best:
    """The least held-out loss so far."""

    loss: float = math.inf
    step: int = -1
    """the step after which it was read; -1 if none was"""
    since: int = 0
    """readings since then"""

    def hear(self, loss: float, step: int) -> bool:
        """Whether this reading is the least so far."""
        if not loss < self.loss:
            self.since += 1
            return False
        self.loss, self.step, self.since = loss, step, 0
        return True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return asdict(self) | {"loss": self.loss if math.isfinite(self.loss) else None}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        loss = state["loss"]
        self.loss, self.step, self.since = math.inf if loss is None else loss, state["step"], state["since"]


def best_file(run: Path) -> Path:
    """The weights of that step, in a run's folder."""
    return run / CHECKPOINTS / f"best{SUFFIX}"


def save_best(run: Path, module: nn.Module, world: World) -> None:
    """Keep the weights as they are now. All processes call it."""
    state = module_state(module)
    if world.main:
        best_file(run).parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(best_file(run), {"module": state})
    world.barrier()


def load_best(run: Path, module: nn.Module, world: World) -> None:
    """Take on the weights that were kept. All processes call it."""
    load_module(module, read_checkpoint(best_file(run))["module"] if world.main else {})
