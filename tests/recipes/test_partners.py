"""Partners from logs at both doors: learnt, talked with, learnt with, and measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.envs.dialogue import Message
from turnwise.recipes.tasks import find_task
from turnwise.rollout.acts.partners import LivePartner
from turnwise.rollout.partners.fitted_task import FittedTask

THINGS = ("lamp", "fan", "door")
PARTNER = tw.Partner(epochs=10, batch_size=16, optimizer=tw.AdamW(lr=5e-3, warmup=0.1))
# Two layers: whether the thing that is named is the one that was asked after takes two looks back.
TINY: dict[str, Any] = {"quiet": True, "width": 48, "layers": 2, "vocab": 330, "context": 128}
N = 900


def rows(n: int, seed: int = 0, *, dealt: bool = False) -> list[dict[str, Any]]:
    """One of three things is broken; the agent asks after one, is told, and names one: 1 if it is right.

    A question costs .1, a wrong name 1. `dealt`: half of the customers' answers are turned round.
    """
    rng, found = np.random.default_rng(seed), []
    for i in range(n):
        broken, asked, named = (int(x) for x in rng.integers(3, size=3))
        if asked == broken and rng.random() < 0.7:
            named = broken
        answer = "yes it is" if (asked == broken) != dealt * (rng.random() < 0.5) else "no it works"
        right = named == broken
        messages = [
            ("user", ["good day", "hello"][int(rng.integers(2))], "greeting", None),
            ("assistant", f"is it the {THINGS[asked]}", f"ask {THINGS[asked]}", -0.1),
            ("user", answer, answer.split()[0], None),
            ("assistant", f"then the {THINGS[named]}", f"name {THINGS[named]}", 1.0 if right else -1.0),
            ("user", "thank you" if right else "oh no", "thanks" if right else "sighs", None),
        ]
        said = [
            {"role": role, "content": text, "act": act} | ({} if reward is None else {"reward": reward})
            for role, text, act, reward in messages
        ]
        found.append({"id": f"t-{i}", "messages": said, "terminated": True, "broken": THINGS[broken]})
    return found


APART: dict[str, Any] = {"heldout_logs": rows(300, seed=5)}


def both(*, dealt: bool = False) -> list[dict[str, Any]]:
    """What was learnt from, and 200 other talks."""
    return [*rows(N, dealt=dealt), *({**row, "id": f"o{row['id']}"} for row in rows(200, seed=7))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A partner, a clone of the agent, codebooks and a clone of acts, as runs."""
    out = tmp_path_factory.mktemp("partners")
    # Few sentences, so that many talks have twins: what is held out is other talks, and not unheard ones.
    logs = out / "logs.jsonl"
    logs.write_text("".join(json.dumps(r) + "\n" for r in rows(N)), encoding="utf-8")
    tw.fit(PARTNER, str(logs), out=out / "partner", **APART, **TINY)
    tw.fit(tw.BC(epochs=8, batch_size=32), str(logs), out=out / "bc", **TINY)
    tw.fit(tw.Acts(), str(logs), out=out / "acts", quiet=True)
    tw.fit(tw.ActBC(epochs=8), str(logs), acts=out / "acts", out=out / "act-bc", width=16, quiet=True)
    return out


def test_it_has_learnt_what_can_be_known(folder: Path):
    """The thanks tell the reward and the end: R2 near 1 and few nats. Words cost what chance decides: the
    greeting ln 2 = .69, the answer H(1/3) = .64, and the thanks ln 2 where the answer was no and another
    thing is named, which is 4 times in 9: .31. That is .55 a message."""
    told = tw.load(folder / "partner").result["told"]
    assert told["reward"]["turn"]["mean"] > 0.9 and told["end"]["partner"]["mean"] < 0.05
    assert told["message"]["partner"]["mean"] < 0.66 < told["message"]["unigram"]["mean"]
    assert told["end"]["share"]["mean"] == pytest.approx(-np.log(1 / 3) / 3 - 2 * np.log(2 / 3) / 3, abs=0.02)


def test_it_is_a_task_wherever_one_is_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]):
    """In Python by itself and by its folder, at the command line by --partner: the same talks and mean.

    It stands beside what the logs earned, and is not the task of the logs."""
    partner, policy = tw.load(folder / "partner"), tw.load(folder / "bc")
    assert isinstance(partner, tw.Counterpart)
    asked = {"episodes": 60, "quiet": True}
    mine = tw.evaluate(policy, partner, **asked)
    assert tw.evaluate(policy, str(folder / "partner"), **asked).mean == mine.mean
    args = [
        "evaluate",
        str(folder / "bc"),
        "--partner",
        str(folder / "partner"),
        "--episodes",
        "60",
        "--json",
    ]
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mean"] == mine.mean and not found["same_task"]
    logged = np.mean([sum(m.get("reward", 0) for m in r["messages"]) for r in rows(N)])
    (known,) = [r for r in found["references"] if r["name"] == "its logs"]
    assert known["mean"] == pytest.approx(logged, abs=0.1) and known["low"] < known["mean"] < known["high"]
    # The clone of the agent earns with the clone of the customer what both earned in the logs: -0.22 +- .3.
    assert abs(mine.mean - logged) < 0.5
    assert isinstance(find_task(folder / "partner").live().task, FittedTask)  # type: ignore[attr-defined]
    assert main([*args, "--task", "helpdesk"]) == 2
    assert "--partner" in capsys.readouterr().err


def test_acts_learn_with_it_and_failed_talks_leave_the_batch(folder: Path):
    """Who names what was said to be broken earns more than the clone: a third of the customers say yes at the
    first question, and then it is certain. A partner that never stops fails all talks, in so many words."""
    clone = tw.load(folder / "act-bc")
    agent = tw.fit(
        tw.ActPPO(talks=4000, batch=200), folder / "partner", policy=clone, out=folder / "ppo", quiet=True
    )  # fmt: skip
    before, after = (
        tw.evaluate(x, folder / "partner", episodes=400, quiet=True).mean for x in (clone, agent)
    )
    assert after > before + 0.2
    assert agent.task == str(folder / "partner")  # these logs name no task, so that the partner is it
    # It has learnt from what its partner has: all of the logs. The clone has learnt from nearly all.
    known = tw.load(folder / "partner").held
    assert len(agent.held.learnt) == len(known.learnt) > len(clone.held.learnt)
    metrics = [json.loads(x) for x in (folder / "ppo" / "metrics.jsonl").read_text().splitlines()]
    live = LivePartner(find_task(folder / "partner").live(), clone.agent, clone.agent.chooser)
    episodes, left_out = live.talks(clone.agent.chooser.module, 200, (0, 0))
    assert len(episodes) + left_out == 200 and left_out < 60
    assert metrics[-1].get("left_out", 0) < 600
    broken = tw.load(folder / "partner")
    object.__setattr__(broken.fitted.acting, "max_new_tokens", 1)
    with pytest.raises(
        tw.InputError, match="nothing can be learnt from any of 40 conversations: the partner"
    ):
        tw.fit(tw.ActPPO(talks=40, batch=40), broken, policy=clone, quiet=True)


def test_a_plans_models_answer_whoever_talks(folder: Path, capsys: pytest.CaptureFixture[str]):
    """Three hidden states are all there is, so that a clone of words earns with the models what it earns with
    true customers: it is the logged agent, and earned what the logs did. No sentence is made up."""
    few = {"starts": 1, "iterations": 60, "resamples": 0, "trials": 60, "simulations": 100}
    logs, given = str(folder / "logs.jsonl"), {"acts": folder / "acts", "estimate": False, "quiet": True}
    plan = tw.fit(tw.LearntPomdp(states=3, **few), logs, out=folder / "plan", **given)
    args = ["evaluate", str(folder / "bc"), "--partner", str(folder / "plan"), "--episodes", "400", "--json"]
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    logged = np.mean([sum(m.get("reward", 0) for m in r["messages"]) for r in rows(N)])
    assert found["low"] - 0.1 < logged < found["high"] + 0.1 and found.get("failed", 0) < 20
    heard = {m["content"] for r in rows(N) for m in r["messages"] if m["role"] == "user"}
    task = find_task(plan).live()
    assert {o[-1].content for o in task.reset(range(50), range(50))} <= heard
    assert {r.messages[0].content for r in task.step(range(50), ["is it the fan"] * 50)} == {
        "yes it is",
        "no it works",
    }


def test_a_language_model_takes_over_a_plan(folder: Path):
    """What the plan and its models said to each other is logs like any others.

    The logged agent names the right thing with .8 if it asked after that one, else with 1/3: .49 in all,
    which is -.12 with the question's cost. Who listens is sure a third of the time and else right half of it:
    2/3, which is .23. The clone of what the plan said does that."""
    few = {"starts": 1, "iterations": 60, "resamples": 0, "trials": 60, "simulations": 100}
    given: dict[str, Any] = {"acts": folder / "acts", "estimate": False, "quiet": True}
    plan = tw.fit(tw.LearntPomdp(states=3, **few), str(folder / "logs.jsonl"), out=folder / "plan2", **given)
    talked = tw.write_talk(plan, plan, folder / "talk.jsonl", conversations=N, quiet=True)
    logs = tw.read_logs(folder / "talk.jsonl")
    returns = [d.undiscounted_return() for d in logs]
    assert talked.conversations == len(logs) == N - talked.failed and talked.failed < N / 20
    assert talked.mean == pytest.approx(np.mean(returns)) and talked.low < talked.mean < talked.high
    assert {d.metadata["spoken_by"] for d in logs} == {str(folder / "plan2")}
    assert all(m.act is not None for d in logs for m in d.turns)
    clone = tw.fit(tw.BC(epochs=8, batch_size=32), logs, out=folder / "taken", **TINY)
    old, new = (tw.evaluate(x, plan, episodes=400, quiet=True) for x in (folder / "bc", clone))
    assert new.low > old.high + 0.1
    assert abs(new.mean - talked.mean) < 0.15


def test_spoken_logs_are_the_talks_of_an_evaluation(folder: Path, capsys: pytest.CaptureFixture[str]):
    """The same seed has the same talks, however many are held at a time; both doors write the same file."""
    mine = tw.evaluate(folder / "bc", folder / "partner", episodes=60, quiet=True)
    args = ["data", "talk", str(folder / "bc"), str(folder / "spoken.jsonl"), "--conversations", "60"]
    args += ["--partner", str(folder / "partner")]
    assert main([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mean"] == mine.mean and found["conversations"] == 60 - found["failed"]
    said = (folder / "spoken.jsonl").read_bytes()
    tw.write_talk(
        folder / "bc", folder / "partner", folder / "again.jsonl", conversations=60, lanes=2, quiet=True
    )
    few, many = (
        [[m.content for m in d.messages] for d in tw.read_logs(folder / name)]
        for name in ("again.jsonl", "spoken.jsonl")
    )
    assert few == many
    one = tw.write_talk(
        folder / "act-bc", folder / "partner", folder / "one.jsonl", conversations=1, quiet=True
    )
    assert one.low is None and str(one).endswith(f"mean return {one.mean:.4g}")
    refused = (
        ([], "expected a new file; found one that exists"),
        (["--overwrite", "--task", "helpdesk"], "--partner"),
        (["--overwrite", "--temperature", "-1"], "--temperature"),
        (["--overwrite", "--run", str(folder / "nowhere")], "nowhere"),
        (["--overwrite", "--out", "x.csv"], "expected a name that ends in .jsonl"),
    )
    for more, message in refused:
        first = args[:2] if "--run" in more or "--out" in more else args[:4]
        if "--run" in more:
            first = [*first, "--out", args[3]]
        elif "--out" in more:
            first = [*first, "--run", args[2]]
        assert main([*first, *args[4:], *more]) == 2
        assert message in capsys.readouterr().err
    assert (folder / "spoken.jsonl").read_bytes() == said
    acts = [*args[:2], str(folder / "act-bc"), str(folder / "x.jsonl"), *args[4:], "--temperature", "0.5"]
    assert main(acts) == 2 and "--temperature" in capsys.readouterr().err
    broken = tw.load(folder / "partner")
    object.__setattr__(broken.fitted.acting, "max_new_tokens", 1)
    with pytest.raises(tw.InputError, match="failed in all 20 conversations: nothing is written"):
        tw.write_talk(folder / "bc", broken, folder / "x.jsonl", conversations=20, quiet=True)
    assert not (folder / "x.jsonl").exists()


def test_how_good_it_is_and_that_dealt_answers_are_told(folder: Path, capsys: pytest.CaptureFixture[str]):
    """Measured on 200 other talks: the answers of one that learnt from dealt answers cost more nats, of words
    and of acts, and are told from logged ones more easily."""
    found = {}
    for kind in ("partner", "dealt"):
        if kind == "dealt":
            tw.fit(PARTNER, rows(N, dealt=True), out=folder / "dealt", **APART, **TINY)
        logs = folder / f"measured-{kind}.jsonl"
        logs.write_text("".join(json.dumps(r) + "\n" for r in both(dealt=kind == "dealt")), encoding="utf-8")
        args = ["evaluate", str(folder / kind), "--logs", str(logs), "--acts", str(folder / "acts")]
        assert (
            main([*args, "--policy", str(folder / "bc"), "--talks", "150", "--samples", "16", "--json"]) == 0
        )
        found[kind] = json.loads(capsys.readouterr().out)
        assert json.loads((folder / kind / "partner_quality.json").read_text()) == found[kind]
    good, bad = found["partner"], found["dealt"]
    assert good["held_out"] == 200 and len(good["lines"]) == 7
    assert good["telling"]["message"]["partner"]["high"] < bad["telling"]["message"]["partner"]["mean"]
    assert good["answers"]["nats"]["partner"]["mean"] < bad["answers"]["nats"]["partner"]["mean"]
    assert good["answers_test"]["auc"] < bad["answers_test"]["auc"]
    assert good["talks_test"]["failed"] < 20


def test_the_true_task_beside_it(folder: Path):
    """Policies and a task go together; the same names, the same number of conversations in both."""
    partner = tw.load(folder / "partner")
    with pytest.raises(tw.SettingError, match="a true task and policies to compare in it, or neither"):
        tw.evaluate(partner, both(), task="helpdesk", quiet=True)
    policies = [folder / "bc", folder / "act-bc"]
    found = tw.evaluate(
        partner, both(), policies=policies, task="helpdesk", episodes=30, quiet=True
    )  # fmt: skip
    down = found.result["downstream"]
    assert [Path(row["policy"]).name for row in down["policies"]] == ["bc", "act-bc"] and down["rank"] is None
    assert down["error"] >= abs(down["bias"])
    assert found.score == "nats a message" and found.low < found.mean < found.high


def test_facts_are_the_partners_alone(folder: Path):
    """With what is broken as a fact, answers are certain: ln 2 a greeting and nothing else, .23 a message.

    Scenes are the three facts, and no opening tells."""
    partner = tw.fit(
        PARTNER, rows(N), facts=("broken",), out=folder / "facts", **APART, **TINY
    )  # fmt: skip
    scenes = partner.fitted.scenes
    assert {tuple(s.facts.items()) for s in scenes.scenes} == {(("broken", t),) for t in THINGS}
    blind = tw.load(folder / "partner").result["told"]["message"]["partner"]["mean"]
    assert partner.result["told"]["message"]["partner"]["mean"] < blind
    live = partner.live()
    (opening,) = live.reset([0], [3])
    assert live.hidden(0)["broken"] in THINGS and [m.role for m in opening] == ["user"]
    with pytest.raises(tw.SettingError, match="facts is 'fault'; expected columns of the logs: broken"):
        tw.fit(tw.Partner(), rows(20), facts=("fault",), **TINY)


def test_logs_that_cannot_teach_a_partner_are_refused():
    bare = rows(9)
    for message in (m for row in bare for m in row["messages"]):
        message.pop("reward", None)
    with pytest.raises(tw.InputError, match="expected an outcome of conversations"):
        tw.fit(tw.Partner(), bare, quiet=True)
    said = [{"role": "assistant", "content": "hi", "reward": 1.0}]
    alone = [{"messages": said, "terminated": False} for _ in range(9)]
    with pytest.raises(tw.InputError, match="nobody but the agent speaks"):
        tw.fit(tw.Partner(), alone, quiet=True, heldout=0.0)


def test_a_partner_is_no_policy(folder: Path):
    with pytest.raises(tw.InputError, match="expected"):
        tw.fit(tw.MC(), rows(20), policy=folder / "partner", quiet=True)
    with pytest.raises(tw.SettingError, match=r"policy is .*; expected the run of a policy that converses"):
        tw.evaluate(tw.load(folder / "partner"), both(), policy=folder / "acts", quiet=True)
    assert Message("user", "x").reward == 0.0
