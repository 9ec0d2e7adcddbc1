"""Runs that go on: beyond their end, with a schedule that stays, and from the weights of another run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import turnwise as tw
from turnwise.cli import main
from turnwise.run.settings import Adam, lanes_of

CONSTANT = Adam(1e-2, schedule="constant")
EVEN = tw.A2C(steps=64, lanes=2, rollout=8, optimizer=CONSTANT, entropy_end=0.01)
"""nothing in it depends on how long training is"""


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]


def weights(actor: Any) -> dict[str, torch.Tensor]:
    return actor.saved.module.state_dict()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent of the tiger, eight features wide."""
    out = tmp_path_factory.mktemp("first") / "run"
    tw.fit(tw.PPO(steps=64, lanes=2, rollout=16), "tiger", width=8, out=out, quiet=True)
    return out


def test_with_a_constant_rate_a_run_made_longer_is_the_one_that_was_as_long_at_once(tmp_path: Path) -> None:
    """64 steps and then 128 of them, optimizer, episodes under way and all: the same numbers as 128."""
    given = {"width": 8, "quiet": True}
    tw.fit(EVEN, "tiger", out=tmp_path / "parts", **given)
    longer = replace(EVEN, steps=128)
    parts = tw.fit(longer, "tiger", out=tmp_path / "parts", resume=True, **given)
    whole = tw.fit(longer, "tiger", out=tmp_path / "whole", **given)
    assert {k: torch.equal(v, weights(whole)[k]) for k, v in weights(parts).items()} == dict.fromkeys(
        weights(whole), True
    )
    assert [x["lr"] for x in lines(tmp_path / "parts")] == [1e-2] * len(lines(tmp_path / "parts"))
    assert tw.load(tmp_path / "parts").result["metrics"]["step"] == 7


def test_a_longer_run_says_where_it_goes_on_and_how_fast(tmp_path: Path, capsys: Any) -> None:
    """After 4 of now 8 steps the linear rate is half of the first; a constant one is what it was."""
    words = [
        "train",
        "a2c",
        "--env",
        "tiger",
        "--lanes",
        "2",
        "--rollout",
        "8",
        "--width",
        "8",
        "--lr",
        "0.02",
    ]
    for schedule, said in (("linear", "is 0.01 there, as in a run of 8 steps"), ("constant", "is 0.02")):
        out = ["--out", str(tmp_path / schedule), "--schedule", schedule]
        assert main([*words, *out, "--steps", "64"]) == 0
        capsys.readouterr()
        assert main([*words, *out, "--steps", "128", "--resume"]) == 0
        assert f"a2c: goes on after step 4 of 8; the learning rate {said}" in capsys.readouterr().err


def test_the_schedule_may_change_when_a_run_is_resumed(tmp_path: Path) -> None:
    linear = replace(EVEN, optimizer=Adam(1e-2))
    tw.fit(linear, "tiger", out=tmp_path / "run", width=8, quiet=True)
    tw.fit(replace(EVEN, steps=128), "tiger", out=tmp_path / "run", width=8, quiet=True, resume=True)
    assert lines(tmp_path / "run")[-1]["lr"] == 1e-2
    changes = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["changes"]
    assert changes == [{"after_step": 4, "schedule": ["linear", "constant"], "steps": [64, 128]}]


@pytest.mark.parametrize(("every", "steps"), [(1, [0, 1, 2, 3]), (2, [0, 1, 3]), (10, [0, 3])])
def test_metrics_are_logged_as_often_as_one_asks(every: int, steps: list[int], tmp_path: Path) -> None:
    tw.fit(EVEN, "tiger", out=tmp_path / "run", width=8, quiet=True, log_every=every)
    assert [x["step"] for x in lines(tmp_path / "run")] == steps


def test_an_agent_begins_with_the_weights_and_the_memory_of_another_run(
    trained: Path, tmp_path: Path
) -> None:
    """With a learning rate of nearly nothing it is what it began with; so it is in another environment that
    looks the same, and from Python with the agent itself."""
    still = tw.A2C(steps=64, lanes=2, rollout=8, optimizer=Adam(1e-30))
    before = tw.load(trained)
    for policy in (str(trained), before):
        after = tw.fit(still, "tiger", policy=policy, out=tmp_path / type(policy).__name__, quiet=True)
        assert after.saved.memory == before.saved.memory and after.saved.memory.width == 8
        for name, x in after.saved.module.named_parameters():
            if name.startswith(("memory", "head")):
                torch.testing.assert_close(x, weights(before)[name], rtol=0, atol=1e-20)
    asked = yaml.safe_load((tmp_path / "str" / "config.yaml").read_text())
    assert asked["policy"] == str(trained) and asked["width"] == 8 and len(asked["policy_content"]) == 16
    again = tw.fit(still, "tiger", policy=str(trained), out=tmp_path / "str", quiet=True, resume=True)
    assert torch.equal(weights(again)["head.logits.weight"], weights(before)["head.logits.weight"])


def test_what_it_cannot_begin_with_is_named(trained: Path, tmp_path: Path, capsys: Any) -> None:
    def refused(*words: str) -> str:
        out = tmp_path / "none"
        assert main(["train", *words, "--policy", str(trained), "--out", str(out)]) == 2
        assert not out.exists()
        return capsys.readouterr().err

    assert f"--policy {trained}: expected an agent of r2d2; this one is of ppo, a2c or reinforce" in refused(
        "r2d2", "tiger"
    )
    assert "--width 16: expected 8, or nothing, beside policy" in refused("ppo", "tiger", "--width", "16")
    assert "expected an agent for cheese: observations" in refused("ppo", "cheese")
    with pytest.raises(TypeError, match="policy is int; expected a trained agent, or its run folder"):
        tw.fit(tw.PPO(), "tiger", policy=3)
    with pytest.raises(tw.InputError, match=r"nowhere: .*expected the run of an agent that acts in steps"):
        tw.fit(tw.PPO(), "tiger", policy="nowhere")


@pytest.mark.parametrize(("part", "lanes"), [(1.0, 64), (20.0, 64), (0.12, 8), (0.25, 16), (0.001, 8)])
def test_short_runs_have_fewer_lanes(part: float, lanes: int) -> None:
    """64 x .12 is 7.68: 60,000 of 500,000 steps are 117 updates in 8 lanes, and would be 15 in 64."""
    assert lanes_of(None, part) == lanes and lanes_of(3, part) == 3


def test_a_run_that_is_made_longer_keeps_its_lanes(tmp_path: Path) -> None:
    def lanes() -> int:
        return yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["lanes"]

    given: dict[str, Any] = {"width": 8, "quiet": True, "out": tmp_path / "run"}
    tw.fit(tw.REINFORCE(episodes=16, longest=4), "tiger", **given)
    assert lanes() == 8 and len(lines(tmp_path / "run")) == 2
    tw.fit(tw.REINFORCE(episodes=24, longest=4), "tiger", resume=True, **given)
    assert lanes() == 8 and lines(tmp_path / "run")[-1]["seen"] == 24
    with pytest.raises(tw.InputError, match="lanes was 8 and is 64 now"):
        tw.fit(tw.REINFORCE(episodes=24, longest=4, lanes=64), "tiger", resume=True, **given)
