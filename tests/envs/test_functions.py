"""POMDPs from functions: the same numbers as from arrays, and errors that say who was asked what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import tiger
from turnwise.run.errors import InputError

SIDES = ["left", "right"]


def parts(**changes: Any) -> dict[str, Any]:
    """Tiger, as a person would say it."""

    def transition(state: str, action: str) -> Any:
        return state if action == "listen" else {"left": 0.5, "right": 0.5}

    def observation(action: str, state: str) -> Any:
        if action != "listen":
            return [0.5, 0.5]
        return {f"hear-{side}": 0.85 if side == state else 0.15 for side in SIDES}

    def reward(state: str, action: str) -> float:
        if action == "listen":
            return -1
        return -100 if action == f"open-{state}" else 10

    return {
        "states": SIDES,
        "actions": ["listen", "open-left", "open-right"],
        "observations": ["hear-left", "hear-right"],
        "transition": transition,
        "observation": observation,
        "reward": reward,
        "discount": 0.95,
    } | changes


def same(p: POMDP, q: POMDP) -> None:
    for field in ("start", "rewards", "ends"):
        np.testing.assert_allclose(getattr(p, field), getattr(q, field))
    for field in ("transitions", "emissions"):
        np.testing.assert_allclose(getattr(p, field).dense(), getattr(q, field).dense())


def test_a_problem_of_functions_is_the_one_of_arrays() -> None:
    same(POMDP.from_functions(**parts()), tiger())
    arrays = {
        "transition": tiger().transitions.dense().reshape(3, 2, 2),
        "observation": tiger().emissions.dense().reshape(3, 2, 2),
        "reward": tiger().expected_rewards(),
    }
    same(POMDP.from_functions(**parts(**arrays)), tiger())


def test_solve_takes_functions() -> None:
    found = tw.solve(parts(), deadline=10)
    assert found.lower - 1e-6 <= 19.37136 <= found.upper + 1e-6  # type: ignore[operator]


def test_rewards_may_depend_on_what_follows_and_what_is_seen() -> None:
    """A coin that is tossed and shown: right guesses pay 1, and 2 more where it shows heads."""
    p = POMDP.from_functions(
        states=2,
        actions=2,
        observations=["heads", "tails"],
        transition=lambda s, a: {0: 0.25, 1: 0.75},
        observation=lambda a, s: "heads" if s == 0 else "tails",
        reward=lambda s, a, after, seen: float(a == after) + 2 * (seen == "heads"),
        discount=0.5,
        start=0,
    )
    np.testing.assert_allclose(p.expected_rewards(), [[0.25 + 0.5] * 2, [0.75 + 0.5] * 2])
    assert p.seen_rewards is not None
    three = POMDP.from_functions(**parts(reward=lambda s, a, after: float(s == after)))
    np.testing.assert_allclose(three.expected_rewards(), [[1, 1], [0.5, 0.5], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (None, [1 / 3] * 3),
        ("b", [0, 1, 0]),
        (["a", "c"], [0.5, 0, 0.5]),
        ({"a": 0.2, "b": 0.8}, [0.2, 0.8, 0]),
        ([0.1, 0.2, 0.7], [0.1, 0.2, 0.7]),
    ],
)
def test_how_episodes_start(start: Any, expected: list[float]) -> None:
    p = POMDP.from_functions(
        states=["a", "b", "c"], actions=1, observations=1, transition=lambda s, a: "c",
        observation=lambda a, s: 0, reward=lambda s, a: 0, discount=0.9, start=start, ends="c",
        first_observation=lambda s: 0,
    )  # fmt: skip
    np.testing.assert_allclose(p.start, expected)
    assert p.ends.all() and p.initial is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"transition": lambda s, a: {"left": 0.5}}, r"transition\('left', 'listen'\) has prob.*sum to 0.5"),
        (
            {"transition": lambda s, a: "middle"},
            r"\('left', 'listen'\) is 'middle'; expected one of",
        ),
        ({"observation": lambda a, s: {"hear": 1.0}}, r"observation\('listen', 'left'\) names 'hear'"),
        ({"reward": lambda s, a: None}, r"reward\('left', 'listen'\) is None; expected a number"),
        ({"reward": lambda s: 0}, "reward takes 1 arguments"),
        ({"reward": np.zeros((2, 3))}, r"reward has shape \(2, 3\); expected \(3, 2\) or"),
        ({"states": ["x", "x"]}, "states has 'x' twice"),
        ({"states": "left"}, "expected a list of names"),
        ({"discount": 1.5}, "discount is 1.5"),
        ({"ends": ["nowhere"]}, "ends names 'nowhere'"),
        ({"start": ["left", "middle"]}, "start"),
        ({"transitions": None}, "'transitions' is no part of a problem"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tw.solve(parts(**changes))


def test_what_is_missing_is_named() -> None:
    given = parts()
    del given["reward"]
    with pytest.raises(InputError, match="no 'reward'; expected states, actions"):
        tw.solve(given)
