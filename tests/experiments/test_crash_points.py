"""Runs that are killed at a file event come to the same bits: a sample of what the benchmark tries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "crash_points.py"


@pytest.mark.parametrize(("algorithm", "kills"), [("ppo", 5), ("bc", 4)])
def test_a_killed_run_says_so_and_comes_to_the_same_bits(
    algorithm: str, kills: int, load_script: Callable[[Path], ModuleType], tmp_path: Path
) -> None:
    """Kills spread over all file events, the first one among them: no `result.json` is there yet."""
    script = load_script(FILE)
    script.prepare(tmp_path)
    row = script.crash(algorithm, tmp_path, every=1, most=kills)
    assert row.wrong == [] and row.events > 60
    assert row.same == row.tried >= kills - 1
    assert row.unfinished + row.ended == row.tried and row.unfinished >= row.tried - 1
    assert script.flips(algorithm, tmp_path, 3) == (3, 3)
