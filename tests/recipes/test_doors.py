"""Python and the command line are two doors to one run: the same seed gives equal weights and metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import turnwise as tw
from turnwise.cli import main

SMALL = {"width": 16, "layers": 1, "heads": 2, "context": 256, "vocab": 400}


def flags(settings: dict[str, Any]) -> list[str]:
    """Settings as they are typed."""
    return [word for k, v in settings.items() for word in (f"--{k.replace('_', '-')}", str(v))]


def expect_equal(one: Path, other: Path) -> None:
    """Weights to the bit, metrics but for the clock, settings and files by their names."""
    names = [{str(f.relative_to(run)) for f in run.rglob("*") if f.is_file()} for run in (one, other)]
    assert names[0] == names[1]
    for name in (n for n in names[0] if n.endswith(".safetensors")):
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in (one, other)]
    clock = {"seconds": 0}
    assert [json.loads(x) | clock for x in lines[0]] == [json.loads(x) | clock for x in lines[1]]
    asked = [yaml.safe_load((run / "config.yaml").read_text()) for run in (one, other)]
    assert {**asked[0], "policy": ""} == {**asked[1], "policy": ""}
    told = [json.loads((run / "algorithm.json").read_text()) for run in (one, other)]
    assert told[0] == told[1] and told[0]["metrics"]


def test_conversations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = str(tmp_path / "logs.jsonl")
    assert main(["data", "make", "--out", logs, "--conversations", "60", "--seed", "5"]) == 0
    typed, called = tmp_path / "typed", tmp_path / "called"
    words = ["--logs", logs, "--seed", "3", "--max-new-tokens", "8"]
    assert main(["train", "bc", *words, "--out", str(typed / "bc"), "--epochs", "2", *flags(SMALL)]) == 0
    more = ["--policy", str(typed / "bc"), "--out", str(typed / "ilql"), "--tau", "0.9", "--epochs", "1"]
    assert main(["train", "ilql", *words, *more]) == 0
    settings = {"seed": 3, "max_new_tokens": 8, "quiet": True}
    clone = tw.fit(tw.BC(epochs=2.0), tw.read_logs(logs), out=called / "bc", **settings, **SMALL)
    config = tw.ILQL(tau=0.9, epochs=1.0)
    agent = tw.fit(config, tw.read_logs(logs), policy=clone, out=called / "ilql", **settings)
    expect_equal(typed / "bc", called / "bc")
    expect_equal(typed / "ilql", called / "ilql")
    # Each door takes what the other one wrote.
    capsys.readouterr()
    asked = ["--episodes", "6", "--seed", "4", "--json"]
    assert main(["evaluate", "--run", str(called / "ilql"), *asked]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = tw.evaluate(typed / "ilql", "helpdesk", episodes=6, seed=4, quiet=True)
    assert (found.mean, found.low, found.high) == (printed["mean"], printed["low"], printed["high"])
    assert tw.evaluate(agent, tw.HelpDesk(), episodes=6, seed=4, quiet=True).mean == found.mean
    assert main(["report", str(called / "ilql")]) == 0
    resumed = ["train", "bc", *words, "--out", str(called / "bc"), "--epochs", "2", *flags(SMALL), "--resume"]
    assert main(resumed) == 0
    expect_equal(typed / "bc", called / "bc")
    assert tw.load(called / "ilql").reply([{"role": "user", "content": "Hi!"}], seed=1) == agent.reply(
        [{"role": "user", "content": "Hi!"}], seed=1
    )


def test_agents(tmp_path: Path) -> None:
    """The discount is the environment's own at both doors, and what is given where something is."""
    words = ["train", "ppo", "--env", "cheese", "--steps", "256", "--lanes", "4", "--rollout", "16"]
    for name, more, config in (("own", [], {}), ("given", ["--gamma", "0.5"], {"gamma": 0.5})):
        typed, called = tmp_path / f"typed-{name}", tmp_path / f"called-{name}"
        assert main([*words, "--width", "8", *more, "--out", str(typed)]) == 0
        tw.fit(tw.PPO(steps=256, lanes=4, rollout=16, **config), "cheese", width=8, out=called, quiet=True)
        expect_equal(typed, called)
        expected = config.get("gamma", 0.95)
        assert yaml.safe_load((called / "config.yaml").read_text())["gamma"] == expected


def test_a_policy_in_memory_stays_what_it_was(tmp_path: Path) -> None:
    """Training begins with a copy: the clone that was passed can be compared with, and used again."""
    talk = [{"role": "user", "content": "yes or no"}, {"role": "assistant", "content": "yes"}]
    clone = tw.fit(tw.BC(epochs=1.0), [{"messages": talk, "id": str(i)} for i in range(8)], quiet=True,
                   heldout=0.0, **SMALL)  # fmt: skip
    before = {k: v.clone() for k, v in clone.agent.lm.state_dict().items()}
    pairs = [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(8)]
    learnt = tw.fit(tw.DPO(epochs=3.0), pairs, policy=clone, quiet=True, heldout=0.0, max_new_tokens=4)
    after = clone.agent.lm.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert any(not torch.equal(before[k], v) for k, v in learnt.agent.lm.state_dict().items())
    assert learnt.folder is None and "run" not in learnt.result and learnt.result["metrics"]


def test_the_callers_generator_and_threads_are_left_alone() -> None:
    torch.manual_seed(11)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(11)
    tw.fit(tw.PPO(steps=64, lanes=2, rollout=16), "tiger", width=4, quiet=True)
    assert torch.equal(torch.rand(1), expected) and torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tw.fit(tw.BC(), [], widht=3), "BC has no setting 'widht'; expected one of heldout"),
        (lambda: tw.fit(tw.BC(), [], policy="x"), "BC takes no policy; expected model"),
        (lambda: tw.fit(tw.PPO(), "tiger", reward="x"), "PPO takes no reward: it learns from its own acting"),
        (lambda: tw.fit(tw.R2D2(), "tiger", critic="state"), "R2D2 has no setting 'critic'"),
        (lambda: tw.fit(tw.PPO(), 3), "env is int; expected a name, a .pomdp file"),
        (lambda: tw.evaluate(3), "int is neither a policy nor an agent"),
    ],
)
def test_what_python_gets_wrong_is_a_type_error(call: Any, says: str) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert says in str(caught.value)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(tw.InputError, match="ILQL needs a policy to begin with"):
        tw.fit(tw.ILQL(), [])
    with pytest.raises(tw.InputError, match="RLOO needs a reward"):
        tw.fit(tw.RLOO(), ["a?"], policy="x")
    (tmp_path / "old").write_text("")
    with pytest.raises(tw.SettingError, match=r"^out is .*old'; expected a folder; a file"):
        tw.fit(tw.BC(), [], out=tmp_path / "old")
