"""A few dozen conversations: enough steps, a loss beside what it has to beat, and what the clone says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import turnwise as tw

SMALL = {"width": 16, "layers": 1, "heads": 2, "context": 64, "vocab": 300, "max_new_tokens": 8}
WORDS = ("red", "blue", "green")


def rows(n: int) -> list[dict]:
    """The agent repeats a colour, so its last word depends on what it heard, which no bigram knows."""
    found = []
    for i in range(n):
        word = WORDS[i % 3]
        talk = [
            {"role": "user", "content": f"Say {word}."},
            {"role": "assistant", "content": f"It is {word}"},
        ]
        found.append({"id": f"talk-{i}", "messages": [*talk, *talk]})
    return found


def test_few_logs_are_learnt_in_many_steps_and_the_warm_up_is_a_part_of_them(tmp_path: Path) -> None:
    """60 conversations, about 54 of them learnt from: batches of 4 give 3 passes of 14 steps, not of 2."""
    tw.fit(tw.BC(), rows(60), out=tmp_path / "run", quiet=True, heldout=0.1, **SMALL)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["batch_size"] == 4
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1]["step"] >= 35
    # A warm-up of 50 steps would still rise at the end; the share has let the rate fall to its twentieth.
    assert steps[-1]["lr"] < 0.1 * max(step["lr"] for step in steps)


def test_a_clone_that_a_bigram_beats_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A single pass in one batch teaches a fresh model nothing; its loss alone would not show that."""
    config = tw.BC(epochs=1.0, batch_size=60)
    policy = tw.fit(config, rows(60), out=tmp_path / "run", heldout=0.2, **SMALL)
    found = policy.result["wording"]
    assert found["beaten"] and found["ahead"]["high"] < 0
    assert found["nats"]["bigram"]["mean"] < found["nats"]["uniform"]["mean"]
    assert "worse than a bigram table" in capsys.readouterr().err
    page = (tmp_path / "run" / "report.html").read_text()
    assert "worse than a bigram table" in page and "what the agent says after the token before" in page


def test_a_page_shows_what_the_clone_says_beside_the_logged_agent(tmp_path: Path) -> None:
    tw.fit(tw.BC(epochs=1.0), rows(60), out=tmp_path / "run", quiet=True, heldout=0.2, **SMALL)
    said = json.loads((tmp_path / "run" / "wording.json").read_text())["said"]
    assert len(said) == 8
    assert all(len(place["said"]) == 2 and place["logged"].startswith("It is") for place in said)
    assert {place["heard"] for place in said} <= {f"Say {word}." for word in WORDS}
    assert "turnwise talk run" in (tmp_path / "run" / "report.html").read_text()


def test_logs_without_anything_held_out_say_so(tmp_path: Path) -> None:
    policy = tw.fit(tw.BC(epochs=1.0), rows(9), out=tmp_path / "run", quiet=True, heldout=0.0, **SMALL)
    assert policy.result["wording"] == {}
    assert "Nothing is held out" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_with_the_batch_of_its_data_can_be_made_longer(tmp_path: Path) -> None:
    """Decided anew, 20 rows in 401 passes would get batches of 8; the run began with 4, and goes on so."""
    data, out = rows(20), tmp_path / "run"
    small = SMALL | {"heldout": 0.0, "width": 8}
    tw.fit(tw.BC(epochs=1.0), data, out=out, quiet=True, **small)
    tw.fit(tw.BC(epochs=401.0), data, out=out, quiet=True, resume=True, **small)
    assert yaml.safe_load((out / "config.yaml").read_text())["batch_size"] == 4


def test_messages_are_answered_in_the_forms_that_logs_have() -> None:
    """Content in parts, other names of roles, and a call of a function without words."""
    policy = tw.fit(tw.BC(epochs=0.1), rows(9), quiet=True, heldout=0.0, **SMALL)
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    talk = [
        {"role": "developer", "content": "Be kind."},
        {"role": "human", "content": [{"type": "text", "text": "Say red."}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "red", "tool_call_id": "1"},
    ]
    plain = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Say red."},
        {"role": "assistant", "content": "call look({})"},
        {"role": "tool", "content": "red"},
    ]
    assert policy.reply(talk, seed=1) == policy.reply(plain, seed=1)
