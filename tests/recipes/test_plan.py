"""An online planner as people meet it: beside the solver's bounds, and beside a solved run."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.envs.problems.classics import t_maze
from turnwise.run.errors import InputError, SettingError


def test_a_planner_stands_beside_the_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "t-maze-2", "--simulations", "400", "--episodes", "6", "--deadline", "2"]
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    r = json.loads(said.out)
    assert r["truth"]["lower"] == pytest.approx(4 * 0.9**4, abs=1e-3) and not r["above"]
    assert r["low"] <= r["mean"] <= r["truth"]["upper"] + 1e-6 and r["mean"] > r["random"]["high"]
    assert "the best policy with memory is worth 2.6244" in said.err and "actions at random" in said.err


def test_the_same_seed_plans_the_same_and_settings_are_taken() -> None:
    asked: dict[str, Any] = {"simulations": 50, "episodes": 3, "steps": 8, "deadline": 0.5, "seed": 4}
    one, two = (tw.plan("tiger", particles=100, discount=0.9, **asked) for _ in range(2))
    assert one.mean == two.mean and one.result["steps"] == 8 and one.result["discount"] == 0.9
    assert tw.plan(t_maze(2), rollouts="informed", **asked).result["rollouts"] == "informed"


class Growls:
    """Which side the tiger is on is heard as a number that never repeats."""

    actions, discount = 3, 0.9

    def start(self, rng: np.random.Generator) -> int:
        return int(rng.choice([-1, 1]))

    def step(self, state: int, action: int, rng: np.random.Generator) -> tuple[int, float, float, bool]:
        right = (action == 1) == (state == 1)
        return (
            state,
            float(rng.normal(state, 0.5)),
            -1.0 if action == 0 else 10.0 if right else -100.0,
            action > 0,
        )

    def likelihood(self, observation: float, action: int, state: int) -> float:
        return float(np.exp(-2 * (observation - state) ** 2))


def test_a_simulator_of_ones_own_whose_observations_never_repeat() -> None:
    found = tw.plan(
        Growls(), simulations=60, episodes=4, exploration=50.0, particles=60, steps=10, look_ahead=4
    )
    assert found.mean > found.result["random"]["high"] and found.result["truth"]["upper"] is None
    assert "a simulator is not written out" in found.result["truth"]["notes"][0]
    with pytest.raises(InputError, match="exploration is not given"):
        tw.plan(Growls(), simulations=10, episodes=2)
    with pytest.raises(SettingError, match=r"discount is 0\.5; expected none for a simulator"):
        tw.plan(Growls(), discount=0.5)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere"], "neither a file nor a built-in problem"),
        (["tiger", "--simulations", "0"], "--simulations 0: expected 1 or more"),
        (["tiger", "--rollouts", "clever"], "--rollouts"),
        (["tiger", "--discount", "1"], "--look-ahead: expected a number of steps"),
        (["nowhere:world"], "nowhere:world: expected a module in "),
    ],
)
def test_wrong_input_is_said(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) if "--rollouts" in words else contextlib.nullcontext():
        assert main(["plan", *words]) == 2
    assert expected in capsys.readouterr().err


def test_a_planner_plays_beside_a_solved_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tw.solve("t-maze-2", out=tmp_path / "run", deadline=2)
    assert main(["evaluate", str(tmp_path / "run"), "--episodes", "10", "--simulations", "100"]) == 0
    assert "a planner of 100 simulations a move, on the exact belief:" in capsys.readouterr().out
