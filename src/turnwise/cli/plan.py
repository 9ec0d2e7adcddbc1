"""--dry-run: what a run would be, and for how long."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from turnwise.run.training import Run


def told_plan(
    out: Any, sizes: Mapping[str, int | str], steps: int, timed: int, trial: Callable[[Run], Any]
) -> dict[str, Any]:
    """Print and return the plan of a run of `steps`; `trial` takes `timed` of them, of a copy.

    The time, in seconds, is of training alone. Nothing stays: the trial's folder is a temporary one.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), what="timing", quiet=True)
        began = time.perf_counter()
        trial(run)
        per_step = (time.perf_counter() - began) / timed
    plan = {**sizes, "steps": steps, "estimated_seconds": float(f"{per_step * steps:.3g}")}
    out.print("plan (nothing is written):")
    for key, value in plan.items():
        words = key.replace("_", " ")
        out.print(f"  {words:<20}{value}" if isinstance(value, str) else f"  {words:<20}{value:,}")
    return plan
