"""Agents of acts from logs, at both doors: a kiosk where one has to remember what was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.data.acts.build import build_codes
from turnwise.envs.dialogue import Message, Response

WANTS = ("tea", "coffee", "water")
QUICK: dict[str, Any] = {"width": 16, "quiet": True}


class Kiosk:
    """A guest says what he wants, waits while he is greeted, and is served: 1 if it is that, else -1.

    Serving at once, without a greeting, costs half; greeting him again costs .2.
    """

    name = "kiosk"

    def __init__(self) -> None:
        self.lanes: dict[int, list[Any]] = {}

    def reset(self, lanes, seeds):
        for lane, seed in zip(lanes, seeds, strict=True):
            self.lanes[lane] = [WANTS[int(seed) % 3], False]
        return [(Message("user", f"I would like {self.lanes[lane][0]}, please"),) for lane in lanes]

    def step(self, lanes, replies):
        found = []
        for lane, text in zip(lanes, replies, strict=True):
            want, greeted = self.lanes[lane]
            served = [w for w in WANTS if w in text]
            if served:
                reward = (1.0 if served == [want] else -1.0) * (1 if greeted else 0.5)
                found.append(Response((Message("user", "Bye"),), reward, terminated=True))
            else:
                self.lanes[lane][1] = True
                found.append(Response((Message("user", "Fine"),), -0.2 if greeted else 0.0))
        return found

    def hidden(self, lane):
        return {"want": self.lanes[lane][0]}


def logs(n: int = 240) -> list[dict[str, Any]]:
    """An agent that greets half of the time and serves anything."""
    rng, desk, rows = np.random.default_rng(0), Kiosk(), []
    for i in range(n):
        (opening,) = desk.reset([0], [int(rng.integers(1000))])
        messages = [{"role": m.role, "content": m.content} for m in opening]
        over = False
        while not over:
            greets = rng.random() < 0.5
            text = "Hello there" if greets else f"Here is your {rng.choice(WANTS)}"
            (r,) = desk.step([0], [text])
            messages.append({"role": "assistant", "content": text, "reward": r.reward})
            messages += [{"role": m.role, "content": m.content} for m in r.messages]
            over = r.terminated
        rows.append({"id": str(i), "messages": messages})
    return rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Any:
    out = tmp_path_factory.mktemp("runs") / "iql"
    read = tw.read_logs(logs())
    codes = build_codes(read, "sentence", "sentence").codes
    config = tw.ActIQL(epochs=30.0, batch_size=32, optimizer=tw.AdamW(1e-2))
    return tw.fit(config, read, acts=codes, heldout=0.25, out=out, estimate=False, **QUICK)


def test_the_agent_remembers_what_was_wanted(trained: Any) -> None:
    """It greets, and then serves what was asked for two messages ago, which is worth 1. Who serves at once
    earns .5, and who has forgotten what was wanted -1/3."""
    found = tw.evaluate(trained, Kiosk(), episodes=60, quiet=True)
    assert found.mean > 0.7
    assert found.result["turns_as_acts"]["read_back"]["value"] == 1
    promise = found.result["promised"]
    assert promise["over"] == pytest.approx(promise["value"] - found.mean) and abs(promise["over"]) < 0.6


def test_what_was_saved_says_the_same_and_shows_it(trained: Any) -> None:
    again = tw.load(trained.folder)
    talk = [{"role": "user", "content": "I would like water, please"}]
    assert isinstance(again, tw.ActPolicy) and again.reply(talk, seed=3) == trained.reply(talk, seed=3)
    assert again.result["critic"]["q"]["all"]["critic"]["calibrated_r2"]["value"] > 0.2
    page = (trained.folder / "report.html").read_text()
    assert "IQL per act" in page and "regression on words" in page
    views = [json.loads(x) for x in (trained.folder / "conversations.jsonl").read_text().splitlines()]
    assert all({"v", "q", "advantage"} <= m.keys() for v in views for m in v["messages"] if "reward" in m)


@pytest.mark.parametrize("name", ["act-bc", "act-mc", "act-cql"])
def test_the_command_line_does_what_python_does(name: str, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "logs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in logs(60)))
    words = ["train", name, str(file), "--out", str(tmp_path / "run"), "--epochs", "2", "--width", "8"]
    assert main([*words, "--json", "--memory", "linear"]) == 0
    typed = json.loads(capsys.readouterr().out)
    config = {"act-bc": tw.ActBC, "act-mc": tw.ActMC, "act-cql": tw.ActCQL}[name](epochs=2.0)
    called = tw.fit(config, tw.read_logs(file), width=8, memory="linear", quiet=True)
    own = {k: v for k, v in called.result["metrics"].items() if k != "seconds"}
    assert own == {k: v for k, v in typed["metrics"].items() if k != "seconds"}
    assert main(["report", str(tmp_path / "run")]) == 0


def test_a_resumed_run_is_the_run(trained: Any, tmp_path: Path) -> None:
    """Two passes, and two more: the same weights as four at once have, but for the rate of learning."""
    config = tw.ActIQL(epochs=4.0, batch_size=32, anneal=0.0, optimizer=tw.AdamW(1e-3, warmup=0.0))
    out = tmp_path / "run"
    tw.fit(config, logs(60), out=out, **QUICK)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    tw.fit(tw.ActIQL(epochs=6.0, batch_size=32, anneal=0.0, optimizer=config.optimizer), logs(60), out=out,
           resume=True, **QUICK)  # fmt: skip
    longer = (out / "metrics.jsonl").read_text().splitlines()
    assert longer[: len(lines)] == lines and len(longer) > len(lines)


def test_codebooks_may_be_given(trained: Any, tmp_path: Path) -> None:
    """Those of another run, in memory or as a folder; and no others."""
    folder = trained.folder / "policy" / "codes"
    codes = trained.agent.codes
    for acts in (folder, codes):
        found = tw.fit(tw.ActBC(epochs=1.0), logs(40), acts=acts, **QUICK)
        assert found.result["acts"] == list(codes.acts)
    with pytest.raises(tw.InputError, match="expected a folder of codebooks"):
        tw.fit(tw.ActBC(epochs=1.0), logs(40), acts=tmp_path / "nowhere", **QUICK)


def test_what_cannot_be_learnt_from_is_said(trained: Any, capsys: Any) -> None:
    rows = [{**row, "messages": [{k: v for k, v in m.items() if k != "reward"} for m in row["messages"]]}
            for row in logs(30)]  # fmt: skip
    with pytest.raises(tw.InputError, match="expected an outcome of conversations, or rewards"):
        tw.fit(tw.ActIQL(epochs=1.0), rows, **QUICK)
    assert tw.fit(tw.ActBC(epochs=1.0), rows, **QUICK).result["acts"]  # a clone needs none
    with pytest.raises(tw.SettingError, match=r"betas is .*expected none for an agent of acts"):
        tw.evaluate(trained, Kiosk(), betas=(1.0,), quiet=True)
    with pytest.raises(TypeError, match="takes no policy"):
        tw.fit(tw.ActBC(), rows, policy="x", **QUICK)
    one = [{"messages": [{"role": "assistant", "content": "hi", "reward": float(i % 2)}]} for i in range(20)]
    tw.fit(tw.ActMC(epochs=1.0), one, width=8)
    assert "there is nothing to choose" in capsys.readouterr().err
