"""`turnwise evaluate`: which task a run is measured in, and what may stand beside the number."""

from __future__ import annotations

import json
import re

import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.data.files.logs import read_logs, write_logs
from turnwise.envs.dialogue import TASK_COLUMN
from turnwise.recipes.opened import load
from turnwise.recipes.tasks import find_task, task_called, task_of

SMALL = ["--width", "16", "--layers", "1", "--heads", "2", "--context", "256", "--vocab", "400"]
SMALL += ["--epochs", "1", "--max-new-tokens", "8"]
FEW = ["--episodes", "4", "--lanes", "4"]


def words_of(page) -> str:
    body = page.read_text().split("<main>")[1]
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", body, flags=re.S))


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A clone of the desk, by the command line."""
    folder = tmp_path_factory.mktemp("desk")
    logs, run = str(folder / "logs.jsonl"), str(folder / "bc")
    assert main(["data", "make", "--out", logs, "--conversations", "40"]) == 0
    assert main(["train", "bc", "--logs", logs, "--out", run, *SMALL]) == 0
    return folder / "bc"


@pytest.fixture
def own(tmp_path):
    """A clone of somebody's own logs: the same talks, which say of no task that they come from it."""
    rows = [{k: v for k, v in row.items() if k != TASK_COLUMN} for row in tw.HelpDesk().rows(40, 0)]
    tw.fit(tw.BC(epochs=1), rows, out=tmp_path / "own", quiet=True, width=16, layers=1, heads=2, context=256,
           vocab=400, max_new_tokens=8)  # fmt: skip
    return tmp_path / "own"


def test_a_run_on_own_logs_asks_for_a_task(own, capsys):
    assert main(["evaluate", str(own)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "turnwise: error: --task: expected one of dealer, helpdesk, maze, negotiation, postcards, travel, "
    )
    assert "does not say where its logs come from" in error
    assert not (own / "evaluation.json").exists()


def test_a_run_on_own_logs_is_not_compared_with_a_built_in_task(own, capsys):
    """Nothing of another world stands beside the number: no behaviour policy, no share of a way."""
    assert main(["evaluate", str(own), "--task", "helpdesk", *FEW]) == 0
    said = capsys.readouterr().out
    assert "behaviour" not in said and "do not say that they come from helpdesk" in said
    found = json.loads((own / "evaluation.json").read_text())
    assert found["same_task"] is False and [r["role"] for r in found["references"]] == ["optimum"]
    page = words_of(own / "report.html")
    assert "of the way" not in page and "Gap closed" not in page and "No other method" not in page
    assert "against 0.5675 for the optimum" in page
    assert "they do not say that they come from helpdesk" in page
    assert "wrote the logs: mean return" not in page


def test_a_run_knows_the_task_of_its_logs(desk, capsys):
    """Without --task the desk's clone meets the desk's customers, beside what the desk earned."""
    assert main(["evaluate", str(desk), *FEW]) == 0
    assert "behaviour" in capsys.readouterr().out
    found = json.loads((desk / "evaluation.json").read_text())
    assert found["task"] == "helpdesk" and found["same_task"] is True
    assert "wrote the logs: mean return of the logged conversations" in words_of(desk / "report.html")
    policy = load(desk)
    assert policy.task == "helpdesk" and tw.evaluate(policy, episodes=2, quiet=True).episodes == 2


def test_a_run_may_be_measured_in_another_task_by_name(desk, capsys):
    assert main(["evaluate", str(desk), "--task", "negotiation", *FEW, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "negotiation" and not found["same_task"]
    assert "behaviour" not in {r["role"] for r in found["references"]}


def test_logs_carry_their_task_through_files(tmp_path):
    logs = tw.record(tw.HelpDesk(), lambda seen, rng: "It is the fuse.", conversations=3)
    assert task_of(logs) == "helpdesk"
    write_logs(tmp_path / "logs.jsonl", logs)
    assert task_of(read_logs(tmp_path / "logs.jsonl")) == "helpdesk"
    rows = find_task("negotiation", {"notes": False}).rows(2, 0)
    assert task_of(read_logs(rows)) == "negotiation notes=false"
    assert task_of(read_logs(tw.Negotiation(notes=False).rows(2, 0))) == "negotiation notes=false"
    again = task_called("negotiation notes=false")
    assert (again.name, again.settings, again.words) == (
        "negotiation",
        {"notes": False},
        "negotiation notes=false",
    )


def test_logs_of_two_tasks_come_from_none():
    rows = [*tw.HelpDesk().rows(1, 0), *tw.Negotiation().rows(1, 0)]
    assert task_of(read_logs(rows)) is None
    assert task_of(read_logs([{**rows[0], TASK_COLUMN: None}, rows[0] | {"id": "b"}])) is None


def test_a_column_called_task_is_the_users_own():
    """Somebody's logs may well have a column "task" that says "negotiation" and means another thing."""
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]}
    assert task_of(read_logs([{**row, "task": "negotiation"}])) is None


def test_a_critic_and_preferences_inherit_the_task(desk, tmp_path):
    """A critic has its logs' task, a policy from preferences that of the run where it began."""
    small = {"quiet": True, "max_new_tokens": 8}
    logs = read_logs(tw.HelpDesk().rows(12, 1))
    critic = tw.fit(tw.MC(epochs=1), logs, policy=desk, **small)
    assert critic.task == "helpdesk"
    pairs = [{"prompt": f"Hi {i}", "chosen": "Is it the fuse?", "rejected": "No."} for i in range(6)]
    tuned = tw.fit(tw.DPO(epochs=1), pairs, policy=desk, out=tmp_path / "dpo", **small)
    assert tuned.task == "helpdesk" and load(tmp_path / "dpo").task == "helpdesk"


def test_a_path_may_stand_alone_anywhere(desk, tmp_path, capsys):
    """Before the flags or after them; two runs, or one twice, are refused in one line."""
    assert main(["evaluate", *FEW, str(desk)]) == 0
    assert main(["report", str(desk)]) == 0 and main(["report", "--json", str(desk)]) == 0
    capsys.readouterr()
    for words in ([str(desk), "other"], [str(desk), "--run", str(desk)]):
        assert main(["evaluate", *words]) == 2
        assert "expected one run, by itself or after --run; found" in capsys.readouterr().err
    logs = desk.parent / "logs.jsonl"
    assert main(["train", "bc", str(logs), "--out", str(tmp_path / "x"), *SMALL, "--dry-run"]) == 0


def test_a_slip_in_a_path_is_named_at_once(desk, tmp_path, capsys, monkeypatch):
    """Not after half a minute of asking the hub for a dataset of that name."""
    monkeypatch.chdir(desk.parent)
    assert main(["train", "bc", "logs.jsnl", "--out", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert (
        "logs.jsnl: expected a file, a folder or a dataset; found no such file (there is logs.jsonl)" in error
    )
