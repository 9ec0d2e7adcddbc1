"""Policies ranked by the logs of another, from Python and from the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.data.acts.build import build_codes
from turnwise.data.acts.talks import Codes
from turnwise.evaluation.pages.compared import compared_view
from turnwise.evaluation.pages.report import page_of, write_report
from turnwise.recipes.held_out import HeldOut
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Choice, Prefix, draw
from turnwise.rollout.acts.voice import LoggedVoice
from turnwise.run.errors import InputError, SettingError

SETTINGS: dict[str, Any] = {"quiet": True, "resamples": 200}


class Coin:
    """Says `win` with probability p, whatever it hears."""

    def __init__(self, codes: Codes, p: float) -> None:
        self.p = np.array([p if name == "win" else 1 - p for name in codes.acts])

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        return [Choice(draw(self.p, rng), self.p) for rng in rngs]


def rows_of(n: int, seed: int) -> list[dict[str, Any]]:
    """One turn each: `win` pays 1 and `lose` 0, both as often, with their probabilities."""
    wins = np.random.default_rng(seed).random(n) < 0.5
    return [
        {
            "id": f"c{seed}-{i}",
            "messages": [
                {"role": "user", "content": f"case {i}", "act": "ask"},
                {"role": "assistant", "content": "win" if w else "lose", "act": "win" if w else "lose",
                 "act_logp": float(np.log(0.5)), "reward": float(w)},
            ],
        }
        for i, w in enumerate(wins)
    ]  # fmt: skip


ROWS = rows_of(1000, 1)


def coin(name: str, p: float) -> tw.ActPolicy:
    """It is worth p."""
    codes = build_codes(tw.read_logs(rows_of(40, 0), quiet=True)).codes
    agent = ActAgent(codes, Coin(codes, p), LoggedVoice.of(codes.agent))
    return tw.ActPolicy(agent, folder=Path(name), held=HeldOut(0.0, None, frozenset()))


def test_better_ones_come_first_and_the_safe_choice_is_the_best_that_is_certain() -> None:
    """Coins of .6, .5 and .4 beside the logged one of .5: the logs say .6 -> .6 / .5 x the share of wins."""
    found = tw.compare([coin("down", 0.4), coin("up", 0.6), coin("same", 0.5)], ROWS, **SETTINGS)
    rows = {row["name"]: row for row in found["rows"]}
    assert found["rows"][0]["name"] == "up" and found["rows"][-1]["name"] == "down"
    share = np.mean([row["messages"][1]["reward"] for row in ROWS])
    assert rows["the logged agent"]["value"] == pytest.approx(share)
    assert rows["same"]["gain"]["value"] == pytest.approx(0, abs=1e-12)
    assert 0.3 < rows["same"]["worse"] < 0.7  # a half, but for what rounding makes of draws that are equal
    weighted = 0.6 * share / (0.6 * share + 0.4 * (1 - share))
    assert rows["up"]["value"] == pytest.approx(weighted)
    assert rows["up"]["gain"]["low"] > 0 and rows["up"]["best"] > 0.99 and rows["up"]["worse"] < 0.01
    assert rows["down"]["worse"] > 0.99 and rows["down"]["best"] < 0.01
    assert sum(row["best"] for row in found["rows"]) == pytest.approx(1)
    assert (found["safe"]["name"], found["safe"]["t"]) == ("up", 1.0)
    assert found["safe"]["gain"]["low"] > 0


def test_nothing_that_is_worse_is_safe() -> None:
    found = tw.compare([coin("down", 0.4), coin("same", 0.5)], ROWS, **SETTINGS)
    assert found["safe"]["name"] == "the logged agent" and found["safe"]["t"] == 0


def test_the_page_leads_with_the_choice(tmp_path: Path) -> None:
    """What stands first is what to take, with its gain; what is not vouched for is told; the page is written
    again from compare.json. A folder that holds a run is refused."""
    out = tmp_path / "cmp"
    found = tw.compare([coin("down", 0.4), coin("up", 0.6)], ROWS, out=out, **SETTINGS)
    assert found["report"] == str(out / "compare.html")
    kept = json.loads((out / "compare.json").read_text())
    assert kept["rows"] == found["rows"] and kept["safe"] == found["safe"]
    page = page_of(out)
    shown = page.values["compared"]
    gain = found["safe"]["gain"]
    assert "Take <b>up</b>" in shown["sentence"] and f"{gain['value']:.3f}" in shown["sentence"]
    assert [row["name"] for row in shown["rows"]] == [row["name"] for row in found["rows"]]
    assert [row["safe"] for row in shown["rows"]] == [True, False, False]
    assert (
        write_report(out) == out / "compare.html" and "Take <b>up</b>" in (out / "compare.html").read_text()
    )
    worse = tw.compare([coin("down", 0.4)], ROWS, out=out, **SETTINGS)
    assert "Keep the agent that you have" in compared_view(worse)["sentence"]
    (out / "compare.json").write_text('{"rows": []}')
    with pytest.raises(InputError, match=r"compare.json: expected what turnwise compare --out writes"):
        page_of(out)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(SettingError, match=r"out is .* this one holds config.yaml"):
        tw.compare([coin("up", 0.6)], ROWS, out=tmp_path, **SETTINGS)


def test_what_any_has_learnt_from_is_left_out_for_all() -> None:
    """One has learnt from the first half: the other is asked about the rest as well."""
    logs = tw.read_logs(ROWS, quiet=True)
    from turnwise.data.splits.twins import marks_of

    learnt = HeldOut(0.0, None, frozenset(), frozenset(marks_of(logs[:500]).tolist()))
    found = tw.compare([replace(coin("a", 0.6), held=learnt), coin("b", 0.4)], logs, **SETTINGS)
    assert found["conversations"] == 500 and "500 conversations are left out" in found["warnings"][0]


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(InputError, match="no runs"):
        tw.compare([], ROWS, **SETTINGS)
    with pytest.raises(InputError, match="a stands twice"):
        tw.compare([coin("a", 0.5), coin("a", 0.4)], ROWS, **SETTINGS)
    with pytest.raises(SettingError, match="betas"):
        tw.compare([coin("a", 0.5)], ROWS, betas=[-1.0], **SETTINGS)


def test_strengths_of_a_critic_are_candidates_at_both_doors(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    run, logs = tmp_path / "mc", tmp_path / "others.jsonl"
    tw.fit(tw.ActMC(), rows_of(60, 2), out=run, quiet=True)
    logs.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:200]))
    assert main(["compare", str(run), "--logs", str(logs), "--betas", "0", "2", "--json"]) == 0
    printed = capsys.readouterr()
    names = {f"{run}, beta 0", f"{run}, beta 2", "the logged agent"}
    typed = json.loads(printed.out)
    assert {row["name"] for row in typed["rows"]} == names and "safe: " in printed.err
    called = tw.compare([run], logs, betas=[0, 2], quiet=True)
    assert called["rows"] == typed["rows"]
    assert main(["compare", str(tmp_path / "nowhere"), "--logs", str(logs)]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_rewards_of_ones_own_take_the_place_of_the_logged_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What loses is now worth 2: the order turns round. The same by name and by function."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_of_compare.py").write_text(
        "def lost(d):\n    return 2.0 * (d.messages[-1].content == 'lose')\n"
        "def wrong(d):\n    return [1, 2]\n"
    )
    runs = [coin("up", 0.6), coin("down", 0.4)]

    def lost(d: Any) -> list[float]:
        return [2.0 * (m.content == "lose") for m in d.turns]

    called = tw.compare(runs, ROWS, reward=lost, **SETTINGS)
    assert called["rows"][0]["name"] == "down" and called["safe"]["name"] == "down"
    typed = tw.compare(runs, ROWS, reward="mine_of_compare:lost", **SETTINGS)
    assert typed["rows"] == called["rows"]
    one = tw.estimate(runs[1], ROWS, reward="mine_of_compare:lost", **SETTINGS)
    assert "returns are by mine_of_compare:lost" in one["warnings"][0]
    assert one["worth"]["then"]["value"] == pytest.approx(called["rows"][0]["value"])
    for reward, message in (
        ("mine_of_compare:wrong", "gave 2 numbers; expected one, or one for each of 1"),
        (lambda d: float("nan"), "expected finite numbers"),
        (lambda d: "good", "expected a number"),
        (lambda d: 1 / 0, "ZeroDivisionError"),
        ("mine_of_compare:none", "expected a class or function of mine_of_compare: "),
    ):
        with pytest.raises(InputError, match=message):
            tw.compare(runs, ROWS, reward=reward, **SETTINGS)
