"""Plans in a POMDP learnt from logs: what a run is given, what it writes, and what it says of odd logs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.algorithms.acts import pomdp
from turnwise.data.acts.build import build_codes
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.exact.files.pomdp import read_pomdp
from turnwise.exact.learning.choose import moving, staying
from turnwise.exact.learning.climb import Notes
from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.sequences import Sequences
from turnwise.recipes.training.acts.plans import plan_of, states_note

QUICK = pomdp.Config(
    states=4, smoothing=1.0, starts=1, iterations=20, resamples=1, trials=5, simulations=30, least=1
)


def rows(n: int, seed: int = 1) -> list[dict[str, Any]]:
    return list(HelpDesk(acts=True).rows(n, seed))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plan") / "run"
    tw.fit(QUICK, rows(200), out=out, quiet=True, heldout=0.1)
    return out


def test_a_run_speaks_and_is_loaded_again(run: Path) -> None:
    """The agent from the folder says what was trained, and its words are those of the logs."""
    policy = tw.load(run)
    assert isinstance(policy, tw.ActPolicy)
    said = policy.reply([{"role": "user", "content": "Hello, it is broken."}], seed=3)
    assert said == tw.load(run / "policy").reply(
        [{"role": "user", "content": "Hello, it is broken."}], seed=3
    )
    assert said in {m["content"] for row in rows(200) for m in row["messages"] if m["role"] == "assistant"}
    found = policy.result
    assert found["states"] == 4 and found["longest"] == 8
    predicted = found["worth"][0]
    assert predicted["role"] == "predicted" and predicted["low"] <= predicted["mean"] <= predicted["high"]
    assert found["bounds"]["lower"] <= found["bounds"]["upper"]


def test_an_evaluation_stands_beside_what_was_predicted(run: Path) -> None:
    found = tw.evaluate(run, episodes=40, quiet=True)
    assert found.result["turns_as_acts"]["read_back"]["value"] == 1
    assert "this plan, in models of the logs" in (run / "report.html").read_text(encoding="utf-8")
    promised, predicted = found.result["promised"], tw.load(run).result["worth"][0]  # type: ignore[union-attr]
    assert promised["value"] == pytest.approx(predicted["mean"])
    assert promised["interval"] == [predicted["low"], predicted["high"]]
    assert promised["over"] == pytest.approx(predicted["mean"] - found.mean)
    assert promised["low"] <= promised["over"] <= promised["high"] and "at_opening" in promised


def test_the_time_of_a_run_is_estimated_from_what_em_mostly_takes() -> None:
    """At most: 2 x 6 x 150 of the starts and 3 x 150 of splits; 3 x 150 of each of 4 larger numbers (12 to
    32), of 11 that stay (2 to 64) and of 17 kinds with phases; 40 sizes, 5 strengths and the last climb of
    300 each, and 4 resamples of 60. Typical is .4 of 2,250, .25 of 14,400 and .1 of 14,040. The trial is one
    start of few states, the splits, and two iterations of each of 14 climbs."""
    logs = tw.read_logs(rows(30))
    data = pomdp.sequences_of(build_codes(logs, "field", "field").codes.talks(logs))
    plan = plan_of(pomdp.Config(), data, 0, {})
    assert plan.sizes["iterations_at_most"] == 2250 + 32 * 450 + 46 * 300 + 4 * 60
    assert (plan.total, plan.trial.amount) == (round(900 + 0.25 * 14400 + 1404), 300 + 14 * 2)
    given = plan_of(pomdp.Config(states=2, hidden="moves", smoothing=1.0, resamples=0), data, 0, {})
    assert (given.sizes["iterations_at_most"], given.total, given.trial.amount) == (2550, 930, 302)


def test_the_model_is_a_problem_that_solvers_take(run: Path) -> None:
    """38 states or 33: 4 at each of 8 turns and the end; with several openings a first look in front."""
    problem, model = read_pomdp(run / "model.pomdp"), LearntModel.load(run / "model.npz")
    first = 0 if model.firsts.shape[1] == 1 else 5
    assert len(problem.states) == 4 * 8 + 1 + first
    words = json.loads((run / "model.json").read_text())
    assert len(words["actions"]) == len(problem.actions)
    assert any("battery" in x["sentences"][0] for x in words["actions"].values() if x["sentences"])


def test_a_run_that_was_stopped_goes_on_to_the_same_model() -> None:
    """Ctrl-C in the middle of EM, wherever it comes: with the notes, the same bits as without it."""
    data = _sequences()
    config = replace(QUICK, smoothing=None, iterations=12)
    whole = pomdp.learn(config, data, 0, Notes())

    def stop_after(calls: int) -> Callable[[str, float], None]:
        def watch(what: str, value: float) -> None:
            nonlocal calls
            calls -= 1
            if calls < 0:
                raise KeyboardInterrupt

        return watch

    for calls in (5, 40, 90):
        kept: dict[str, np.ndarray] = {}
        with pytest.raises(KeyboardInterrupt):
            pomdp.learn(config, data, 0, Notes(keep=kept.update), stop_after(calls))
        again = pomdp.learn(config, data, 0, Notes(kept))
        for one, other in zip(whole.models, again.models, strict=True):
            for name, array in one.arrays().items():
                np.testing.assert_array_equal(array, other.arrays()[name], err_msg=name)


def test_it_is_said_if_the_most_hidden_states_were_chosen() -> None:
    """Nothing is said if fewer were, if their number was given, or in a rehearsal, which tries two."""
    data = _sequences()
    quick = pomdp.Effort(starts=1, iterations=2)
    model = pomdp.fit(data, 3, np.random.default_rng(0), effort=quick)
    tried = {moving(k): (0.0, 0.0) for k in (1, 2, 3)} | {staying(2): (0.0, 0.0)}
    choice = pomdp.Choice(model, moving(3), smoothing=1.0, heldout=tried, errors={}, by_smoothing={})
    learnt = pomdp.Learnt(choice, (model,), 1.0)
    note = states_note(pomdp.Config(most_states=3), learnt)
    assert note is not None and note.startswith("held-out conversations chose 3 hidden states, the most")
    more = replace(choice, heldout=tried | {moving(4): (0.0, 0.0)})
    rehearsed = replace(choice, size=moving(2), heldout={moving(1): (0.0, 0.0), moving(2): (0.0, 0.0)})
    for config, found in (
        (pomdp.Config(most_states=4), replace(learnt, choice=more)),
        (pomdp.Config(states=3), replace(learnt, choice=None)),
        (pomdp.Config(most_states=2), replace(learnt, choice=rehearsed)),
    ):
        assert states_note(config, found) is None
    many = replace(choice, size=staying(64), heldout=tried | {staying(64): (0.0, 0.0)})
    note = states_note(pomdp.Config(), replace(learnt, choice=many))
    assert note is not None and "64 hidden states that stay" in note and "most_stays is 64" in note


def test_what_leaves_nothing_to_choose_from_is_refused() -> None:
    """Kinds with phases come in certain numbers; seven states are none."""
    with pytest.raises(tw.SettingError, match="states is 7; expected kinds times phases: 4, 6, 8"):
        pomdp.sizes_of(pomdp.Config(hidden="both", states=7), 100)
    with pytest.raises(tw.SettingError, match="most_states"):
        pomdp.sizes_of(pomdp.Config(hidden="both", most_states=3), 100)
    found = pomdp.sizes_of(pomdp.Config(states=12), 100)
    assert (found.moves, found.stays, set(found.both)) == ((12,), (12,), {(6, 2), (4, 3), (3, 4)})
    assert pomdp.sizes_of(pomdp.Config(hidden="stays", most_stays=3), 100) == pomdp.Sizes(stays=(1, 2, 3))


def _sequences() -> Sequences:
    from turnwise.data.files.logs import read_logs
    from turnwise.recipes.training.acts.agents import read_acts

    return pomdp.sequences_of(read_acts(list(read_logs(rows(120), quiet=True)), [], None, 0).logs)


def test_nothing_to_plan_for() -> None:
    """Logs without any outcome are refused in words; nothing is written."""
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    with pytest.raises(tw.InputError, match="nobody said how the conversations went"):
        tw.fit(QUICK, [{"messages": talk}] * 20, quiet=True)
    with pytest.raises(tw.SettingError, match="voice is 'model'; expected logged, or a policy"):
        tw.fit(replace(QUICK, voice="model"), rows(20), quiet=True)
    with pytest.raises(TypeError, match="has no setting 'epochs'"):
        tw.fit(QUICK, rows(20), quiet=True, epochs=3)


def test_one_act_and_more_states_than_data(capsys: pytest.CaptureFixture[str]) -> None:
    """One act only is planned with, with a warning; more states than steps are refused."""
    talk = [
        {"role": "assistant", "content": "Hello, may I help?"},
        {"role": "user", "content": "no"},
    ]
    logs = [{"messages": talk, "outcome": float(i % 2), "id": str(i)} for i in range(60)]
    policy = tw.fit(replace(QUICK, states=1, resamples=0), logs)
    assert "nothing to choose" in capsys.readouterr().err
    assert policy.reply([]) == "Hello, may I help?"
    with pytest.raises(tw.InputError, match="500 hidden states"):
        tw.fit(replace(QUICK, states=500), logs, quiet=True)


def test_without_a_discount_the_longest_talk_is_an_end() -> None:
    """Talks of 1 to 3 turns, cut and not ended: the plan's clock is 3 turns."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 4, 80)
    n = int(lengths.sum())
    data = Sequences(
        rng.integers(2, size=n), rng.integers(2, size=n), rng.normal(size=n),
        np.append(0, np.cumsum(lengths)), np.zeros(80, bool), np.zeros(80), 2, 2,
    )  # fmt: skip
    learnt, planned = pomdp.train(replace(QUICK, states=1), data, np.arange(2), 0, Notes())
    assert learnt.models[0].longest is None and len(planned.planner.alphas) == 3
    assert planned.solution.lower <= planned.solution.upper + 1e-9


def test_acts_whose_slots_no_conversation_can_fill_are_left_out() -> None:
    """The codebook has no words of the agent's own for the number that it makes up in each offer."""
    from turnwise.data.acts.labelled import by_sentence
    from turnwise.data.acts.talks import Codes, cut_turns
    from turnwise.recipes.training.acts.agents import book_of, read_acts, sayable
    from turnwise.rollout.acts.voice import LoggedVoice

    rows = []
    for i in range(40):
        said = ("Which size?", "small", f"Take the shirt number {i + 10}.")
        roles = ("assistant", "user", "assistant")
        messages = [{"role": r, "content": c} for r, c in zip(roles, said, strict=True)]
        rows.append({"messages": messages, "outcome": i % 2})
    logs = tw.read_logs(rows)
    cut = [cut_turns(d.messages) for d in logs]
    partner = by_sentence([u for t in cut for u in t.heard if u is not None], other=True)
    codes = Codes(by_sentence([u for t in cut for u in t.said], other=False), partner, partner)
    read = read_acts(logs, [], codes, 0)
    can, (warning,) = sayable(read, LoggedVoice.of(book_of(read.codes)))
    assert warning.startswith("1 of 2 acts cannot be said in most conversations") and "number" in warning
    assert warning.endswith("They are left out: the agent never chooses them")
    assert [name for name, x in zip(codes.acts, can, strict=True) if x] == ["Which size?"]
    book = codes.agent.with_own_words([u for t in cut for u in t.said])
    can, warnings = sayable(read, LoggedVoice.of(book))
    assert can.all() and not warnings
    only = replace(codes, agent=by_sentence([t.said[1] for t in cut], other=False))
    can, (warning,) = sayable(read_acts(logs, [], only, 0), LoggedVoice.of(book_of(only)))
    assert can.tolist() == [True] and warning.startswith("1 of 1 acts cannot be said")
