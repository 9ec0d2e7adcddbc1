"""The bench: cells that are made once, a table of all that are there, what cannot be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from turnwise.cli import main
from turnwise.recipes.bench import CELL, PLACES, ROWS, table_of
from turnwise.recipes.settings.bench import METHODS, TASKS, BenchSettings
from turnwise.run.errors import SettingError
from turnwise.run.folder import write_json

DECISIVE = {"conversations": None, "talks": 10, "episodes": 2}


def cell(out: Path, task: str, seed: int, method: str, **values: object) -> None:
    folder = out / task / f"seed-{seed}" / method
    folder.mkdir(parents=True)
    write_json(folder / CELL, {"task": task, "method": method, "seed": seed, **values})


def figures(mean: float, seconds: float = 10.0) -> dict[str, float]:
    return {
        "mean": mean,
        "low": mean - 0.1,
        "high": mean + 0.1,
        "episodes": 50,
        "talks": 0,
        "seconds": seconds,
    }


def test_a_row_is_all_seeds_of_a_method_and_its_share_is_of_the_way_to_the_optimum(tmp_path: Path) -> None:
    """HelpDesk's logs earn -.3166 and the best .5675: a mean of .12545 is half of the way. Two seeds that
    differ by .02 have a standard error of .01; with one degree of freedom the interval is 12.706 of it."""
    half = (ENDS[0] + ENDS[1]) / 2
    cell(tmp_path, "helpdesk", 0, "act-mc", **figures(half - 0.01, 10))
    cell(tmp_path, "helpdesk", 1, "act-mc", **figures(half + 0.01, 30))
    cell(tmp_path, "helpdesk", 0, "act-bc", **figures(-0.3))
    cell(tmp_path, "helpdesk", 0, "pomdp", failed="only one act")
    (column,) = table_of(tmp_path, DECISIVE)["columns"]
    rows = {row["method"]: row for row in column["rows"]}
    assert list(rows) == ["act-bc", "act-mc", "pomdp"] and column["conversations"] == 8000
    both = rows["act-mc"]
    assert both["share"] == pytest.approx(0.5) and both["seeds"] == [0, 1] and both["seconds"] == 20
    assert (both["low"], both["high"]) == pytest.approx((half - 0.12706, half + 0.12706), abs=1e-4)
    # One seed: the interval is that of its conversations.
    assert (rows["act-bc"]["low"], rows["act-bc"]["high"]) == pytest.approx((-0.4, -0.2))
    assert rows["pomdp"]["failed"] == "only one act" and "mean" not in rows["pomdp"]


def test_cells_are_made_once_and_a_second_call_adds_to_the_table(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    out = tmp_path / "bench"
    words = ["bench", "--out", str(out), "--tasks", "helpdesk", "--episodes", "4", "--talks", "40"]
    words += ["--conversations", "60", "--workers", "0"]
    assert main([*words, "--methods", "act-ppo", "--json"]) == 0
    (column,) = json.loads(capsys.readouterr().out)["columns"]
    # The clone that PPO begins with has a cell too.
    assert [(r["method"], r["talks"]) for r in column["rows"]] == [("act-bc", 0), ("act-ppo", 40)]
    assert all(r["seconds"] > 0 and r["low"] <= r["mean"] <= r["high"] for r in column["rows"])
    kept = (out / "helpdesk" / "seed-0" / "act-bc" / CELL).read_bytes()
    before = (out / "helpdesk" / "seed-0" / "act-bc" / "result.json").stat().st_mtime_ns
    assert main([*words, "--methods", "act-bc", "act-mc"]) == 0
    printed = capsys.readouterr().out
    for title in ("behaviour cloning", "Monte-Carlo Q", "PPO, live, from the clone"):
        assert f"| {title} | act |" in printed
    assert (out / "helpdesk" / "seed-0" / "act-bc" / CELL).read_bytes() == kept
    assert (out / "helpdesk" / "seed-0" / "act-bc" / "result.json").stat().st_mtime_ns == before
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Monte-Carlo Q per act" in page and "helpdesk acts=true" in page
    assert main([*words[:-4], "--conversations", "61", "--workers", "0"]) == 2
    assert "conversations was 60 and is 61 now" in capsys.readouterr().err


def test_what_there_is_none_of_is_refused() -> None:
    with pytest.raises(SettingError, match="chess"):
        BenchSettings(tasks=("helpdesk", "chess"))
    with pytest.raises(SettingError, match="each once"):
        BenchSettings(seeds=(1, 1))
    assert set(PLACES) == set(TASKS) and set(ROWS) == set(METHODS)


def _ends() -> tuple[float, float]:
    from turnwise.envs.tasks.helpdesk.exact import behavior_value, optimal_value

    return behavior_value(), optimal_value()


ENDS = _ends()
