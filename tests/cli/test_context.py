"""What does not fit the context is counted where people look; a policy that could never act is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turnwise.cli import main
from turnwise.data.files.logs import read_logs
from turnwise.data.rows import token_rows
from turnwise.rollout.load import load_agent

SMALL = [
    "--width",
    "16",
    "--layers",
    "1",
    "--heads",
    "2",
    "--vocab",
    "300",
    "--epochs",
    "1",
    "--heldout",
    "0",
]
RULES = "Be kind and brief. " * 30
CALL = {"function": {"name": "look_up", "arguments": '{"order": 17}'}}


def written(folder: Path, system: str, turns: int = 1, count: int = 4) -> Path:
    """Logs whose agent looks an order up and then answers, `turns` times."""
    talk: list[dict[str, Any]] = [{"role": "system", "content": system}]
    for _ in range(turns):
        talk += [
            {"role": "user", "content": "Where is my order?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "in the post", "name": "look_up"},
            {"role": "assistant", "content": "It is in the post."},
        ]
    path = folder / "logs.jsonl"
    rows = [{"id": str(i), "messages": talk, "outcome": 1.0} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Path]:
    """Logs of four short turns and a short system message, and a clone of them that reads 128 tokens."""
    logs = written(tmp_path, "Be kind.", turns=4)
    words = ["train", "bc", "--logs", str(logs), "--out", str(tmp_path / "bc"), *SMALL, "--context", "128"]
    assert main(words) == 0
    return logs, tmp_path / "bc"


def test_a_system_prompt_longer_than_half_the_context_is_said_to_be_cut(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """`data check` with the model, the terminal of `train`, and the card that the page shows: one count."""
    (tmp_path / "long").mkdir()
    long = written(tmp_path / "long", RULES[:80])
    capsys.readouterr()
    assert main(["data", "check", "--logs", str(long), "--model", str(run[1]), "--json"]) == 0
    found = capsys.readouterr()
    card = json.loads(found.out)
    cut = card["cut"]
    assert cut["conversations"] == 4 and cut["messages"] >= 4 and 0 < cut["tokens"] < card["tokens"]["total"]
    assert "Not read" in found.err and "before a turn of the agent" in found.err.replace("\n", " ")
    words = ["train", "bc", "--logs", str(long), "--model", str(run[1]), "--out", str(tmp_path / "again")]
    assert main([*words, "--epochs", "1", "--heldout", "0"]) == 0
    assert f"lose {cut['tokens']} tokens" in capsys.readouterr().err
    assert json.loads((tmp_path / "again" / "card.json").read_text())["cut"] == cut
    assert "Not read" in (tmp_path / "again" / "report.html").read_text()


def test_a_policy_that_could_never_act_on_its_own_data_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    logs = written(tmp_path, RULES)
    words = ["train", "bc", "--logs", str(logs), "--out", str(tmp_path / "bc"), *SMALL, "--context", "32"]
    assert main(words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "stand before the agent's first turn" in said and "a policy could never act" in said
    assert not (tmp_path / "bc" / "policy").exists()


def test_the_agent_learns_the_call_that_the_log_has(run: tuple[Path, Path]) -> None:
    """Where the log called a function, the actions are the call and not an empty message."""
    agent = load_agent(run[1])
    for row in token_rows(read_logs(run[0]), agent.chat, 10_000):
        said = agent.tokenizer.decode(row.ids[row.action])
        assert said.count("look_up") == 4 and said.count("17") == 4


def test_later_segments_of_long_talks_keep_the_system_message(run: tuple[Path, Path]) -> None:
    """Each row of a conversation begins with the rules by which its agent is paid."""
    agent = load_agent(run[1])
    rows = token_rows(read_logs(run[0]), agent.chat, 128)
    assert len(rows) > 4
    opening = agent.chat.tokenizer.encode("<|system|>Be kind.<|end|>", add_special_tokens=False)
    for row in rows:
        assert row.ids[: len(opening)].tolist() == opening
    learnt = [row.ids[1:][row.action[1:] & (np.arange(1, len(row)) > row.learn_from)] for row in rows]
    (whole,) = agent.chat.encode(read_logs(run[0])[:1])
    assert np.concatenate(learnt).tolist() == whole.ids[whole.action].tolist() * 4
