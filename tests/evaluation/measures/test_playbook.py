"""Playbooks of a desk by hand: the lamp is dark with .9 if the router is broken, with .2 if the line is.

Asking for the lamp costs .1 and goes on; a restart and a visit end the conversation, and pay 1 if the router
(the line) was it, else -1. After three turns the clock ends it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from turnwise.data.acts.labelled import by_sentence
from turnwise.data.acts.talks import ActTalk, Codes, cut_turns
from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.playbook.make import make_playbook, with_live_talks
from turnwise.evaluation.measures.playbook.plan import Plan
from turnwise.evaluation.measures.playbook.sentences import Held
from turnwise.evaluation.measures.playbook.states import describe_looks, describe_states, state_names
from turnwise.evaluation.measures.playbook.walk import follow_plan
from turnwise.evaluation.pages.report import write_report
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.exact.learning.planner import mixture
from turnwise.run.folder import write_json

ASK, RESTART, VISIT = 0, 1, 2
SILENCE, DARK, SHINES = 0, 1, 2
TURNS = 3


def desk() -> LearntModel:
    """The model of the docstring."""
    emissions = np.tile([1.0, 0.0, 0.0], (3, 2, 1))
    emissions[ASK] = [[0, 0.9, 0.1], [0, 0.2, 0.8]]
    paid = np.array([[-0.1, -0.1], [1.0, -1.0], [-1.0, 1.0]])
    return LearntModel(
        start=np.array([0.6, 0.4]),
        firsts=np.ones((2, 1)),
        transitions=np.tile(np.eye(2), (3, 1, 1)),
        emissions=emissions,
        ends=np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]),
        lasts=np.tile([1.0, 0.0, 0.0], (2, 3, 2, 1)),
        longest=TURNS,
        pay=Pay(np.zeros(0), np.ones((3, 3, 2, 1)), np.tile(paid, (3, 1, 1)), np.zeros(TURNS)),
        tried=np.array([10.0, 4.0, 2.0]),
    )


@dataclass(frozen=True)
class Exact:
    """Values by recursion over all histories."""

    model: LearntModel

    def q(self, beliefs: np.ndarray, times: np.ndarray) -> np.ndarray:
        """[N, A]"""
        return np.stack([self._q(b, int(t)) for b, t in zip(beliefs, times, strict=True)])

    def _q(self, belief: np.ndarray, t: int) -> np.ndarray:
        found = np.zeros(3)
        for a in range(3):
            one, at = belief[None], np.array([t])
            found[a] = self.model.expected_rewards(one, np.array([a]), at)[0]
            on, _ = self.model.outcomes(one, np.array([a]), at)
            for o in np.flatnonzero(on[0]):
                after = self.model.update(one, np.array([a]), np.array([o]), at)[0][0]
                found[a] += on[0, o] * self._q(after, t + 1).max()
        return found


@pytest.fixture
def plan() -> Plan:
    return Plan(Exact(desk()))


def talk(acts: list[int], answers: list[int]) -> ActTalk:
    """One that went so."""
    return ActTalk(
        0, np.array(acts), np.array(answers), np.zeros(len(acts)), True, *np.full((2, len(acts)), np.nan)
    )


def test_beliefs_and_chances_follow_bayes(plan: Plan) -> None:
    """P(dark) = .6 * .9 + .4 * .2 = .62, then P(router) = .54 / .62."""
    beliefs, chances = plan.follow([talk([ASK, RESTART], [DARK, SILENCE]), talk([VISIT], [SILENCE])])
    np.testing.assert_allclose(beliefs[0][:2], [[0.6, 0.4], [0.54 / 0.62, 0.08 / 0.62]])
    np.testing.assert_allclose(chances[0], [0.62, 1.0])
    np.testing.assert_allclose(chances[1], [1.0])


def test_states_are_told_by_what_happens_there_and_not_elsewhere(plan: Plan) -> None:
    router, line = describe_states(plan, np.array([10.0, 4.0, 2.0]), None)
    assert (router["name"], router["start"], line["start"]) == ("A", 0.6, 0.4)
    dark = {"kind": "answer", "symbol": DARK, "after": ASK, "here": 0.9, "elsewhere": 0.2}
    assert dark in router["traits"]
    assert {"kind": "reward", "symbol": None, "after": VISIT, "here": 1.0, "elsewhere": -1.0} in line[
        "traits"
    ]
    assert not any(t["kind"] == "ends" for s in (router, line) for t in s["traits"])  # both end alike
    assert state_names(28)[25:] == ["Z", "AA", "AB"]


def test_an_answer_tells_its_mutual_information(plan: Plan) -> None:
    """I = H(.62) - .6 H(.9) - .4 H(.2); acts that end the conversation tell nothing in time."""

    def h(p: float) -> float:
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    (look,) = describe_looks(plan, np.arange(3))
    assert look["act"] == ASK
    assert look["information"] == pytest.approx(h(0.62) - 0.6 * h(0.9) - 0.4 * h(0.2))
    assert [x["answer"] for x in look["answers"]] == [DARK, SHINES]
    np.testing.assert_allclose(look["answers"][0]["after"], [0.54 / 0.62, 0.08 / 0.62])
    assert look["rest"] == pytest.approx(0.0, abs=1e-12)


def test_the_plan_is_followed_as_all_histories_say(plan: Plan) -> None:
    """Expected uses of each act, by going through every hidden state and every sequence of answers."""
    model, expected = plan.model, np.zeros(3)
    for s, answers in itertools.product(range(2), itertools.product((DARK, SHINES), repeat=TURNS)):
        belief, p = model.start, model.start[s]
        for t in range(TURNS):
            a = int(plan.best(belief[None], np.array([t]))[0])
            # Sequences are as long as the clock: what no longer happens is averaged out, and sums to 1.
            expected[a] += p / 2 ** (TURNS - t)
            if a != ASK:
                break
            p *= model.emissions[ASK, s, answers[t]]
            belief = model.update(belief[None], np.array([a]), np.array([answers[t]]))[0][0]
    walk = follow_plan(plan)
    np.testing.assert_allclose(walk.planned, expected, atol=1e-12)
    graph = walk.graph
    assert graph["nodes"][0] == {"turn": 0, "act": ASK, "probability": 1.0, "belief": [0.6, 0.4]}
    assert graph["ends"][0] == 0.0
    first = {tuple(e["answers"]): e["probability"] for e in graph["edges"] if e["source"] == 0}
    assert first == {(DARK,): pytest.approx(0.62), (SHINES,): pytest.approx(0.38)}
    for i in range(len(graph["nodes"])):
        out = sum(e["probability"] for e in graph["edges"] if e["source"] == i) + graph["ends"][i]
        assert out == pytest.approx(1.0)
    assert graph["left_out"] == pytest.approx(0.0, abs=1e-12)
    assert graph["longest"] is None


def test_copies_of_a_model_are_shown_as_one(plan: Plan) -> None:
    both = Plan(Exact(mixture([desk(), desk()])), copies=2)
    assert both.states == 2
    one, two = follow_plan(plan), follow_plan(both)
    np.testing.assert_allclose(one.planned, two.planned, atol=1e-12)
    assert len(two.graph["nodes"]) == len(one.graph["nodes"])
    np.testing.assert_allclose(two.graph["nodes"][0]["belief"], [0.6, 0.4])
    tried = np.ones(3)
    for a, b in zip(describe_states(plan, tried, None), describe_states(both, tried, None), strict=True):
        assert [t["kind"] for t in a["traits"]] == [t["kind"] for t in b["traits"]]
    assert describe_looks(both, np.array([ASK]))[0]["information"] == pytest.approx(
        describe_looks(plan, np.array([ASK]))[0]["information"]
    )


def conversations() -> list[Dialogue]:
    """Logged ones: the lamp, then a restart or a visit, which pays."""
    found = []
    for i in range(12):
        dark = i % 3 > 0
        last, pay = ("I send somebody.", 1.0 if i % 2 else -1.0) if i % 2 else ("Restart it.", 0.5)
        found.append(
            Dialogue(
                (
                    Message("user", "My internet is gone."),
                    Message("assistant", "Is the lamp on?", -0.1),
                    Message("user", "No, it is dark." if dark else "Yes, it <b>shines</b>."),
                    Message("assistant", last, pay),
                ),
                id=f"log-{i}",
            )
        )
    return found


def test_a_playbook_of_logged_conversations_has_a_page(plan: Plan, tmp_path: Path) -> None:
    logged = conversations()
    cut = [cut_turns(d.messages) for d in logged]
    codes = Codes(
        by_sentence([u for c in cut for u in c.said], other=False),
        by_sentence([u for c in cut for u in c.heard if u is not None], other=False),
        by_sentence([c.opening for c in cut], other=False),
    )
    held = [Held(logged[0]), Held(logged[1], live=True, traces=[{"by": "chooser"}, {"by": "fallback"}])]
    book = make_playbook(plan, codes, codes.talks(logged), held, title="Desk", rng=np.random.default_rng(0))
    named = {a["sentence"]: a for a in book["acts"]}
    ask = named["Is the lamp on?"]
    # Returns from the question on: -.1 + .5 in six conversations, -.1 + 1 in the other six.
    assert ask["logged_return"] is not None
    assert ask["logged_return"]["mean"] == pytest.approx(0.65)
    assert ask["logged_return"]["low"] < 0.65 < ask["logged_return"]["high"]  # type: ignore[operator]
    assert ask["count"] == 12
    assert ask["q_start"] == pytest.approx(plan.values.q(plan.model.start[None], np.zeros(1, int))[0, ASK])
    assert ask["planned"] == pytest.approx(follow_plan(plan).planned[ASK])
    first, live = book["talks"]
    assert first["turns"][0]["said"] == "Is the lamp on?"
    assert first["turns"][0]["heard_distance"] == 0.0
    assert first["turns"][-1]["belief"] is None
    assert live["turns"][1]["fallback"]
    again = with_live_talks(book, plan, codes, [Held(logged[2], live=True), Held(logged[3], live=True)])
    assert [t["id"] for t in again["talks"]] == ["log-2", "log-3", "log-0"]
    write_json(tmp_path / "playbook.json", book)
    html = write_report(tmp_path).read_text("utf-8")
    assert "&lt;b&gt;shines&lt;/b&gt;" in html
