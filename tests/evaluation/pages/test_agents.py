"""The page of an agent's run: what is missing is named, what is there is data, figures are the files'."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from turnwise.evaluation.pages.report import write_report
from turnwise.run.errors import InputError

ODD = "<script>alert(1)</script>"
CONFIG = {"algorithm": "ppo", "env": "tiger", "memory": "gru", "critic": "history", "gamma": 0.95, "seed": 0}
METRICS = [
    {"step": i, "seconds": 1.0 * i, "steps": 1000.0 * (i + 1), "policy_loss": 0.1, "episodes": 9.0,
     "discounted_return": -30.0 + i, "episode_return": -60.0 + i, "entropy": 1.0}
    for i in range(5)
]  # fmt: skip
EVALUATION: dict[str, Any] = {
    "env": "tiger", "score": "mean discounted return", "episodes": 2000, "seed": 0, "mean": 11.68,
    "low": 10.35, "high": 12.93, "confidence": 0.95, "standard_error": 0.64, "discount": 0.95,
    "undiscounted": 40.0,
    "length": 283.0, "truncated": 2000, "greedy": False, "horizon": 283, "tail": 0.00099, "exact": None,
    "bound": 19.3716, "above": False, "share": 0.8,
    "truth": {"lower": 19.3708, "upper": 19.3716, "deterministic": -20.0, "stochastic": -19.5,
              "rewards_inform": False, "state_seen": 200.0, "notes": []},
}  # fmt: skip
LINE = {"accuracy": 0.78, "cross_entropy": 0.4, "by_step": [0.5, 0.8]}
PROBE = {
    "states": 2, "episodes": 600, "expected": True, "steps": [0, 1], "running": [300, 300],
    "lines": {"belief": LINE, "memory": LINE, "untrained": LINE, "observation": LINE},
}  # fmt: skip
EPISODE = {
    "id": ODD, "return": 5.0, "discounted": 4.0, "length": 90, "ended": "truncated", "actions": ["a", ODD],
    "steps": [
        {"observation": ODD, "action": ODD, "reward": -1.0, "state": ODD,
         "belief": [[ODD, 0.75], ["b", 0.25]], "value": 3.0, "probabilities": [0.25, 0.75]},
        {"observation": "o", "action": "a", "reward": 10.0, "state": "b", "belief": [["b", 1.0]],
         "value": 4.0, "probabilities": [0.5, 0.5]},
    ],
}  # fmt: skip


def written(folder: Path, **files: Any) -> str:
    """The page of a folder with these files (names without endings; lists are lines)."""
    folder.mkdir(exist_ok=True)
    config = files.pop("config", CONFIG)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "result.json").write_text("{}\n")
    facts = {"name": config["algorithm"], "title": config["algorithm"].upper(), "family": "acting"}
    (folder / "algorithm.json").write_text(json.dumps(facts))
    for name, value in files.items():
        if isinstance(value, list):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(v) + "\n" for v in value))
        else:
            (folder / f"{name}.json").write_text(json.dumps(value))
    return write_report(folder).read_text()


def plain(page: str) -> str:
    """The words of the body."""
    body = page[page.index("<main>") : page.index("</main>")]
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", body, flags=re.S))


def test_before_evaluation_it_says_what_is_missing(tmp_path: Path) -> None:
    page = written(tmp_path / "run", metrics=METRICS)
    said = plain(page)
    assert "PPO in tiger" in said and "Not evaluated yet" in said and "Not measured yet" in said
    assert f"turnwise evaluate {tmp_path / 'run'}" in said and "No episodes yet" in said
    assert "Training is no measurement" in said and "V*_obs" not in said.split("How it was made")[0]
    bare = plain(written(tmp_path / "bare"))
    assert "No learning curves" in bare


def test_with_everything(tmp_path: Path) -> None:
    page = written(
        tmp_path / "run", metrics=METRICS, evaluation=EVALUATION, probe=PROBE, episodes=[EPISODE] * 9
    )
    said = plain(page)
    assert re.search(
        r"earns 11\.7 \(95% interval 10\.3 to 12\.9\) ?\. "
        r"The best policy with memory earns 19\.3708 to 19\.3716",
        said,
    )
    assert "80%" in said and "best stochastic memoryless −19.5" in said
    assert said.count("Hidden state") == 8  # one table an episode, eight at most
    assert "88 more steps followed" in said and "up to 200 are in episodes.jsonl" in said
    assert "This cannot be" not in said and "Lines across" in said
    assert "default-src 'none'" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_names_are_data_and_not_markup(tmp_path: Path) -> None:
    config = {**CONFIG, "env": ODD, "memory": ODD, "algorithm": ODD}
    evaluation = {**EVALUATION, "env": ODD, "truth": {**EVALUATION["truth"], "notes": [ODD]}}
    page = written(
        tmp_path / "run",
        config=config,
        metrics=METRICS,
        evaluation=evaluation,
        probe=PROBE,
        episodes=[EPISODE],
    )
    assert "<script>alert" not in page.lower() and "&lt;script&gt;alert(1)" in page
    assert page.count("<script>") == 1


def test_below_what_needs_no_memory(tmp_path: Path) -> None:
    evaluation = {**EVALUATION, "mean": -25.0, "low": -26.0, "high": -24.0, "share": -0.1, "kind": "q"}
    said = plain(written(tmp_path / "run", evaluation=evaluation))
    assert "the agent’s memory gains it nothing" in said and "−10%" not in said and "its best action" in said


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    said = plain(written(tmp_path / "run", evaluation={**EVALUATION, "above": True}))
    assert "This cannot be: the mean exceeds 19.4" in said


def test_without_a_discount_the_return_is_the_undiscounted_one(tmp_path: Path) -> None:
    truth = {"maximum": 1.0, "random": -0.5, "notes": []}
    evaluation = {**EVALUATION, "discount": None, "score": "mean return", "mean": 0.5, "low": 0.4,
                  "high": 0.6, "truth": truth, "share": None, "truncated": 0}  # fmt: skip
    said = plain(written(tmp_path / "run", metrics=METRICS, evaluation=evaluation))
    assert (
        "The maximum is 1 and acting at random earns −0.500 ." in said
        and "Episode return of training episodes" in said
    )
    assert "Returns are undiscounted" in said


def test_another_discount_in_training_draws_no_lines(tmp_path: Path) -> None:
    said = plain(
        written(tmp_path / "run", config={**CONFIG, "gamma": 0.9}, metrics=METRICS, evaluation=EVALUATION)
    )
    assert "the discount of training is not the problem’s" in said and "Lines across" not in said


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"evaluation": {"mean": 1.0}}, "'episodes'"),
        ({"evaluation": {**EVALUATION, "mean": "much"}}, "expected what"),
        ({"probe": {"lines": {}}}, "'steps'"),
        ({"episodes": [{"id": "x"}]}, "'steps'"),
    ],
)
def test_files_that_are_not_ours(tmp_path: Path, files: dict[str, Any], names: str) -> None:
    with pytest.raises(InputError, match=names):
        written(tmp_path / "run", metrics=METRICS, **files)


def test_another_environment_lends_no_lines_to_the_curves(tmp_path: Path) -> None:
    """The agent learnt in tiger: what is known of tiger.95 stands beside the answer and not beside curves."""
    evaluation = {**EVALUATION, "env": "tiger.95"}
    said = plain(written(tmp_path / "run", metrics=METRICS, evaluation=evaluation))
    assert "In tiger.95, where it did not learn, it earns on average 11.7" in said
    assert "No lines across: the evaluation was in tiger.95." in said and " Lines across:" not in said
