"""`turnwise evaluate` and `report` of agents that act in an environment, as people and scripts meet them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from turnwise.cli import main
from turnwise.cli.evaluate import acts_in_environment
from turnwise.recipes.measuring import episodes as measuring

SMALL = ["--steps", "512", "--lanes", "8", "--rollout", "16", "--width", "8"]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "SECONDS", 0.3)
        patch.setattr(measuring, "PROBED", 60)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent without memory in the short T-maze."""
    folder = tmp_path_factory.mktemp("agents") / "run"
    words = ["train", "ppo", "--env", "t-maze-2", "--memory", "none", "--out", str(folder), *SMALL]
    assert main(words) == 0
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def evaluated(capsys: Any, *words: str, code: int = 0) -> dict[str, Any]:
    assert main(["evaluate", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_an_agent_without_memory_beside_its_exact_value(folder: Path, capsys: Any) -> None:
    """The sampled mean is within 4 standard errors of the exact value (seed 0), and below the optimum."""
    found = evaluated(capsys, str(folder), "--episodes", "400")
    assert abs(found["mean"] - found["exact"]) < 4 * found["standard_error"]
    assert found["exact"] <= found["truth"]["stochastic"] + 1e-9 < found["truth"]["lower"] <= 2.916 + 1e-9
    assert found["share"] is None and not found["above"]
    stored = json.loads((folder / "evaluation.json").read_text())
    assert stored == {k: v for k, v in found.items() if k != "report"}
    probe = json.loads((folder / "probe.json").read_text())["lines"]
    assert probe["memory"]["accuracy"] == pytest.approx(probe["observation"]["accuracy"], abs=1e-6)
    episodes = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    assert len(episodes) == 8
    for e in episodes:
        assert sum(s["reward"] * 0.9**t for t, s in enumerate(e["steps"])) == pytest.approx(e["discounted"])
        assert all(s["belief"][0][1] <= 1 and s["state"] for s in e["steps"])
    assert "On average it earns" in (folder / "report.html").read_text()


def test_a_run_is_named_with_and_without_a_flag(folder: Path, capsys: Any) -> None:
    for words in (
        [str(folder), "--seed", "3"],
        ["--run", str(folder)],
        [f"--run={folder}", "--json"],
        ["--seed", "3", str(folder)],
    ):
        assert acts_in_environment(words)
    assert not acts_in_environment(["--run"]) and not acts_in_environment(["--run", str(folder / "policy")])
    assert evaluated(capsys, f"--run={folder}", "--episodes", "20", "--horizon", "30")["horizon"] == 30
    for words in ([str(folder)], ["--run", str(folder)]):
        assert main(["report", *words]) == 0


def test_greedy_is_the_likeliest_action(folder: Path, capsys: Any) -> None:
    found = evaluated(capsys, str(folder), "--episodes", "20", "--greedy", "--horizon", "60")
    lines = (folder / "episodes.jsonl").read_text().splitlines()
    for step in (s for line in lines for s in json.loads(line)["steps"]):
        actions = json.loads(lines[0])["actions"]
        assert step["probabilities"][actions.index(step["action"])] == max(step["probabilities"])
    assert found["greedy"] and found["horizon"] == 60


def test_a_mean_above_what_is_possible_is_code_1(
    folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnwise.recipes.measuring.episodes.bound_above", lambda *_: -100.0)
    assert main(["evaluate", str(folder), "--episodes", "50"]) == 1
    assert "impossible" in capsys.readouterr().out
    assert json.loads((folder / "evaluation.json").read_text())["above"]


def test_another_environment_must_look_the_same(folder: Path, capsys: Any) -> None:
    found = evaluated(capsys, str(folder), "--env", "t-maze-5", "--episodes", "20")
    assert found["env"] == "t-maze-5"
    assert main(["evaluate", str(folder), "--env", "tiger"]) == 2
    assert "--env tiger: expected observations" in capsys.readouterr().err


def test_a_task_without_a_table(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "long"
    assert main(["train", "ppo", "--env", "long-t-maze", "--horizon", "12", "--out", str(out), *SMALL]) == 0
    capsys.readouterr()
    found = evaluated(capsys, str(out), "--episodes", "30")
    assert found["truth"]["maximum"] == 0.0 and found["discount"] is None and found["probe"] is None
    assert found["length"] <= 12 and not (out / "probe.json").exists()


def test_folders_that_will_not_do(folder: Path, tmp_path: Path, capsys: Any) -> None:
    def refused(says: str, *words: str) -> None:
        assert main(["evaluate", *words]) == 2
        assert says in capsys.readouterr().err

    refused("no such folder", str(tmp_path / "nothing"))
    refused("expected 1 or more", str(folder), "--horizon", "0")
    refused("expected 2 or more", str(folder), "--episodes", "1")
    (folder / "policy" / "model.safetensors").unlink()
    refused("model.safetensors is missing; expected all files that were saved", str(folder))
    shutil.rmtree(folder / "policy")
    refused("neither policy/, reward/ nor partner/ is there", str(folder))
    (folder / "result.json").unlink()
    refused("this run has not ended; resume it, with the settings that it began with", str(folder))
    (folder / "config.yaml").write_text("- a list\n")
    refused("expected settings by name", str(folder))
