"""--dry-run: what a run would be, and for how long."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from turnwise.run.training import TrainingRun


def told_plan(
    out: Any, sizes: Mapping[str, int | str], steps: int, timed: int, trial: Callable[[TrainingRun], Any]
) -> dict[str, Any]:
    """Print and return the plan of a run of `steps`; `trial` takes `timed` of them.

    The time, in seconds, is of training alone. Nothing stays: the trial's folder is a temporary one.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(Path(folder), what="timing", quiet=True)
        began = time.perf_counter()
        trial(run)
        per_step = (time.perf_counter() - began) / timed
    plan = {**sizes, "steps": steps, "estimated_seconds": float(f"{per_step * steps:.3g}")}
    out.print("plan (nothing is written):")
    for key, value in plan.items():
        words = key.replace("_", " ")
        out.print(f"  {words:<20}{value}" if isinstance(value, str) else f"  {words:<20}{value:,}")
    return plan


def told_plan_of_items(
    out: Any, sizes: Mapping[str, int | str], c: Any, items: Sequence[Any], train: Callable[..., Any]
) -> dict[str, Any]:
    """The same for passes over `items`; `train(config, items, run)` is timed on two batches of them."""
    few = items[: 2 * c.batch_size]
    batches, timed = (-(-len(x) // c.batch_size) for x in (items, few))
    steps = max(1, round(c.epochs * batches))
    return told_plan(out, sizes, steps, timed, lambda run: train(replace(c, epochs=1.0), few, run))
