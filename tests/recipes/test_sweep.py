"""Sweeps: the runs of `fit`, in folders of their own, side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.evaluation.measures.intervals import student_interval
from turnwise.recipes.settings.sweep import points_of
from turnwise.run.errors import InputError, SettingError

SMALL: dict[str, Any] = {"horizon": 10, "quiet": True}


def ppo(lr: float) -> Any:
    return tw.PPO(steps=64, lanes=4, optimizer=tw.Adam(lr=lr))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("sweeps") / "two"
    return out, tw.sweep({"fast": ppo(1e-2)}, "repeat-previous", out=out, seeds=(3, 4), episodes=4, **SMALL)


def test_each_run_is_that_of_fit(swept: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, result = swept
    tw.fit(ppo(1e-2), "repeat-previous", out=tmp_path / "alone", seed=4, **SMALL)
    found = tw.evaluate(tmp_path / "alone", episodes=4, quiet=True)
    (row,) = result["rows"]
    assert [run["run"] for run in row["runs"]] == ["fast/seed-3", "fast/seed-4"]
    assert row["runs"][1]["numbers"][result["by"]] == pytest.approx(found.mean, rel=1e-6)
    assert (out / "fast" / "seed-4" / "report.html").is_file()
    assert json.loads((out / "sweep.json").read_text()) == result


def test_means_over_seeds_by_hand(swept: tuple[Path, dict[str, Any]]) -> None:
    """Two values a and b: half the distance of the ends is t(1 degree, .975) = 12.706 times |a - b| / 2."""
    _, result = swept
    for row in result["rows"]:
        a, b = (run["numbers"][result["by"]] for run in row["runs"])
        assert row["mean"] == pytest.approx((a + b) / 2)
        assert (row["high"] - row["low"]) / 2 == pytest.approx(12.7062 * abs(a - b) / 2, rel=1e-4)
    half = 4.302653 / 3**0.5  # t(2 degrees, .975), and a deviation of 1
    assert student_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half), rel=1e-5)


def test_a_sweep_goes_on(swept: tuple[Path, dict[str, Any]]) -> None:
    """Runs that have ended stay as they are; one that is gone is trained again."""
    out, result = swept
    configs = {"fast": ppo(1e-2)}
    with pytest.raises(SettingError, match="expected a new folder, or resume"):
        tw.sweep(configs, "repeat-previous", out=out, seeds=(3, 4), **SMALL)
    kept = (out / "fast" / "seed-4" / "result.json").stat().st_mtime_ns
    shutil.rmtree(out / "fast" / "seed-3")
    again = tw.sweep(configs, "repeat-previous", out=out, seeds=(3, 4), episodes=4, resume=True, **SMALL)
    assert (out / "fast" / "seed-4" / "result.json").stat().st_mtime_ns == kept
    for one, two in zip(result["rows"], again["rows"], strict=True):
        assert two["mean"] == pytest.approx(one["mean"], rel=1e-6)


def test_grids() -> None:
    assert points_of(()) == [{}]
    assert points_of(("lr=1,2", "--gamma-within-turn=x")) == [
        {"lr": "1", "gamma_within_turn": "x"},
        {"lr": "2", "gamma_within_turn": "x"},
    ]
    for word in ("lr", "lr=", "lr=1,,2", "=1"):
        with pytest.raises(SettingError, match="expected NAME=VALUE,VALUE"):
            points_of((word,))
    with pytest.raises(SettingError, match="lr stands twice"):
        points_of(("lr=1", "lr=2"))
    with pytest.raises(SettingError, match="each value once"):
        points_of(("lr=1,1",))


def test_names_are_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has a folder that another setting has too"):
        tw.sweep({"a/b": ppo(1e-3), "a-b": ppo(1e-2)}, "repeat-previous", out=tmp_path / "x", **SMALL)
    assert not (tmp_path / "x").exists()


def test_the_command_line(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "grid"
    words = [
        "sweep",
        "ppo",
        "repeat-previous",
        "--out",
        str(out),
        "--steps",
        "64",
        "--lanes",
        "4",
        "--horizon",
        "10",
    ]
    assert main([*words, "--seeds", "0", "--grid", "memory=none,gru", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in result["rows"]] == ["memory=none", "memory=gru"]
    assert "measure it with seeds that it was not chosen by" in result["note"]
    assert all(row["low"] is None and np.isfinite(row["mean"]) for row in result["rows"])
    for wrong, said in (
        (["--grid", "steps=1,2"], "--grid steps: expected flags that are not given beside it too"),
        (["--grid", "out=1,2"], "--grid out: expected settings of training"),
        (["--seed", "3"], "--seed 3: expected seeds, for a sweep has several"),
        (["--seeds", "3", "3"], "--seeds 3 3: expected one seed or more, each once"),
        (["--ray-gpus", "1"], "--ray-gpus 1.0: expected 0 where Ray does nothing"),
    ):
        assert main([*words[:4], str(tmp_path / "no"), *words[5:], *wrong]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "no").exists()
    assert main([*words[:4], str(tmp_path / "no"), "--dry-run", "--grid", "lr=1,2"]) == 0
    assert "6 runs of ppo" in capsys.readouterr().out and not (tmp_path / "no").exists()
