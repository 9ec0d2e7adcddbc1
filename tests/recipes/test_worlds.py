"""A POMDP learnt from random episodes of an environment, from Python and from its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.cli import main
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


def test_a_plan_is_measured_where_it_was_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Random actions of the tiger open 2 doors of 3 and listen once: (2 x -45 - 1) / 3 a step, times
    1 / (1 - .95) = -606.67. The optimum is 19.37."""
    out = str(tmp_path / "run")
    trained = tw.fit(tw.LearntPomdp(**QUICK), "tiger", episodes=1500, steps=10, out=out, quiet=True)
    assert main(["evaluate", out, "--episodes", "1000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["random"]["low"] < -606.67 < found["random"]["high"]
    assert found["truth"]["lower"] == pytest.approx(19.37, abs=0.02)
    assert found["low"] > 10 and found["high"] > found["truth"]["lower"] - 3 and not found["above"]
    np.testing.assert_allclose(found["mean"], trained.live_returns(1000, 0).mean())
    promised = trained.result["worth"][0]["mean"]
    assert found["promised"]["over"] == pytest.approx(promised - found["mean"])
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "random actions" in page and "its models had promised" in page
    with pytest.raises(InputError, match="2 observations and 3 actions, as the model has"):
        tw.evaluate(out, "cheese", quiet=True)
    with pytest.raises(InputError, match="greedy"):
        tw.evaluate(out, greedy=True, quiet=True)


def test_an_environment_of_so_many_lanes_is_played_in_rounds_of_them() -> None:
    """The corridor of Gymnasium: step 1 earns 1 and ends; random actions do so half of the time."""
    import gymnasium

    class Corridor(gymnasium.Env):  # type: ignore[type-arg]
        observation_space = action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            return 0, {}

        def step(self, action: Any) -> Any:
            return 1, float(action), True, False, {}

    config = tw.LearntPomdp(**QUICK | {"states": 1}, discount=1.0)
    world = tw.fit(config, Corridor, episodes=200, steps=2, quiet=True)
    assert world.result["worth"][1]["mean"] == 1 and len(world.live_returns(1500)) == 1500
    found = tw.evaluate(world, episodes=1500, quiet=True)
    assert found.mean == 1 and found.result["random"]["mean"] == pytest.approx(0.5, abs=0.06)


def test_what_is_an_environment_is_known_from_what_is_a_log(tmp_path: Path) -> None:
    logs = tmp_path / "tiger.jsonl"
    logs.write_text("")
    assert is_environment("tiger") and is_environment("mine.pomdp") and is_environment("CartPole-v1")
    assert not is_environment(str(logs)) and not is_environment([{"messages": []}])
    with pytest.raises(InputError, match="expected what can be counted"):
        tw.fit(tw.LearntPomdp(**QUICK), "CartPole-v1", episodes=20, quiet=True)
    with pytest.raises(TypeError, match="takes no acts in an environment"):
        tw.fit(tw.LearntPomdp(**QUICK), "tiger", acts="runs/acts", quiet=True)
