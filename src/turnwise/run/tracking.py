"""Metrics in the format of a tracker, beside metrics.jsonl, which stays the record. None is ever required."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from turnwise.run.errors import SettingError

FOLDER = "tensorboard"
"""of the run folder, where TensorBoard's files are"""


class Tracker(Protocol):
    """What hears of metrics."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of a step (0 is the first)."""
        ...


class Nothing:
    """Hears of metrics and keeps none."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""


class TensorBoard:
    """Event files of TensorBoard: `tensorboard --logdir RUN`."""

    def __init__(self, folder: Path, first: int) -> None:
        """`first`: the step that comes next; what was written of it and of later ones is void."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / FOLDER), purge_step=first or None)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One scalar for each metric."""
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


class WandB:
    """A run of Weights & Biases, in the project `turnwise` unless WANDB_PROJECT names one.

    A resumed run goes on in the one that it was, whose id is that of its folder. WANDB_MODE=offline keeps it
    on this machine.
    """

    def __init__(self, folder: Path, first: int) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self.opened = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            id=id_of(folder),
            resume="allow" if first else None,
            dir=str(folder),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """All metrics of a step at once. The service drops those of a step that it has had."""
        # Of a step that it is told the number of, it waits for more until the next one: a line too late.
        self.opened.log(dict(metrics), step=step, commit=True)

    def close(self) -> None:
        """Wait until everything is sent or written."""
        self.opened.finish()


class Trackio:
    """A run of trackio, whose files stay on this machine: `trackio show --project turnwise`."""

    def __init__(self, folder: Path, first: int) -> None:
        import trackio  # pyright: ignore[reportMissingImports]

        self.module = trackio
        name = f"{folder.name}-{id_of(folder)}"
        with _spoken_to_people():
            trackio.init(project=PROJECT, name=name, resume="allow" if first else "never")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """All metrics of a step at once."""
        self.module.log(dict(metrics), step=step)

    def close(self) -> None:
        """Write what is left."""
        with _spoken_to_people():
            self.module.finish()


def _spoken_to_people() -> contextlib.AbstractContextManager[Any]:
    """What a package prints of itself goes to stderr: stdout belongs to who reads the result as JSON."""
    return contextlib.redirect_stdout(sys.stderr)


PROJECT = "turnwise"
TRACKERS = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio}
EXTRAS = {"tensorboard": "track"}
"""extras of ours that bring a tracker, where they have another name than it"""


def id_of(folder: Path) -> str:
    """A short name that is the same whenever a run in this folder is resumed."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]


def expect_tracker(name: str) -> None:
    """SettingError for a tracker whose package is not installed."""
    if name != "none" and importlib.util.find_spec(name) is None:
        extra = EXTRAS.get(name, name)
        raise SettingError("track", name, f"none, or the package {name}: pip install 'turnwise[{extra}]'")


@contextlib.contextmanager
def tracker(name: str, folder: Path, first: int) -> Iterator[Tracker]:
    """The tracker of that name, for metrics from step `first` on; closed at the end."""
    if name == "none":
        yield Nothing()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the package says of itself as it is imported
        opened = TRACKERS[name](folder, first)
    try:
        yield opened
    finally:
        opened.close()
