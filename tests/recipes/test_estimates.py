"""What a policy is worth from logs alone, at both doors; the true values are HelpDesk's."""

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
from turnwise.data.splits.heldout import Split
from turnwise.envs.tasks.helpdesk.exact import behavior_value, policy_value
from turnwise.envs.tasks.helpdesk.logs import behavior_probabilities
from turnwise.envs.tasks.helpdesk.rules import ACTS, PARTS
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.step_curve import StepPath
from turnwise.recipes.estimating.estimators import ESTIMATORS, Others, Sampling, jackknife, spread_of
from turnwise.recipes.estimating.folds import folds_of
from turnwise.recipes.held_out import HeldOut
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Choice, Prefix, draw
from turnwise.rollout.acts.imitation.steps import between
from turnwise.rollout.acts.voice import LoggedVoice

ROWS = list(tw.HelpDesk(acts=True).rows(500, seed=3))
QUICK: dict[str, Any] = {"quiet": True, "resamples": 50, "talks": 20}
BY_HAND = HeldOut(0.0, None, frozenset())
"""of a policy that has learnt from nothing"""


def careful_acts(net: Sequence[int], last: int | None, care: float) -> list[float]:
    """The scripted desk's, with a fix `care` times as probable if its part does not lead by two answers."""
    p = np.array(behavior_probabilities(net, last))
    leads = np.array(net) >= sorted(net)[-2] + 2
    p[4:] *= np.where(leads, 1.0, care)
    return (p / p.sum()).tolist()


class Desk:
    """`careful_acts`, of what was answered so far; with care 1 the desk that wrote the logs."""

    def __init__(self, codes: Codes, care: float = 1.0) -> None:
        self.codes, self.care = codes, care
        self.order = [codes.acts.index(str(act)) for act in ACTS]

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        found = []
        for talk, rng in zip(talks, rngs, strict=True):
            net, last = [0] * 4, None
            for a, o in zip(talk.acts, talk.answers, strict=True):
                part, _, word = self.codes.answers[o].partition(" ")
                if part in PARTS:  # a learnt model may give any answer
                    net[PARTS.index(part)] += 1 if word == "broken" else -1
                last = PARTS.index(self.codes.acts[a].split()[1])
            p = np.zeros(len(self.codes.acts))
            p[self.order] = careful_acts(net, last, self.care)
            found.append(Choice(draw(p, rng), p))
        return found


@pytest.fixture(scope="module")
def codes() -> Codes:
    return build_codes(tw.read_logs(list(tw.HelpDesk(acts=True).rows(300, seed=0)))).codes


def desk(codes: Codes, care: float = 1.0) -> tw.ActPolicy:
    return tw.ActPolicy(ActAgent(codes, Desk(codes, care), LoggedVoice.of(codes.agent)), held=BY_HAND)


def without(rows: Sequence[dict[str, Any]], name: str = "act_logp") -> list[dict[str, Any]]:
    found = []
    for row in rows:
        messages = [{k: v for k, v in m.items() if k != name} for m in row["messages"]]
        found.append({**row, "messages": messages})
    return found


def test_the_behaviour_is_worth_what_the_logs_earned(codes: Codes) -> None:
    """Every weight is 1: every estimate that is made of logs is the mean of the returns, and all
    conversations count in full."""
    logs = tw.read_logs(ROWS)
    found = tw.estimate(desk(codes), logs, **QUICK)
    mean = np.mean([d.undiscounted_return() for d in logs])
    values = {row["name"]: row["value"] for row in found["estimates"]}
    assert {"fqe", "magic"} < set(values)
    for name in ("logs", "is", "wis", "pdis", "wpdis", "dr", "wdr"):
        assert values[name] == pytest.approx(mean, abs=1e-12)
    assert found["support"]["effective"] == pytest.approx(len(ROWS))
    now, worth = found["worth"]["now"], found["worth"]
    assert worth["sure"] == "vouch" and worth["then"]["gain"]["value"] == pytest.approx(0, abs=1e-12)
    assert now["low"] < behavior_value() < now["high"]
    assert found["curve"]["reached"] == 1 and found["behaviour"]["source"] == "logged"
    assert found["lines"][0].startswith("worth now:  ") and not found["warnings"]


def test_a_careful_desk_is_worth_more_known_propensities_or_not(
    codes: Codes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the exact value: within the interval, where propensities are logged. A step of the way is worth
    less than the way, and 0 is the logs. Of estimated propensities calibration and nats are told."""
    careful = desk(codes, 0.3)
    truth = policy_value(lambda net, last, turn: careful_acts(net, last, 0.3))
    known = tw.estimate(careful, ROWS, **QUICK | {"resamples": 400})
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")  # which has no time for a recurrent network
    guessed = tw.estimate(careful, without(ROWS), **QUICK)
    then = known["worth"]["then"]
    assert then["name"] == "wis" and then["low"] < truth < then["high"]
    steps = known["curve"]["steps"]
    values = [row["worth"]["value"] for row in steps]
    assert known["curve"]["way"] == "mixed"
    assert values[0] == pytest.approx(known["worth"]["now"]["value"], abs=1e-12)
    assert values[-1] == pytest.approx(known["worth"]["then"]["value"]) and values[0] < values[6] < values[-1]
    behaviour = guessed["behaviour"]
    assert behaviour["source"] == "estimated" and "five models of it differ" in guessed["warnings"][0]
    assert behaviour["nats"][behaviour["model"]] < known["behaviour"]["logged_nats"] + 0.1
    assert behaviour["calibration_error"] < 0.03
    # The last step is the policy: its interval holds the error of estimated propensities like the estimate's.
    for found in (known, guessed):
        last, lead = found["curve"]["steps"][-1]["worth"], found["worth"]["then"]
        ends = ("low", "high", "error")
        assert [last[k] for k in ends] == pytest.approx([lead[k] for k in ends])
        assert [last["gain"][k] for k in ends] == pytest.approx([lead["gain"][k] for k in ends])
    assert 0 < known["safe"]["t"] <= known["curve"]["reached"] and known["safe"]["worth"]["gain"]["low"] > 0
    parted = known["partings"]
    assert len(parted) > 1 and sum(p["share"] for p in parted) < 1
    assert [p["share"] for p in parted] == sorted((p["share"] for p in parted), reverse=True)


def test_intervals_are_widened_by_what_the_models_of_the_agent_differ() -> None:
    """Half widths join with 1.96 standard deviations as the root of the sum of squares: .3 between values of
    two models is a deviation of .3 / sqrt(2)."""
    half = np.log(0.5)
    mask = np.ones((40, 1), bool)
    won = np.tile([[0.0], [1.0]], (20, 1))
    logp = np.where(won > 0, half, 3 * half)
    logged = Logged(won, mask, 1.0, logp, np.full((40, 1), half))
    weighted = next(e for e in ESTIMATORS if e.name == "wis")
    fairer = replace(logged, behavior_logp=logp)  # all weights are 1: worth 1/2, and else 1 / (1 + 1/4)
    spread = spread_of(weighted, Others(models=(logged, fairer)))
    assert spread == pytest.approx(0.3 / 2**0.5) and spread_of(weighted, Others()) == 0
    drawn = spread_of(weighted, Others(models=(logged, fairer), draws=(fairer, logged, fairer)))
    assert drawn == pytest.approx(np.hypot(spread, jackknife([0.5, 0.8, 0.5])))
    sampling = Sampling((-9.0, 9.0), None, 200, 0)
    plain, wide = (sampling.intervals([weighted.of(logged)], spread=x) for x in (None, [spread]))
    assert wide.high[0] - 0.8 == pytest.approx(np.hypot(plain.high[0] - 0.8, 1.96 * spread))
    assert 0.8 - wide.low[0] == pytest.approx(np.hypot(0.8 - plain.low[0], 1.96 * spread))
    assert wide.errors[0] == pytest.approx(np.hypot(plain.errors[0], spread))
    gone = sampling.intervals([weighted.of(logged)], spread=[np.nan])
    assert (gone.low[0], gone.high[0]) == (-9.0, 9.0)


def test_probabilities_that_are_not_the_agent_s_are_found_out(codes: Codes) -> None:
    """Logged as if every act had .8 of its probability: every weight is 1.25 to the power of the turns."""
    rows, weights = [], []
    for row in ROWS:
        wrong = [
            m | {"act_logp": m["act_logp"] + np.log(0.8)} if "act_logp" in m else m for m in row["messages"]
        ]
        rows.append({**row, "messages": wrong})
        weights.append(1.25 ** sum("act_logp" in m for m in wrong))
    found = tw.estimate(desk(codes), rows, **QUICK)
    assert found["support"]["mean_weight"]["value"] == pytest.approx(np.mean(weights))
    assert found["verdict"]["word"] == found["worth"]["sure"] == "cannot tell"
    assert found["worth"]["why"][0].startswith("Weights average")


def test_some_propensities_are_estimated_where_they_are_missing(
    codes: Codes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of 50 conversations. A rehearsal has no time for a recurrent network."""
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    rows = [*without(ROWS[:50]), *ROWS[50:]]
    found = tw.estimate(desk(codes), rows, **QUICK)
    turns = sum(m["role"] == "assistant" for r in ROWS[:50] for m in r["messages"])
    assert (found["behaviour"]["source"], found["behaviour"]["missing"]) == ("partly logged", turns)
    assert f"{turns:,} of " in found["warnings"][0] and repr(ROWS[0]["id"]) in found["warnings"][0]


def test_what_was_learnt_from_is_left_out_or_marked(codes: Codes) -> None:
    logs = tw.read_logs(ROWS)
    held = HeldOut.after(0.3, None, Split(logs[:300], logs[300:]))
    policy = replace(desk(codes), held=held)
    found = tw.estimate(policy, logs, **QUICK)
    assert found["conversations"] == 200 and "300 conversations are left out" in found["warnings"][0]
    kept = tw.estimate(policy, logs, learnt="keep", **QUICK)
    assert kept["conversations"] == 500 and "300 of 500" in kept["warnings"][0]
    assert kept["verdict"]["word"] == "vouch" and kept["worth"]["sure"] == "cannot tell"
    with pytest.raises(tw.InputError, match="has learnt from all 40 conversations"):
        tw.estimate(policy, logs[:40], **QUICK)
    logs = logs[:30]
    unknown = tw.estimate(replace(policy, held=None), logs, **QUICK)
    assert "nobody knows what the policy learnt from" in unknown["warnings"][0]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([], {}, "expected at least one conversation"),
        (without(ROWS[:30], "reward"), {}, "found neither in 30 conversations"),
        (
            ROWS[:30],
            {"cluster": "customer"},
            "customer.*a column of every conversation; 'h-000001'",
        ),
        (ROWS[:30], {"highest": 0.5}, "no narrower range than was logged"),
        (ROWS[:30], {"learnt": "drop"}, "leave-out"),
        (ROWS[:30], {"discount": 1.5}, "a number from 0 to 1"),
    ],
)
def test_what_cannot_be_estimated_is_said(codes: Codes, rows: Any, settings: Any, message: str) -> None:
    with pytest.raises(tw.InputError, match=message):
        tw.estimate(desk(codes), rows, **{**QUICK, **settings})


def test_propensities_that_are_none_are_named_by_conversation(codes: Codes) -> None:
    """Of values in memory, which pass no parser."""
    logs = list(tw.read_logs(ROWS[:30]))
    for wrong in (0.01, -np.inf):
        messages = [replace(m, act_logp=wrong) if m.act_logp else m for m in logs[3].messages]
        given = [*logs[:3], replace(logs[3], messages=tuple(messages))]
        with pytest.raises(tw.InputError, match="'h-000004', message 1 of the agent: act_logp: expected"):
            tw.estimate(desk(codes), given, **QUICK)


def test_of_one_conversation_nothing_can_be_told(codes: Codes) -> None:
    found = tw.estimate(desk(codes), ROWS[:1], **QUICK)
    assert found["worth"]["sure"] == "cannot tell" and "but one conversation" in found["worth"]["why"][0]
    json.dumps(found, allow_nan=False)


def test_groups_and_clusters(codes: Codes) -> None:
    """Four faults, some 125 conversations each; pairs of conversations with one customer are half as many."""
    rows = [{**r, "customer": i // 2} for i, r in enumerate(ROWS)]
    found = tw.estimate(desk(codes, 0.5), rows, by="fault", cluster="customer", **QUICK)
    assert {g["value"] for g in found["groups"]} == set(PARTS)
    assert sum(g["conversations"] for g in found["groups"]) == len(ROWS)
    assert found["support"]["conversations"] == 250 and found["support"]["unit"] == "cluster"
    parts = folds_of(500, np.arange(500) // 2, 0)
    assert (parts[::2] == parts[1::2]).all() and np.bincount(parts).tolist() == [100] * 5
    assert not folds_of(19, None, 0).any()


def test_steps_are_the_path_s(codes: Codes) -> None:
    """`between` is `StepPath` at one prefix each."""
    rng = np.random.default_rng(0)
    before, policy = rng.dirichlet(np.ones(4), 6), rng.dirichlet(np.ones(4), 6)
    policy[0] = [0, 0.5, 0.5, 0]
    for way in ("tilted", "mixed"):
        with np.errstate(divide="ignore"):
            path = StepPath(np.log(before)[:, None], np.log(policy)[:, None], np.ones((6, 1), bool), way)
        for t in (0.0, 0.3, 1.0):
            got = between(before, policy, np.full(6, t), way)
            np.testing.assert_allclose(got, np.exp(path.at(t))[:, 0], atol=1e-12)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run of a plan, and logs that it has not seen but for 20 conversations."""
    folder = tmp_path_factory.mktemp("estimates")
    (folder / "logs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[180:400]))
    quick = {"states": 4, "smoothing": 1.0, "resamples": 1, "starts": 1, "iterations": 10, "trials": 2}
    config = tw.LearntPomdp(**quick, longest=8, simulations=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TURNWISE_REHEARSAL", "1")
        tw.fit(config, ROWS[:200], out=folder / "run", heldout=0.0, quiet=True)
    return folder / "run", folder / "logs.jsonl"


def test_a_plan_is_promised_by_its_models_and_the_command_line_says_the_same(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture
) -> None:
    """A plan is far from the logs: these never vouch for it."""
    run, logs = files
    words = ["evaluate", str(run), "--logs", str(logs), "--resamples", "50", "--talks", "20", "--json"]
    assert main(words) == 0
    captured = capsys.readouterr()
    typed = json.loads(captured.out)
    assert "worth then" in captured.err and "20 conversations are left out" in captured.err
    called = tw.estimate(run, logs, **QUICK)
    assert typed.pop("report") == str(run / "report.html") and (run / "report.html").is_file()
    assert typed == {k: v for k, v in called.items() if k != "lines"}
    assert json.loads((run / "estimate.json").read_text()) == called
    assert {row["name"] for row in called["estimates"]} >= {"logs", "wpdis", "wdr", "magic", "direct"}
    assert called["worth"]["sure"] != "vouch" and called["conversations"] == 200
    first = called["curve"]["steps"][0]
    assert first["promised"]["low"] < first["promised"]["high"]
    assert first["worth"]["value"] == pytest.approx(called["worth"]["now"]["value"])


def test_another_policy_is_promised_by_the_models_of_a_plan(files: tuple[Path, Path]) -> None:
    """The careful desk in models of 200 conversations; and models of other acts promise nothing."""
    plan = tw.load(files[0])
    assert isinstance(plan, tw.ActPolicy)
    codes = plan.agent.codes
    found = tw.estimate(desk(codes, 0.3), files[1], model=plan, **{**QUICK, "talks": 200})
    assert found["conversations"] == 200
    direct = next(row for row in found["estimates"] if row["name"] == "direct")
    truth = policy_value(lambda net, last, turn: careful_acts(net, last, 0.3))
    assert direct["low"] - 0.3 < truth < direct["high"] + 0.3
    other = replace(codes, opening=codes.partner)
    with pytest.raises(tw.InputError, match="its openings are not those of"):
        tw.estimate(desk(other), files[1], model=plan, **QUICK)
    with pytest.raises(tw.InputError, match="expected a plan in learnt models"):
        tw.estimate(desk(codes), files[1], model=desk(codes), **QUICK)
