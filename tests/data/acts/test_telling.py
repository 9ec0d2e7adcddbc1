"""Bits that acts tell: of what they determine, of nothing, and of one act cut in two."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.data.acts.corpus import one_hot
from turnwise.data.acts.telling import Question, Target, bits_of, interval, joined


def question(answers: np.ndarray, around: np.ndarray | None = None) -> Question:
    n = len(answers)
    around = np.zeros(n, np.int64) if around is None else around
    target = Target("answer", one_hot(answers, int(answers.max()) + 1))
    conversation = np.arange(n) // 4
    return Question([target], around, int(around.max()) + 1, conversation, conversation % 2 == 0)


def test_acts_that_decide_one_of_four_answers_tell_two_bits() -> None:
    acts = np.random.default_rng(0).integers(0, 4, 8000)
    told = interval(question(acts), bits_of(question(acts), acts)["answer"])
    assert told.mean == pytest.approx(2, abs=0.02) and told.low < told.mean < told.high


def test_acts_that_have_nothing_to_do_with_answers_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    q = question(rng.integers(0, 4, 8000))
    told = interval(q, bits_of(q, rng.integers(0, 4, 8000))["answer"])
    assert told.mean < 0.002 and told.high > -0.01


def test_what_an_act_means_may_hang_on_what_stands_around() -> None:
    rng = np.random.default_rng(0)
    acts, around = rng.integers(0, 2, 8000), rng.integers(0, 2, 8000)
    answers = acts ^ around  # either alone tells nothing
    q = question(answers, around)
    assert interval(q, bits_of(q, acts)["answer"]).mean == pytest.approx(1, abs=0.02)


def test_acts_that_are_answered_alike_are_joined_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    meant = rng.integers(0, 3, 9000)
    cut = meant * 2 + rng.integers(0, 2, 9000)  # each meaning in two
    answers = np.where(rng.random(9000) < 0.8, meant, rng.integers(0, 3, 9000))

    def apart(i: np.ndarray, j: np.ndarray) -> bool:
        shares = [np.bincount(answers[rows], minlength=3) / len(rows) for rows in (i, j)]
        return bool(np.abs(shares[0] - shares[1]).max() > 0.1)

    found = joined(question(answers), cut, None, apart)
    number, curve = found.number, found.curve(question(answers), cut)
    assert len(set(number)) == 3 and all(number[2 * k] == number[2 * k + 1] for k in range(3))
    assert [round(x["acts"]) for x in curve] == [1, 2, 3, 4, 5, 6]
    told = {x["acts"]: x["mean"] for x in curve}
    assert told[3] > 1.5 * told[2] and abs(told[6] - told[3]) < 0.005
    assert len(set(joined(question(answers), cut, 2, apart).number)) == 2
