"""What words and histories tell of answers: worlds made by hand, in which it is known what they tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from turnwise.data.acts.talks import ActLogs, ActTalk
from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.evaluation.estimates.foretelling.gains import Gain, fitted, gain_beyond
from turnwise.evaluation.estimates.foretelling.questions import Foretold, ask
from turnwise.evaluation.estimates.foretelling.told import pooled, told_of
from turnwise.evaluation.estimates.foretelling.wording import crossed, directions
from turnwise.evaluation.estimates.shortfalls import TOLD
from turnwise.evaluation.measures.playbook.plan import Plan
from turnwise.exact.learning.model import LearntModel

SIDES = ("left", "right")
NO, YES = 1, 2
"""answers; 0 is silence"""
Worded = Callable[[list[int], list[int]], str]
"""parts asked about, this one the last, and what was answered so far, to the words that ask about it"""


@dataclass(frozen=True)
class Values:
    """A plan that is asked for its model alone."""

    model: LearntModel

    def q(self, beliefs: np.ndarray, times: np.ndarray) -> np.ndarray:
        return np.zeros((len(beliefs), self.model.shape[1]))


def desk(
    talks: int, *, seed: int, acts: int, worded: Worded, turns: int = 4
) -> tuple[ActLogs, list[Dialogue]]:
    """One of two parts is broken. Each turn asks about one of them, drawn evenly, and is answered rightly in
    90% of cases. With one act both parts are asked by the same."""
    rng = np.random.default_rng(seed)
    found, dialogues = [], []
    for i in range(talks):
        broken = int(rng.integers(2))
        parts = rng.integers(0, 2, turns)
        said = [Message("user", "Hello.")]
        answers: list[int] = []
        for k, part in enumerate(parts.tolist()):
            right = rng.random() < 0.9
            text = worded(parts[: k + 1].tolist(), answers)
            answers.append(YES if (part == broken) == right else NO)
            said += [Message("assistant", text), Message("user", ("", "no", "yes")[answers[-1]])]
        nan = np.full(turns, np.nan)
        done = parts if acts == 2 else np.zeros(turns, np.int64)
        found.append(ActTalk(0, done, np.array(answers), np.zeros(turns), False, nan, nan, str(i)))
        dialogues.append(Dialogue(tuple(said), id=str(i)))
    names = ("ask",) if acts == 1 else ("ask left", "ask right")
    return ActLogs(tuple(found), names, ("(nothing)", "no", "yes"), ("hello",)), dialogues


def by_part(parts: list[int], answers: list[int]) -> str:
    return f"is the {SIDES[parts[-1]]} one fine?"


def told_back(parts: list[int], answers: list[int]) -> str:
    """The words say what the last answer makes likely: nothing that was not said."""
    if not answers:
        return f"what of {SIDES[parts[-1]]}?"
    likely = parts[-2] if answers[-1] == YES else 1 - parts[-2]
    return f"it may be the {SIDES[likely]} one, what of {SIDES[parts[-1]]}?"


def model(states: int) -> LearntModel:
    """Of two acts: with two states the truth, with one nothing is remembered, and answers are even."""
    right = np.array([[0.0, 0.1, 0.9], [0.0, 0.9, 0.1]])  # of a broken one, of a fine one
    emissions = np.stack([right, right[::-1]])  # [A, S, O]: state 0 has the left part broken
    if states == 1:
        emissions = np.full((2, 1, 3), [0.0, 0.5, 0.5])
    stay = np.tile(np.eye(states), (2, 1, 1))
    return LearntModel(
        np.full(states, 1 / states),
        np.ones((states, 1)),
        stay,
        emissions,
        np.zeros((2, states)),
        np.tile(emissions, (2, 1, 1, 1)),
    )


def test_a_gain_is_the_information() -> None:
    """A coin that x foretells in 80% of cases, and of which nothing is known: ln 2 - H(.8) = .193 nats. Noise
    beside it is no gain, and neither is x once it is known."""
    rng = np.random.default_rng(0)
    coin = rng.integers(0, 2, 4000)
    x = np.where(rng.random(4000) < 0.8, coin, 1 - coin)[:, None] * 2.0 - 1
    asked, group = np.ones(4000, bool), np.arange(4000) // 4
    even = np.full((4000, 2), np.log(0.5))
    sure = np.log(np.where(x > 0, [[0.2, 0.8]], [[0.8, 0.2]]))

    def gain(known: np.ndarray, features: np.ndarray) -> Gain:
        found = gain_beyond(lambda *_: known, lambda *_: features, coin, asked, group, rng)
        assert found is not None
        return found

    information = np.log(2) + 0.8 * np.log(0.8) + 0.2 * np.log(0.2)
    told = gain(even, x)
    assert told.mean == pytest.approx(information, abs=3 * told.error) and told.error < 0.01
    noise = rng.normal(size=(4000, 10))
    assert not gain(even, noise).above(0.0) and gain(even, noise).mean > -0.01
    assert not gain(sure, x).above(0.0)
    assert gain(even, np.hstack([x, noise])).above(0.15)


def test_errors_are_over_what_is_independent() -> None:
    """Each coin told 25 times, to those who learn and those who ask: 25 times as many, and no more sure."""
    rng = np.random.default_rng(1)
    coin = rng.integers(0, 2, 400)
    x = np.where(rng.random(400) < 0.8, coin, 1 - coin)[:, None] * 2.0 - 1

    def gain(times: int) -> Gain:
        labels = np.repeat(coin, times)
        even = np.full((len(labels), 2), np.log(0.5))
        found = gain_beyond(
            lambda *_: even,
            lambda *_: np.repeat(x, times, axis=0),
            labels,
            np.ones(len(labels), bool),
            np.repeat(np.arange(400), times),
            np.random.default_rng(2),
        )
        assert found is not None
        return found

    assert gain(25).error > 0.6 * gain(1).error


def test_a_regression_adds_to_what_is_known() -> None:
    """An intercept alone, hardly held back: probabilities become the shares, .25 and .75."""
    followed = np.array([0, 1, 1, 1])
    before = np.log(np.tile([0.9, 0.1], (4, 1)))
    weights = fitted(np.ones((4, 1)), followed, before, 1e-6, 200)
    p = np.exp(before + weights)
    assert (p / p.sum(1, keepdims=True))[0] == pytest.approx([0.25, 0.75], abs=1e-3)


def test_rare_symbols_are_one() -> None:
    found, size = pooled(np.array([7, 7, 7, 3, 3, 9, 5]), 3)
    assert found.tolist() == [0, 0, 0, 1, 1, 2, 2] and size == 3


def test_words_of_one_act_alike_or_not() -> None:
    """z tells left from right by its sign. What was answered to the same words counts up, to others down."""
    logs, dialogues = desk(200, seed=0, acts=1, worded=by_part)
    told = told_of(logs, dialogues, None, 10**6, np.random.default_rng(0))
    z = directions(told, np.arange(len(told.texts)))
    left = np.array(["left" in text for text in told.texts])
    assert z.shape[1] == 1 and len(np.unique(np.sign(z[left]))) == 1
    assert (np.sign(z[left][0]) != np.sign(z[~left])).all()
    x = crossed(told, z)
    span = next(iter(told.spans))
    alike = np.where(left[span][:, None] == left[span], 1, -1)
    yes = pooled(told.answers, 16)[0][told.answers == YES][0]
    for k in range(1, 4):
        counted = sum(alike[k, j] for j in range(k) if told.answers[span][j] == YES)
        # One direction and one act: the words of earlier ones, each answer by direction, each answer by act.
        assert x[span][k, 1 + yes] == pytest.approx(counted, abs=0.2)
        assert x[span][k, 3 + yes] == pytest.approx(counted, abs=0.2)


def test_acts_with_two_meanings_are_found() -> None:
    """One act for both parts. From the second turn on answers to the same words tell of the answer."""
    found = ask(*desk(500, seed=1, acts=1, worded=by_part), None)
    assert found.words is not None and found.words.above(0.05) and found.history is None


@pytest.mark.parametrize("worded", [by_part, told_back])
def test_words_that_mean_no_more_than_their_act_are_no_finding(worded: Worded) -> None:
    """Both parts have their act. Words that repeat what was said foretell answers, and tell nothing new."""
    found = ask(*desk(500, seed=2, acts=2, worded=worded), Plan(Values(model(2))))
    assert found.words is not None and not found.words.above(TOLD)
    assert found.beyond is not None and not found.beyond.above(TOLD)
    assert found.history is not None and not found.history.above(TOLD)


def test_a_model_that_remembers_nothing_is_found() -> None:
    """With one state every answer is even. The history knows better, and so do words that repeat it."""
    found = ask(*desk(500, seed=3, acts=2, worded=told_back), Plan(Values(model(1))))
    assert found.history is not None and found.history.above(0.1)
    assert found.beyond is not None and found.beyond.above(TOLD)
    assert found.words is not None and not found.words.above(TOLD)


def test_nothing_is_asked_where_nothing_can_be_told() -> None:
    """Of 39 conversations, or clusters; and an act that always has the same words tells exactly nothing."""
    logs, dialogues = desk(200, seed=4, acts=1, worded=lambda *_: "and the next one?")
    assert ask(logs, dialogues, None).words == Gain(0.0, 0.0, 800)
    few = np.arange(200) % 39
    assert ask(logs, dialogues, None, clusters=few) == Foretold()


def test_the_same_seed_gives_the_same_gain() -> None:
    logs, dialogues = desk(80, seed=5, acts=1, worded=by_part)
    assert ask(logs, dialogues, None, seed=3) == ask(logs, dialogues, None, seed=3)
