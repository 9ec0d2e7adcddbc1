"""Runs on logs end with what the conversations that they held out say of their policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.cli import main

LM: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "context": 96, "vocab": 280}


@pytest.fixture(autouse=True)
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")


def rows_of(n: int, *, rated: bool = True) -> list[dict[str, Any]]:
    """Two turns of `win` and `lose`, drawn at random; three in four customers have two conversations."""
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        messages: list[dict[str, Any]] = []
        for _ in range(2):
            word = "win" if rng.random() < 0.5 else "lose"
            messages.append({"role": "user", "content": f"case {i}", "act": "ask"})
            messages.append({"role": "assistant", "content": word, "act": word})
            messages[-1] |= {"reward": float(word == "win")} if rated else {}
        rows.append({"id": f"c{i}", "messages": messages, "customer": str(i // 2 if i % 8 < 6 else i)})
    return rows


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Logs, and a clone of their agent."""
    folder = tmp_path_factory.mktemp("endings")
    (folder / "logs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(200)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TURNWISE_REHEARSAL", "1")
        tw.fit(tw.BC(), folder / "logs.jsonl", out=folder / "bc", heldout=0.25, quiet=True, **LM)
        yield folder


def test_it_is_the_estimate_of_the_held_out_part(home: Path, tmp_path: Path, capsys: Any) -> None:
    """The same as of the run's folder on all logs, of which those that it has learnt from are left out; the
    page leads with it, and what was printed is the beginning of it."""
    out, logs = tmp_path / "run", home / "logs.jsonl"
    assert main(["train", "act-iql", str(logs), "--out", str(out), "--heldout", "0.25"]) == 0
    assert "held out say of it:\n  worth now:  " in capsys.readouterr().out
    run = tw.load(out)
    assert isinstance(run, tw.ActPolicy)
    ended, told = json.loads((out / "estimate.json").read_text()), run.result["estimate"]
    assert told["worth"] == ended["worth"] and told["conversations"] == ended["conversations"] >= 30
    assert not any(ended["learnt_from"].values())
    assert ended["logs"].endswith("logs.jsonl, held out")
    later = tw.estimate(run, logs, quiet=True)
    assert later["worth"] == ended["worth"] and later["curve"] == ended["curve"]
    # What was learnt from teaches what the logged agent would do.
    besides = 200 - told["conversations"]
    assert later["learnt_from"]["left_out"] == ended["behaviour"]["besides"] == besides
    assert "What it would be worth, by logs alone" in (out / "report.html").read_text()


def test_a_critic_of_words_ends_with_it_per_turn(home: Path) -> None:
    found = tw.fit(tw.MC(), home / "logs.jsonl", policy=home / "bc", heldout=0.25, quiet=True)
    assert found.result["estimate"]["conversations"] >= 30
    assert found.result["estimate"]["worth"]["now"]["value"] == pytest.approx(1.0, abs=0.3)


def test_a_plan_ends_with_it_and_with_its_promise(home: Path, tmp_path: Path) -> None:
    config = tw.LearntPomdp(states=1, smoothing=1.0, least=1)
    tw.fit(config, home / "logs.jsonl", heldout=0.25, out=tmp_path / "plan", quiet=True)
    found = json.loads((tmp_path / "plan" / "estimate.json").read_text())
    promise = next(row for row in found["estimates"] if row["name"] == "direct")
    assert promise["value"] > found["worth"]["now"]["value"]


def test_where_nothing_can_be_said_it_says_why_and_does_not_fail(
    home: Path, tmp_path: Path, capsys: Any
) -> None:
    """Too few, nobody's outcome, no closed probability, a clone; and who wants none has none."""
    logs, out = str(home / "logs.jsonl"), tmp_path / "run"

    def none(config: Any, data: Any = logs, **more: Any) -> str:
        return tw.fit(config, data, quiet=True, **more).result["estimate"]["none"]

    assert none(tw.ActIQL(), heldout=0.05).startswith("10 conversations were held out, and fewer than 30 say")
    assert "nobody said" in none(tw.ActBC(), rows_of(200, rated=False), heldout=0.25)
    turns = none(tw.TurnIQL(), policy=home / "bc", heldout=0.25)
    assert "no closed form" in turns
    assert "imitates the logged agent" in none(tw.BC(), heldout=0.25, **LM)
    best = tw.fit(tw.BC(keep_top=0.5), logs, heldout=0.25, quiet=True, **LM).result["estimate"]
    assert "none" not in best
    words = ["train", "act-mc", logs, "--out", str(out), "--heldout", "0.25"]
    assert main([*words, "--no-estimate"]) == 0
    assert "worth" not in capsys.readouterr().out and not (out / "estimate.json").exists()
    assert main(["train", "act-mc", logs, "--out", str(tmp_path / "few")]) == 0
    assert "no estimate of its worth: 10 conversations were held out" in capsys.readouterr().out


def test_conversations_of_one_customer_count_as_one(home: Path, tmp_path: Path) -> None:
    """What is held out by a column is not independent within it."""
    out = tmp_path / "run"
    tw.fit(tw.ActMC(), home / "logs.jsonl", heldout=0.3, heldout_by="customer", out=out, quiet=True)
    found = json.loads((out / "estimate.json").read_text())
    assert found["support"]["unit"] == "cluster"
    assert found["support"]["conversations"] < found["conversations"]
