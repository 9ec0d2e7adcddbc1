"""Every example runs as it stands, as a rehearsal, in an empty folder; none is longer than a page."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
NAMES = {"own_gymnasium", "own_logs", "own_pomdp", "own_preferences", "own_reward", "own_task"}


def test_there_is_one_for_each_thing_that_people_bring() -> None:
    assert {f.stem for f in EXAMPLES} == NAMES


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda f: f.stem)
def test_an_example_runs(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it prints is that of a rehearsal, so only that there is something counts; runs are complete."""
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(file), run_name="__main__")
    assert capsys.readouterr().out.strip()
    runs = [f.parent for f in tmp_path.rglob("config.yaml")]
    assert all((run / "report.html").is_file() for run in runs) and bool(runs) == (file.stem != "own_pomdp")
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 40
