"""A POMDP learnt from random episodes of an environment, from Python and from its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import turnwise as tw
from turnwise.exact.files.pomdp import read_pomdp
from turnwise.recipes.environments import is_environment
from turnwise.run.errors import InputError

QUICK = {"states": 2, "smoothing": 1.0, "resamples": 0, "starts": 1, "iterations": 60, "simulations": 20}


def test_tiger_is_learnt_planned_in_saved_and_loaded(tmp_path: Path) -> None:
    config = tw.LearntPomdp(**QUICK | {"simulations": 1000}, trials=60)
    found = tw.fit(config, "tiger", episodes=1500, steps=10, out=tmp_path / "run", quiet=True)
    predicted, true = found.result["worth"]
    # The optimum is 19.37; opening at once is worth -900, listening for ever -20.
    assert true["low"] > 10 and abs(predicted["mean"] - true["mean"]) < 5
    nats = found.result["nats_per_symbol"]
    assert nats["this model"]["mean"] < nats["one step"]["mean"]
    assert nats["this model"]["mean"] == pytest.approx(nats["the true model"]["mean"], abs=0.01)
    again = tw.load(tmp_path / "run")
    np.testing.assert_array_equal(again.live_returns(50, 1), found.live_returns(50, 1))
    problem = read_pomdp(tmp_path / "run" / "model.pomdp")
    assert problem.shape == (2, 3, 2) and problem.discount == 0.95
    assert (tmp_path / "run" / "report.html").is_file()


def test_what_is_an_environment_is_known_from_what_is_a_log(tmp_path: Path) -> None:
    logs = tmp_path / "tiger.jsonl"
    logs.write_text("")
    assert is_environment("tiger") and is_environment("mine.pomdp") and is_environment("CartPole-v1")
    assert not is_environment(str(logs)) and not is_environment([{"messages": []}])
    with pytest.raises(InputError, match="expected what can be counted"):
        tw.fit(tw.LearntPomdp(**QUICK), "CartPole-v1", episodes=20, quiet=True)
    with pytest.raises(TypeError, match="takes no acts in an environment"):
        tw.fit(tw.LearntPomdp(**QUICK), "tiger", acts="runs/acts", quiet=True)
