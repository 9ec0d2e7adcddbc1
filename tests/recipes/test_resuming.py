"""What a resumed run may have other values of: learning rate and length. What changed is recorded."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import turnwise as tw
from turnwise.cli import main
from turnwise.recipes.catalogue import ALGORITHMS, Algorithm
from turnwise.recipes.training.job import LENGTH
from turnwise.run.settings import Adam, AdamW

SMALL = {"width": 16, "layers": 1, "heads": 2, "context": 64, "vocab": 300}
TALK = [{"role": "user", "content": "yes or no"}, {"role": "assistant", "content": "yes", "reward": 1.0}]
LOGS = [{"messages": TALK, "id": str(i)} for i in range(8)]


def lengths(prompts: Any, completions: Any, **_: Any) -> list[float]:
    return [float(i) for i, _ in enumerate(completions)]


@pytest.fixture(scope="module")
def clone() -> tw.Policy:
    return tw.fit(tw.BC(epochs=1.0), LOGS, quiet=True, heldout=0.0, **SMALL)


FAMILIES: dict[str, Any] = {
    "logs": (tw.BC(epochs=2.0, batch_size=4, optimizer=AdamW(1e-3, warmup=0)), LOGS, {"epochs": 4.0}, SMALL),
    "replies": (
        tw.RLOO(steps=4, prompts_per_step=2, group=2, optimizer=AdamW(1e-3, warmup=0)),
        ["a?", "b?", "c?"],
        {"steps": 8},
        {"max_new_tokens": 4, "reward": lengths, "evaluation_replies": 1},
    ),
    "acting": (
        tw.A2C(steps=64, lanes=2, rollout=8, optimizer=Adam(1e-3)),
        "tiger",
        {"steps": 128},
        {"width": 8},
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_resumed_run_may_be_longer_and_have_a_smaller_learning_rate(
    family: str, clone: tw.Policy, tmp_path: Path
) -> None:
    """Four steps, then eight: the eighth has the rate 1e-5 (1 - 7/8), as if eight had been asked for."""
    config, data, longer, more = FAMILIES[family]
    out = tmp_path / "run"
    settings = {"quiet": True, "out": out, **more}
    if family != "acting":
        settings |= {"heldout": 0.0}
    if family == "replies":
        settings |= {"policy": clone}
    tw.fit(config, data, **settings)
    other = replace(config, optimizer=replace(config.optimizer, lr=1e-5), **longer)
    tw.fit(other, data, resume=True, **settings)
    lines = [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 7 and lines[-1]["lr"] == pytest.approx(1e-5 / 8)
    asked = yaml.safe_load((out / "config.yaml").read_text())
    name, value = next(iter(longer.items()))
    assert (asked["lr"], asked[name]) == (1e-5, value)
    assert asked["changes"] == [{"after_step": 4, "lr": [1e-3, 1e-5], name: [getattr(config, name), value]}]
    tw.fit(other, data, resume=True, **settings)  # nothing is changed by this one
    assert yaml.safe_load((out / "config.yaml").read_text()) == asked


@pytest.mark.parametrize("row", ALGORITHMS.values(), ids=ALGORITHMS)
def test_every_algorithm_has_a_length_that_may_change(row: Algorithm) -> None:
    """What is found by counting stops by itself: it has no length, and no optimizer."""
    names = {f.name for f in fields(row.config)}
    counted = row.family in ("codebooks", "plans")
    assert ("optimizer" in names) != counted
    assert len(names & {*LENGTH[row.family]}) == (0 if counted else 1)


def test_a_run_that_diverged_is_resumed_with_the_smaller_learning_rate_that_is_advised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first step of 1e15 makes weights of which the second makes no number: exit code 2, none saved."""
    logs, out = tmp_path / "logs.jsonl", tmp_path / "run"
    logs.write_text("".join(json.dumps(row) + "\n" for row in LOGS))
    words = ["train", "bc", "--logs", str(logs), "--out", str(out), "--heldout", "0", "--epochs", "8"]
    words += [w for k, v in SMALL.items() for w in (f"--{k}", str(v))]
    assert main([*words, "--lr", "1e15"]) == 2
    said = capsys.readouterr().err
    assert "step 2 of " in said and "expected a smaller lr" in said
    assert not (out / "policy").exists() and not (out / "result.json").exists()
    assert main([*words, "--lr", "1e-3", "--resume"]) == 0
    assert json.loads((out / "result.json").read_text())["metrics"]["loss"] < 6
