"""Metrics that a tracker hears of: those of metrics.jsonl, and no others."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import turnwise as tw
from turnwise.cli import main
from turnwise.recipes.settings.train import RunSettings
from turnwise.run import tracking
from turnwise.run.errors import SettingError
from turnwise.run.settings import Adam
from turnwise.run.training import TrainingRun

INSTALLED = importlib.util.find_spec("tensorboard") is not None


def train(folder: Path, track: str, stop: int = 6) -> None:
    """Six steps with a checkpoint after each second one; it breaks off after `stop` of them."""
    run, module = (
        TrainingRun(folder, quiet=True, log_every=1, checkpoint_every=2, track=track),
        nn.Linear(2, 1),
    )
    learner = run.learner(module, Adam(1e-2))
    for step in run.steps(6, learner):
        if step == stop:
            break
        learner.descend(module(torch.ones(1, 2)).sum() ** 2, lr=1e-2)
        run.log(step, {"loss": float(step), "heldout/loss": stop + step / 10})


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


def test_without_a_tracker_nothing_is_written(tmp_path: Path) -> None:
    train(tmp_path, "none")
    assert len(lines(tmp_path)) == 6 and not (tmp_path / tracking.FOLDER).exists()


@pytest.mark.skipif(not INSTALLED, reason="tensorboard is not installed: its files cannot be written or read")
@pytest.mark.filterwarnings("ignore")
def test_event_files_say_what_metrics_say(tmp_path: Path) -> None:
    """Read back by TensorBoard itself: also after a run that broke off in step 5 and went on from step 4."""
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-not-found]
        EventAccumulator,
    )

    train(tmp_path, "tensorboard", stop=5)
    train(tmp_path, "tensorboard")
    found = EventAccumulator(str(tmp_path / tracking.FOLDER))
    found.Reload()
    written = lines(tmp_path)
    assert [line["step"] for line in written] == [0, 1, 2, 3, 4, 5]
    for name in ("loss", "heldout/loss", "grad_norm", "lr"):
        values = [(e.step, e.value) for e in found.Scalars(name)]
        assert [step for step, _ in values] == [0, 1, 2, 3, 4, 5]
        assert [v for _, v in values] == pytest.approx([line[name] for line in written], rel=1e-6)
    assert "seconds" not in found.Tags()["scalars"]


@pytest.mark.skipif(INSTALLED, reason="tensorboard is installed")
def test_a_tracker_that_is_missing_is_named_before_anything_is_written(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    assert main(["train", "ppo", "tiger", "--out", str(out), "--track", "tensorboard"]) == 2
    said = capsys.readouterr().err
    assert (
        "--track tensorboard: expected none, or the package tensorboard: pip install 'turnwise[track]'"
        in said
    )
    assert not out.exists()


def test_an_unknown_tracker_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="track is 'aim'; expected none, tensorboard, wandb or trackio"):
        RunSettings(tmp_path, track="aim")  # type: ignore[arg-type]


def test_fit_hands_the_tracker_on(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="track is 'aim'; expected none, tensorboard, wandb or trackio"):
        tw.fit(tw.PPO(steps=64), "tiger", out=tmp_path / "run", track="aim", quiet=True)


def offline(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves this machine, and nothing is written elsewhere."""
    for key, value in {"WANDB_MODE": "offline", "TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(key, value)
    pytest.importorskip(name, reason=f"the package {name} is not installed: nothing was logged to it")


@pytest.mark.filterwarnings("ignore")
def test_trackio_has_what_metrics_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also after a run that broke off and went on: of a step that it logged twice the later numbers count."""
    offline("trackio", tmp_path / "trackio", monkeypatch)
    train(tmp_path / "run", "trackio", stop=4)
    train(tmp_path / "run", "trackio")
    assert capsys.readouterr().out == ""  # it belongs to who asks for JSON
    (file,) = (tmp_path / "trackio").glob("turnwise.db")
    with contextlib.closing(sqlite3.connect(file)) as opened:
        rows = opened.execute("select step, metrics from metrics order by id").fetchall()
    found = {step: json.loads(text) for step, text in rows}
    for line in lines(tmp_path / "run"):
        assert found[line["step"]]["loss"] == pytest.approx(line["loss"])


@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_keeps_its_files_in_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offline("wandb", tmp_path, monkeypatch)
    for first in (0, 4):  # a run, and one that goes on from its fifth step
        with tracking.tracker("wandb", tmp_path / "run", first) as opened:
            for step in range(first, first + 5):
                opened.log(step, {"loss": step / 4, "heldout/loss": 0.5})
            assert isinstance(opened, tracking.WandB)
            assert dict(opened.opened.summary)["loss"] == (first + 4) / 4  # before it is closed
    assert capsys.readouterr().out == ""
    files = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert {f.name for f in files} == {f"run-{tracking.id_of(tmp_path / 'run')}.wandb"}
