"""A rehearsal: the same files as the real run, and next to no work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import turnwise as tw
from turnwise.cli import main
from turnwise.run.rehearsal import at_most

SMALL = {"width": 16, "layers": 1, "heads": 2, "context": 256, "vocab": 400, "max_new_tokens": 8}


@pytest.mark.parametrize(("value", "expected"), [("", 9), ("0", 9), ("1", 2)])
def test_amounts_are_few_in_a_rehearsal_alone(
    value: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNWISE_REHEARSAL", value)
    assert at_most(2, 9) == expected and at_most(20, 9) == 9


def test_a_rehearsal_ends_after_two_steps_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    logs, out = tmp_path / "logs.jsonl", tmp_path / "bc"
    assert main(["data", "make", "--out", str(logs), "--conversations", "500"]) == 0
    assert len(logs.read_text().splitlines()) == 60
    clone = tw.fit(tw.BC(epochs=50.0), str(logs), out=out, **SMALL)
    assert clone.result["metrics"]["step"] == 1  # counted from 0
    assert "this is a rehearsal" in capsys.readouterr().err
    assert yaml.safe_load((out / "config.yaml").read_text())["rehearsal"] is True
    found = tw.evaluate(clone, tw.HelpDesk(), episodes=500, quiet=True)
    assert found.episodes == 4 == json.loads((out / "evaluation.json").read_text())["episodes"]
