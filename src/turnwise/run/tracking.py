"""Metrics in the format of a tracker, beside metrics.jsonl, which stays the record. None is ever required."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

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


def expect_tracker(name: str) -> None:
    """SettingError for a tracker whose package is not installed."""
    if name != "none" and importlib.util.find_spec(name) is None:
        raise SettingError("track", name, f"none, or the package {name}: pip install 'turnwise[track]'")


@contextmanager
def tracker(name: str, folder: Path, first: int) -> Iterator[Tracker]:
    """The tracker of that name, for metrics from step `first` on; closed at the end."""
    if name == "none":
        yield Nothing()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the package says of itself as it is imported
        opened = TensorBoard(folder, first)
    try:
        yield opened
    finally:
        opened.writer.close()
