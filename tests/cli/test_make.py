"""`turnwise data make`: every task by name, one's own, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from turnwise.cli import main
from turnwise.data.files.logs import read_logs
from turnwise.recipes.tasks import TASKS, find_task

OWN = '''
class Weather:
    """The partner says what the weather is like."""

    def __init__(self, word="rain"):
        self.word = word

    def reset(self, lanes, seeds): ...
    def step(self, lanes, replies): ...
    def hidden(self, lane): ...

    def rows(self, conversations, seed):
        for i in range(conversations):
            messages = [{"role": "user", "content": self.word}, {"role": "assistant", "content": f"{seed}"}]
            yield {"id": f"w-{i}", "messages": messages, "outcome": 1.0}


class Silent:
    def reset(self, lanes, seeds): ...
    def step(self, lanes, replies): ...
    def hidden(self, lane): ...
'''


@pytest.mark.parametrize("name", TASKS)
def test_every_task_writes_logs_that_can_be_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "logs.jsonl"
    assert main(["data", "make", "--task", name, "--conversations", "5", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["conversations"], found["task"], found["tasks"]) == (5, name, sorted(TASKS))
    rows = list(find_task(name).rows(5, 0))
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    assert len(read_logs(str(out))) == 5


def test_ones_own_task_with_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weather_task.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    make = ["data", "make", "--conversations", "2", "--seed", "7", "--out", "w.jsonl", "--task"]
    assert main([*make, "weather_task:Weather", "--task-settings", "word=sun and rain"]) == 0
    lines = [json.loads(line) for line in Path("w.jsonl").read_text().splitlines()]
    assert [m["content"] for m in lines[1]["messages"]] == ["sun and rain", "7"]
    capsys.readouterr()
    for task, more, message in (
        (
            "weather_task:Weather",
            ["--task-settings", "wrod=x"],
            "--task-settings wrod=x: expected settings of",
        ),
        ("weather_task:Weather", ["--task-settings", "word"], "--task-settings word: expected KEY=VALUE"),
        (
            "weather_task:Wether",
            [],
            "--task weather_task:Wether: expected a class or function of weather_task",
        ),
        ("weather_task:Silent", [], "--task weather_task:Silent: expected a task that can write logs"),
        (
            "wether",
            [],
            "--task wether: expected one of dealer, helpdesk, maze, negotiation, postcards, travel, twenty,",
        ),
        ("helpdesk", ["--feedback", "pairs"], "--feedback pairs: expected none of it: the task helpdesk has"),
        ("negotiation", ["--task-settings", "corpus=no"], "--task-settings corpus=no: expected a folder"),
    ):
        assert main([*make, task, *more, "--overwrite"]) == 2
        assert message in capsys.readouterr().err
    assert len(Path("w.jsonl").read_text().splitlines()) == 2  # what stood there was not touched
