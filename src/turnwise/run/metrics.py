"""What the numbers in metrics.jsonl are. Nothing here imports torch.

An algorithm declares its own numbers after its `Config`, as `METRICS`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One number that is logged. Under `heldout/KEY` stands the same number on held-out data."""

    what: str
    """What people call it on a plot or in a table: "TD loss", "mean Q"."""
    unit: str = ""
    """Unit of the number; empty where it has none, as a share."""
    loss: bool = False
    """Whether it is a training objective or a part of one."""


COMMON: dict[str, Metric] = {
    "step": Metric("updates", "steps"),
    "seconds": Metric("time of training", "s"),
}
"""Numbers that every run logs."""
