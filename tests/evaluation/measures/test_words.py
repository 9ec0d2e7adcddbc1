"""Ridge regression on bags of words: what is in a bag, what it finds, and that it finds nothing in noise."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.words import bags, fit_words


def test_words_find_what_one_word_decides_and_nothing_in_noise() -> None:
    """G = 1 where the agent said yes, else 0; and returns that have nothing to do with the words."""
    rng = np.random.default_rng(0)
    said = [["maybe", "yes"][int(x)] for x in rng.integers(2, size=400)]
    talks = [Dialogue((Message("user", "Well?"), Message("assistant", f"I say {w}."))) for w in said]
    replied = [pair[1] for d in talks for pair in bags(d)]
    yes = np.array([float(w == "yes") for w in said])
    model = fit_words(replied[:300], yes[:300], np.arange(300))
    np.testing.assert_allclose(model.predict(replied[300:]), yes[300:], atol=0.02)
    noise = rng.normal(size=400)
    model = fit_words(replied[:300], noise[:300], np.arange(300))
    assert np.abs(model.predict(replied[300:]) - noise[:300].mean()).max() < 0.2


def test_what_the_reply_says_is_in_the_bag_of_q_and_not_in_that_of_v() -> None:
    first, second = bags(
        Dialogue((Message("user", "Hi"), Message("assistant", "No no"), Message("user", "OK"),
                  Message("assistant", "Yes")))
    )  # fmt: skip
    assert first[0] == {"user:": 1, "user:hi": 1}
    assert first[1] == {"user:": 1, "user:hi": 1, "assistant:": 1, "assistant:no": 2}
    assert second[0] == {**first[1], "user:": 2, "user:ok": 1}
    assert second[1]["assistant:yes"] == 1


def test_weights_are_those_of_ridge_regression() -> None:
    """The decomposition gives what the normal equations (X'X + a I) w = X'y of centred data give, for the
    penalty that it chose: the gradient -X'(y - Xw) + a w is 0 for one a in all directions."""
    rng = np.random.default_rng(1)
    said = [{w: int(c) for w, c in zip("abcd", row, strict=True) if c} for row in rng.integers(0, 4, (60, 4))]
    y = np.array([np.log1p(bag.get("a", 0)) for bag in said]) + rng.normal(scale=0.3, size=60)
    model = fit_words(said, y, np.arange(60))
    x = np.log1p([[bag.get(w, 0) for w in sorted(model.words, key=model.words.__getitem__)] for bag in said])
    residual = y - x @ model.weights - model.intercept
    assert residual.mean() == pytest.approx(0, abs=1e-9)
    penalties = (x - x.mean(0)).T @ residual / model.weights
    np.testing.assert_allclose(penalties, penalties[0], rtol=1e-6)
    np.testing.assert_allclose(model.predict(said), x @ model.weights + model.intercept)
