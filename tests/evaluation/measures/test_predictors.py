"""Predictors beside a learnt model, on talks whose answers depend on what lies further back."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.evaluation.measures.playbook.predictors import measure_fit
from turnwise.exact.learning.choose import moving
from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.sequences import Sequences


def sequences(answers: list[list[int]], symbols: int = 2, ended: bool = False) -> Sequences:
    """Episodes of one action."""
    return Sequences(
        actions=np.zeros(sum(map(len, answers))),
        observations=np.concatenate(answers),
        rewards=None,
        offsets=np.append(0, np.cumsum([len(a) for a in answers])),
        ended=np.full(len(answers), ended),
        firsts=np.zeros(len(answers)),
        action_symbols=1,
        observation_symbols=symbols,
    )


def coins(rng: np.random.Generator, n: int) -> Sequences:
    """Each episode has a coin of .9 or of .1, and six throws of it."""
    odds = np.where(rng.random(n) < 0.5, 0.9, 0.1)
    return sequences([(rng.random(6) < p).astype(int).tolist() for p in odds])


def hidden_coin() -> LearntModel:
    """The model that `coins` come from."""
    return LearntModel(
        start=np.array([0.5, 0.5]),
        firsts=np.ones((2, 1)),
        transitions=np.eye(2)[None],
        emissions=np.array([[[0.1, 0.9], [0.9, 0.1]]]),
        ends=np.zeros((1, 2)),
        lasts=np.full((2, 1, 2, 2), 0.5),
    )


def test_hidden_states_predict_better_than_the_last_answer() -> None:
    """The longer a gram looks back the better it knows which coin it is; the true model knows best."""
    rng = np.random.default_rng(0)
    learnt, held, model = coins(rng, 1500), coins(rng, 1000), hidden_coin()
    choices = {moving(1): (0.7, 0.01), moving(2): (0.5, 0.01)}
    fit = measure_fit(model, learnt, held, choices=choices, chosen=moving(2), recurrent=False)
    nats = {row["name"]: row["mean"] for row in fit["predictors"]}
    one = nats["no hidden state: the act and the last answer"]
    two, three = nats["the last 2 answers"], nats["the last 3 answers"]
    assert nats["this model"] < three < two < one
    # Exactly: the entropy of six throws of a hidden coin, by all 64 of them.
    throws = np.arange(64)[:, None] >> np.arange(6) & 1
    heads = throws.sum(1)
    p = 0.5 * (0.9**heads * 0.1 ** (6 - heads) + 0.1**heads * 0.9 ** (6 - heads))
    assert nats["this model"] == pytest.approx(-(p * np.log(p)).sum() / 6, abs=0.02)
    for row in fit["predictors"]:
        assert row["low"] is not None
        assert row["low"] < row["mean"] < row["high"]  # type: ignore[operator]
    low, high = 0.5 - 0.0196, 0.5 + 0.0196
    assert fit["choices"][1] == {"states": 2, "phases": 2, "mean": 0.5, "low": low, "high": high}
    assert fit["conversations"] == 1000


def test_what_is_held_for_impossible_has_no_figure() -> None:
    none = LearntModel(
        start=np.ones(1), firsts=np.ones((1, 1)), transitions=np.ones((1, 1, 1)),
        emissions=np.array([[[1.0, 0.0]]]), ends=np.zeros((1, 1)), lasts=np.full((2, 1, 1, 2), 0.5),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    fit = measure_fit(none, coins(rng, 50), coins(rng, 50), recurrent=False)
    assert "this model" not in [row["name"] for row in fit["predictors"]]
