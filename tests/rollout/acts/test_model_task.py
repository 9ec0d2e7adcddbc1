"""Learnt models of acts as a task: what they say, pay and end, by a model that is written down here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from turnwise.data.acts.build import build_codes
from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.rollout.acts.model_task import SILENT, ModelTask

# Whose coin it is never changes: state 0 answers "heads" to a look, state 1 "tails". Naming it ends the talk.
LOGS = [
    Dialogue(
        (
            Message("user", "hello there", act="hello"),
            Message("assistant", "let me look", act="look"),
            Message("user", f"it shows {side}", act=side),
            Message("assistant", f"i say {side}", 1.0, act=f"say {side}"),
            Message("user", "well done", act="praise"),
        ),
        id=str(i),
    )
    for i, side in enumerate(["heads", "tails"] * 20)
]


@pytest.fixture(scope="module")
def codes() -> Any:
    return build_codes(LOGS).codes


def pay_of(A: int, means: np.ndarray, late: np.ndarray | None = None) -> Pay:
    return Pay(np.zeros(0), np.ones((3, A, 2, 1)), means, np.zeros(0) if late is None else late)


def model(codes: Any, **changes: Any) -> LearntModel:
    """Acts and answers by their names; 0 is silence."""
    A, O = len(codes.acts), len(codes.answers)
    act, answer = ({n: i for i, n in enumerate(names)} for names in (codes.acts, codes.answers))
    emissions = np.zeros((A, 2, O))
    emissions[:, 0, answer["heads"]] = emissions[:, 1, answer["tails"]] = 1.0
    lasts = np.zeros((2, A, 2, O))
    lasts[:, :, :, answer["praise"]] = 1.0
    ends = np.ones((A, 2))
    ends[act["look"]] = 0.0
    means = np.zeros((3, A, 2))
    means[0, act["look"]] = -0.25
    means[1, act["say heads"]], means[1, act["say tails"]] = [1.0, -1.0], [-1.0, 1.0]
    tables = {
        "start": np.array([0.5, 0.5]),
        "firsts": np.ones((2, len(codes.openings))) / len(codes.openings),
        "transitions": np.tile(np.eye(2), (A, 1, 1)),
        "emissions": emissions,
        "ends": ends,
        "lasts": lasts,
        "pay": pay_of(A, means),
    }
    return LearntModel(**{**tables, **changes})


def test_it_answers_by_its_state_and_pays_who_names_it(codes: Any):
    """A look costs .25 and shows the state, in a logged sentence; its name earns 1 and ends the talk."""
    task = ModelTask([model(codes)], codes)
    lanes = range(20)
    openings = task.reset(lanes, lanes)
    assert {o[0].content for o in openings} == {"hello there"}
    shown = task.step(lanes, ["let me look"] * 20)
    assert {(r.reward, r.terminated) for r in shown} == {(-0.25, False)}
    for lane, r in zip(lanes, shown, strict=True):
        side = ("heads", "tails")[task.hidden(lane)["state"]]
        assert [m.content for m in r.messages] == [f"it shows {side}"]
    ended = task.step(lanes, [f"i say {r.messages[0].content.split()[-1]}" for r in shown])
    assert all(r.terminated and r.reward == 1.0 and r.messages[0].content == "well done" for r in ended)
    states = [task.hidden(lane)["state"] for lane in lanes]
    assert 4 < sum(states) < 16  # both sides of the coin
    with pytest.raises(ValueError, match="lane 3: the conversation is over"):
        task.step([3], ["let me look"])


def test_it_depends_on_the_seed_and_not_on_neighbours(codes: Any):
    task, alone = (ModelTask([model(codes)], codes) for _ in range(2))
    task.reset(range(6), range(6))
    together = task.step(range(6), ["let me look"] * 6)
    for lane in range(6):
        alone.reset([0], [lane])
        assert alone.step([0], ["let me look"]) == [together[lane]]


def test_silence_in_a_talk_that_goes_on_fails_it(codes: Any):
    emissions = np.zeros((len(codes.acts), 2, len(codes.answers)))
    emissions[:, :, 0] = 1.0
    task = ModelTask([model(codes, emissions=emissions)], codes)
    task.reset([0], [0])
    (response,) = task.step([0], ["let me look"])
    assert (
        response.failed and response.truncated and response.info["failed"] == SILENT and response.reward == 0
    )


def test_a_clock_ends_the_talk(codes: Any):
    """With a longest talk of one turn a look is the last one, and it ends truly."""
    A = len(codes.acts)
    pay = pay_of(A, np.full((3, A, 2), 0.5), np.array([0.25]))
    task = ModelTask([model(codes, longest=1, pay=pay)], codes)
    task.reset([0], [0])
    (response,) = task.step([0], ["let me look"])
    assert response.terminated and response.reward == 0.75


def test_models_without_rewards_are_refused(codes: Any):
    with pytest.raises(ValueError, match="a model without rewards"):
        ModelTask([model(codes, pay=None)], codes)
