"""The safe step as a run: it talks, is saved and loaded, and is worth what the curve says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.data.acts.build import build_codes
from turnwise.data.acts.talks import ActLogs, Codes
from turnwise.evaluation.measures.exchange_network import exchange_network
from turnwise.evaluation.measures.exchanges import exchange_acts
from turnwise.evaluation.pages.report import page_of
from turnwise.recipes.held_out import HeldOut
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import LoggedActs, Prefix, logged_acts
from turnwise.rollout.acts.files import load_act_agent, save_act_agent
from turnwise.rollout.acts.imitation.frequencies import timed_acts
from turnwise.rollout.acts.imitation.steps import StepChooser, step_of, towards
from turnwise.rollout.acts.logged import chances
from turnwise.rollout.acts.voice import LoggedVoice
from turnwise.run.errors import InputError, SettingError

QUICK: dict[str, Any] = {"quiet": True, "resamples": 50}
SEEN = [Prefix.of(0), Prefix.of(0, [1], [1]), Prefix.of(0, [1, 0], [1, 2])]


def rows_of(n: int, seed: int, *, logged: bool, turns: int = 5) -> list[dict[str, Any]]:
    """Turns in each of which `win` pays 1 and `lose` nothing: both as often, but after a loss three of four
    lose again."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        messages: list[dict[str, Any]] = [{"role": "user", "content": f"case {i % 7}", "act": "ask"}]
        p = 0.5
        for k in range(turns):
            won = rng.random() < p
            word = "win" if won else "lose"
            turn = {"role": "assistant", "content": word, "act": word, "reward": float(won)}
            if logged:
                turn["act_logp"] = float(np.log(p if won else 1 - p))
            messages.append(turn)
            if k < turns - 1:
                messages.append({"role": "user", "content": "go on", "act": "more"})
            p = 0.5 if won else 0.25
        rows.append({"id": f"c{seed}-{i}", "messages": messages})
    return rows


@pytest.fixture(scope="module")
def codes() -> Codes:
    return build_codes(tw.read_logs(rows_of(60, 0, logged=False), quiet=True)).codes


def fixed(codes: Codes, p: float) -> tw.ActPolicy:
    """It says `win` with probability p, whatever it hears."""
    row = np.array([p if name == "win" else 1 - p if name == "lose" else 0.0 for name in codes.acts])
    choices = LoggedActs(np.tile(row, (len(codes.openings), 1)), np.tile(row, (len(codes.answers), 1)))
    agent = ActAgent(codes, choices, LoggedVoice.of(codes.agent), choices)
    return tw.ActPolicy(agent, held=HeldOut(0.0, None, frozenset()))


def talks_of(codes: Codes) -> ActLogs:
    return codes.talks(tw.read_logs(rows_of(200, 4, logged=False), quiet=True))


@pytest.mark.parametrize("way", ["mixed", "tilted"])
def test_a_step_lies_between_clone_and_policy(codes: Codes, way: Any) -> None:
    """By hand: of .5 and .9 a quarter of the way is .6; the geometric mean is .5^.75 .9^.25 over the sum."""
    half, nine = fixed(codes, 0.5).agent, fixed(codes, 0.9).agent
    step = step_of(nine, (half.chooser, half.chooser), 0.25, way)
    win = codes.acts.index("win")
    good, bad = 0.5**0.75 * 0.9**0.25, 0.5**0.75 * 0.1**0.25
    expected = 0.6 if way == "mixed" else good / (good + bad)
    rngs = [np.random.default_rng(i) for i in range(4000)]
    drawn = step.chooser.choose([SEEN[1]] * len(rngs), rngs)
    assert drawn[0].probabilities is not None
    assert drawn[0].probabilities[win] == pytest.approx(expected)
    assert np.mean([c.act == win for c in drawn]) == pytest.approx(expected, abs=0.03)  # 4 standard errors
    if way == "mixed":
        assert np.mean([c.trace["chosen_by"] == "policy" for c in drawn]) == pytest.approx(0.25, abs=0.03)
    assert towards(step).chooser is nine.chooser and towards(step).fallback is nine.fallback
    for wrong in (-0.1, 1.5):
        with pytest.raises(ValueError, match="expected a number from 0 to 1"):
            step_of(nine, (half.chooser,), wrong, way)


def test_every_clone_is_saved_and_loaded(codes: Codes, tmp_path: Path) -> None:
    """The same probabilities from the folder, of each kind of clone, and of a step towards a step."""
    logs = talks_of(codes)
    talks = logs.talks
    clones = (logged_acts(logs), timed_acts(logs), exchange_acts(logs, talks), exchange_network(logs, talks))
    agent = step_of(fixed(codes, 0.9).agent, clones, 0.3, "mixed")
    again = step_of(agent, clones[:1], 0.5, "tilted")
    for i, made in enumerate((agent, again)):
        save_act_agent(made, tmp_path / str(i))
        loaded = load_act_agent(tmp_path / str(i))
        p, q = (chances(x.chooser, SEEN, len(codes.acts)) for x in (made, loaded))
        assert q == pytest.approx(p, abs=1e-12) and np.ptp(p[:, codes.acts.index("win")]) > 0.01
        assert isinstance(loaded.fallback, StepChooser)
    (tmp_path / "0" / "before-1" / "counts.npz").unlink()
    with pytest.raises(InputError, match="before-1"):
        load_act_agent(tmp_path / "0")


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is trained to say what the logged agent would do: frequencies and a regression are."""
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")


@pytest.mark.usefixtures("rehearsed")
@pytest.mark.parametrize("way", ["mixed", "tilted"])
def test_the_run_is_worth_what_the_curve_says_of_the_step(codes: Codes, tmp_path: Path, way: Any) -> None:
    """Where propensities are estimated, the clone is what weights are made of: to the last digit. The run has
    learnt from the logs, which must be said to ask them again."""
    rows, out = rows_of(200, 1, logged=False), tmp_path / "safe"
    found = tw.estimate(fixed(codes, 0.95), rows, safe=out, way=way, **QUICK)
    t = found["safe"]["t"]
    assert 0 < t < 1 and found["safe"]["run"] == str(out) and found["safe"]["as_run"]["t"] == t
    row = next(row for row in found["curve"]["steps"] if row["t"] == t)
    again = tw.estimate(out, rows, learnt="keep", **QUICK)
    assert again["worth"]["then"]["value"] == pytest.approx(row["worth"]["value"], abs=1e-9)
    assert again["worth"]["then"]["gain"]["value"] == pytest.approx(row["worth"]["gain"]["value"], abs=1e-9)
    assert again["learnt_from"]["kept"] == 200 and again["worth"]["sure"] != "vouch"
    with pytest.raises(InputError, match="has learnt from all 200 conversations"):
        tw.estimate(out, rows, **QUICK)
    fresh = tw.estimate(out, rows_of(200, 2, logged=False), **QUICK)
    assert fresh["learnt_from"]["left_out"] == 0 and fresh["worth"]["then"]["gain"]["value"] > 0


@pytest.mark.usefixtures("rehearsed")
def test_with_logged_propensities_it_says_what_the_clone_changes(codes: Codes, tmp_path: Path) -> None:
    """A step from the clone is another policy than one from the agent itself, and is asked about as such."""
    rows, out = rows_of(200, 1, logged=True), tmp_path / "safe"
    better = fixed(codes, 0.95)
    found = tw.estimate(better, rows, safe=out, **QUICK)
    safe = found["safe"]
    t, worth = safe["as_run"]["t"], safe["as_run"]["worth"]
    assert 0 < t < 1 and worth["gain"]["low"] > 0
    row = next(row for row in found["curve"]["steps"] if row["t"] == t)
    assert worth["value"] == pytest.approx(row["worth"]["value"], abs=0.1) and worth != row["worth"]
    loaded = tw.load(out)
    assert isinstance(loaded, tw.ActPolicy) and isinstance(loaded.agent.chooser, StepChooser)
    messages = [{"role": "user", "content": "case 1"}]
    said = [loaded.reply(messages, seed=i) for i in range(200)]
    assert set(said) == {"win", "lose"} and said[0] == loaded.reply(messages, seed=0)
    shown = page_of(out)
    assert "200" in shown.values["step"]["said"] and "clone" in shown.values["step"]["who"]
    told = json.loads((out / "step.json").read_text())
    assert told["of"] == "a policy in memory" and told["t"] == t and told["worth"] == worth


@pytest.mark.usefixtures("rehearsed")
def test_nothing_is_written_where_nothing_is_safe(
    codes: Codes, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A worse policy: the agent that is there is the safe choice. A folder that holds something is refused
    before any work."""
    rows, out = rows_of(200, 1, logged=True), tmp_path / "safe"
    found = tw.estimate(fixed(codes, 0.3), rows, safe=out, **QUICK)
    assert found["safe"]["t"] == 0 and found["safe"]["run"] is None and not out.exists()
    assert any("nothing is written" in line for line in found["lines"])
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(SettingError, match=r"safe is .* expected a new folder; this one holds other files"):
        tw.compare([fixed(codes, 0.7)], rows, safe=out, **QUICK)
    run, logs = tmp_path / "run", tmp_path / "logs.jsonl"
    run.mkdir()
    logs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["evaluate", str(run), "--logs", str(logs), "--safe", str(out)]) == 2
    assert "--safe" in capsys.readouterr().err


@pytest.mark.usefixtures("rehearsed")
def test_the_safe_choice_of_several_is_written_at_the_command_line(
    codes: Codes, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Runs from their folders; the choice is taken by `evaluate` and `compare` like any other."""
    names = []
    for name, p in (("good", 0.95), ("bad", 0.1)):
        save_act_agent(fixed(codes, p).agent, tmp_path / name)
        names.append(str(tmp_path / name))
    logs, others = tmp_path / "logs.jsonl", tmp_path / "others.jsonl"
    for file, seed in ((logs, 1), (others, 2)):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows_of(200, seed, logged=True)))
    out = tmp_path / "safe"
    words = ["--resamples", "50", "--json"]
    assert main(["compare", *names, "--logs", str(logs), "--safe", str(out), *words]) == 0
    printed = capsys.readouterr()
    safe = json.loads(printed.out)["safe"]
    assert safe["name"] == names[0] and safe["run"] == str(out) and f"written:    {out}" in printed.err
    assert main(["compare", str(out), *names, "--logs", str(others), *words]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows[str(out)]["worse"] < 0.5 < rows[names[1]]["worse"]


@pytest.mark.usefixtures("rehearsed")
def test_a_policy_that_is_safe_itself_is_written_as_it_is(codes: Codes, tmp_path: Path) -> None:
    """With the whole way vouched for and the best: no clone, and nothing more has been learnt from."""
    out = tmp_path / "safe"
    policy = fixed(codes, 0.55)
    found = tw.estimate(policy, rows_of(200, 1, logged=True), safe=out, **QUICK)
    assert found["safe"]["t"] == 1 and found["safe"]["as_run"]["t"] == 1
    loaded = tw.load(out)
    assert isinstance(loaded, tw.ActPolicy) and not isinstance(loaded.agent.chooser, StepChooser)
    assert loaded.held is not None and not loaded.held.learnt
    assert replace(loaded.held, share=0.0) == policy.held
