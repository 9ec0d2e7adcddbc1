"""From logs to the policy to take, or to the word that there is none: in one call, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.recipes.improving import story
from turnwise.recipes.improving.choice import choose
from turnwise.recipes.improving.opinion import Opinion
from turnwise.recipes.improving.stages import Stage, stages_of
from turnwise.recipes.settings.improve import ImproveSettings
from turnwise.run.errors import InputError, SettingError

Rows = list[dict[str, Any]]


def desk(n: int, seed: int = 0, pays: Callable[[bool, np.random.Generator], float] | None = None) -> Rows:
    """Two turns: a coin asks or not, then a coin offers tea or coffee. The guest names its drink if it is
    asked. What it wanted pays 1 at the end, the other nothing. Best is to ask and to offer what was named."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        wants = ("tea", "coffee")[int(rng.random() < 0.5)]
        asks = rng.random() < 0.5
        offer = ("tea", "coffee")[int(rng.random() < 0.5)]
        half = float(np.log(0.5))
        said = {"content": f"{wants} please", "act": wants} if asks else {"content": "yes", "act": "yes"}
        messages = [
            {"role": "user", "content": f"good day {i}", "act": "greet"},
            {"role": "assistant", "content": "what would you like" if asks else "nice weather",
             "act": "ask" if asks else "chat", "act_logp": half},
            {"role": "user", **said},
            {"role": "assistant", "content": f"here is {offer}", "act": offer, "act_logp": half},
        ]  # fmt: skip
        right = offer == wants
        earned = float(right) if pays is None else pays(right, rng)
        rows.append({"id": f"c{i}", "messages": messages, "outcome": earned, "terminated": True})
    return rows


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that are enough for the desk: the plan, the second model and a clone, with little effort."""

    def stages(s: ImproveSettings) -> list[Stage]:
        from dataclasses import replace

        effort = {"states": 3, "smoothing": 1.0, "starts": 2, "iterations": 30, "resamples": 2, "trials": 200}
        found = []
        for x in stages_of(s):
            if x.algorithm == "pomdp":
                found.append(replace(x, config=effort))
            elif x.algorithm == "act-bc":
                found.append(replace(x, config={"epochs": 3.0}))
            elif x.algorithm in ("acts", "act-ppo"):
                found.append(x)
        return found

    monkeypatch.setattr(story, "stages_of", stages)


SETTINGS: dict[str, Any] = {
    "workers": 0, "quiet": True, "practice": 0, "heldout": 0.6, "resamples": 100, "talks": 50,
}  # fmt: skip


@pytest.mark.usefixtures("few")
def test_logs_of_a_coin_become_a_desk_that_asks_and_listens(tmp_path: Path) -> None:
    """The coins earn .5 and the best desk 1: the plan is that desk, and what is said of it is right. In 960
    conversations a coin does what it does 240 times, so that the logs vouch for it."""
    rows = desk(1600)
    found = tw.improve(rows, tmp_path / "better", **SETTINGS)
    choice, told = found.result["choice"], found.result["opinions"]
    assert (choice["word"], choice["name"]) == ("vouched", "plan in a learnt model")
    plan = told["plan in a learnt model"]
    assert plan["value"] == pytest.approx(1, abs=0.03)
    assert told["clone"]["value"] == pytest.approx(0.5, abs=0.1)
    hello = [{"role": "user", "content": "good day 3"}]
    asked = found.policy.reply(hello, seed=0)  # pyright: ignore[reportOptionalMemberAccess]
    assert asked == "what would you like"
    talk = [*hello, {"role": "assistant", "content": asked}, {"role": "user", "content": "coffee please"}]
    assert tw.load(tmp_path / "better").reply(talk, seed=0) == "here is coffee"  # pyright: ignore
    page = found.report.read_text(encoding="utf-8")
    assert "Take <b>plan in a learnt model</b>" in page and "plan/report.html" in page
    again = tw.improve(rows, tmp_path / "better", resume=True, **SETTINGS)
    assert again.result == found.result and again.policy is not None
    with pytest.raises(SettingError, match="holds another run"):
        tw.improve(rows, tmp_path / "better", **SETTINGS)


def test_outcomes_that_are_all_alike_end_it_at_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    logs = tmp_path / "logs.jsonl"
    tw.write_logs(logs, tw.read_logs(desk(80, 2, lambda right, rng: 3.0), quiet=True))
    assert main(["improve", str(logs), "--out", str(tmp_path / "out"), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["choice"]["word"] == "keep" and found["stages"] == []
    assert "keep what you have" in err and "Every conversation earned the same, 3" in err
    assert (tmp_path / "out" / "report.html").is_file()


def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path) -> None:
    rows = desk(80)
    with pytest.raises(InputError, match="expected 60 conversations or more; found 20"):
        tw.improve(rows[:20], tmp_path / "a", **SETTINGS)
    bare = [{k: v for k, v in row.items() if k != "outcome"} for row in rows]
    with pytest.raises(InputError, match="expected an outcome of conversations"):
        tw.improve(bare, tmp_path / "b", **SETTINGS)
    with pytest.raises(TypeError, match="improve has no setting 'helout'"):
        tw.improve(rows, tmp_path / "c", helout=0.3)
    with pytest.raises(SettingError, match="heldout is 0"):
        tw.improve(rows, tmp_path / "d", heldout=0.0)
    assert not any(tmp_path.iterdir())


def row(name: str, value: float, sure: str, *, logged: bool = False) -> dict[str, Any]:
    ends = {"value": value, "low": value - 0.05, "high": value + 0.05}
    return {"name": name, **ends, "sure": sure, "logged": logged, "why": f"why {name}"}


LOGGED = row("the logged agent", 0.0, "vouch", logged=True)
NONE = {"t": 0.0, "name": "the logged agent", "value": 0.0, "as_run": None, "notes": []}


def step(value: float, low: float, t: float = 1.0) -> dict[str, Any]:
    """What the logs vouch for: worth more beside the logged agent's own turns than beside a clone's."""
    worth = {"value": value, "low": low, "high": 2 * value - low}
    kept = {
        "t": t,
        "name": "values",
        "value": value + 0.2,
        "low": low + 0.2,
        "high": 1.0,
        "notes": ["why not"],
    }
    return {**kept, "as_run": {"of": "values", "t": t, "worth": worth}}


def test_a_choice_needs_what_it_says() -> None:
    """Returns lie in -1 to 1, so that .04 is material. The clone is worth 0 by the second model."""
    rows = [LOGGED, row("plan", 0.9, "model only"), row("values", 0.3, "vouch"), row("clone", 0.0, "vouch")]
    told = {
        "plan": Opinion(0.5, 0.45, 0.55),
        "clone": Opinion(0.0, -0.02, 0.02),
        "values": Opinion(0.3, 0.2, 0.4),
    }
    safe = step(0.3, 0.25)

    def chosen(rows: Any, safe: Any, told: Any) -> tuple[str, str | None]:
        found = choose(rows, safe, told, "clone", (-1.0, 1.0))
        return found.word, found.name

    assert chosen(rows, safe, told) == ("models", "plan")
    assert chosen(rows, safe, told | {"plan": Opinion(0.35, 0.3, 0.4)}) == ("vouched", "values")
    assert chosen(rows, NONE, told | {"plan": Opinion(0.2, 0.04, 0.3), "values": Opinion(0, 0, 0)}) == (
        "keep",
        None,
    )
    # Better with certainty by too little: a gain of .04 or more is not certain.
    little = step(0.06, 0.03, t=0.5)
    no_plan = told | {"plan": Opinion(0.0, -0.1, 0.1), "values": Opinion(0.06, 0.03, 0.09)}
    assert chosen(rows, little, no_plan) == ("keep", None)
    (why,) = choose(rows, little, no_plan, "clone", (-1.0, 1.0)).why
    assert "50% of the way to values, worth 0.06 (0.03 to 0.09)" in why and "gains 0.04 or more" in why
    found = choose(rows, step(0.06, 0.041, t=0.5), no_plan, "clone", (-1.0, 1.0))
    assert (found.word, found.name, found.t) == ("vouched", "values", 0.5)
    assert found.worth is not None and found.worth["low"] == 0.041  # of what is handed over
    # Where nothing can be handed over it is kept, and said why.
    unspoken = choose(rows, little | {"as_run": None}, no_plan, "clone", (-1.0, 1.0))
    assert unspoken.word == "keep" and "50% of the way to values" in unspoken.why[0]
    assert unspoken.why[1] == "why not"
    unsure = [LOGGED, row("plan", 0.9, "cannot tell"), row("clone", 0.0, "vouch")]
    few = {k: told[k] for k in ("plan", "clone")}
    assert chosen(unsure, NONE, few) == ("keep", None)
    # A second model that is wrong about the logged agent itself is believed in nothing.
    wrong = told | {"clone": Opinion(0.3, 0.28, 0.32)}
    assert chosen(rows, safe, wrong) == ("vouched", "values")
    assert "wrong about the logged agent itself" in choose(rows, NONE, wrong, "clone", (-1.0, 1.0)).why[1]
