"""Environments that fail, or whose numbers are none: named where it happens, and nothing learnt is lost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import turnwise as tw
from turnwise.data.replay import Replay
from turnwise.envs.gymnasium.lanes import lanes_by_id
from turnwise.envs.protocol import Discrete, Step
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, agent_of
from turnwise.recipes.environments import find_environment
from turnwise.rollout.episodes.experience import Experience
from turnwise.rollout.episodes.lanes import StepLanes
from turnwise.run.errors import InputError


class Walk(gymnasium.Env):
    """Ten steps an episode; what each step gives is up to the test."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    calls = 0
    """steps of all walks together"""
    fails_at = -1
    reward: Any = 1.0
    reward_at = -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.random(2, np.float32), {}

    def step(self, action: int) -> Any:
        Walk.calls, self.t = Walk.calls + 1, self.t + 1
        if Walk.calls == Walk.fails_at:
            raise ConnectionError("the robot does not answer")
        reward = Walk.reward if Walk.calls == Walk.reward_at else float(action)
        return self.np_random.random(2, np.float32), reward, False, self.t == 10, {}


@pytest.fixture(autouse=True)
def _fresh() -> Any:
    Walk.calls, Walk.fails_at, Walk.reward_at = 0, -1, -1
    yield
    Walk.calls, Walk.fails_at, Walk.reward_at = 0, -1, -1


def settings() -> Any:
    """20 steps of training, each of 2 lanes times 8 steps."""
    return tw.A2C(steps=320, lanes=2, rollout=8)


def fit(out: Path, **more: Any) -> Any:
    return tw.fit(settings(), Walk, out=out, quiet=True, width=8, **more)


@pytest.mark.parametrize(("reward", "word"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_a_reward_of_an_environment_that_is_no_number_is_named(
    tmp_path: Path, reward: float, word: str
) -> None:
    """The 44th call is lane 1's 22nd: step 2 of its third episode.

    An episode takes ten steps and a pause that only begins the next: that is the lanes' step 24, the last of
    the third collection of 8.
    """
    Walk.reward, Walk.reward_at = reward, 44
    where, what = "^step 3 of 20: ", f"the environment's reward is {word}, in step 2 of an episode (lane 1)"
    with pytest.raises(InputError, match=where + re.escape(what)):
        fit(tmp_path / "run")


@pytest.mark.parametrize("given", [None, "1", np.ones(2), True])
def test_a_reward_that_is_no_number_is_named(tmp_path: Path, given: Any) -> None:
    """As it was given: a None would be a nan in an array. True is a number of Python's, and is one here."""
    Walk.reward, Walk.reward_at = given, 44
    if given is True:
        assert fit(tmp_path / "run").result["metrics"]["step"] == 19
        return
    what = (
        f"the environment's reward is {given!r}, in step 2 of an episode (lane 1); expected a finite number"
    )
    with pytest.raises(InputError, match=re.escape(what)):
        fit(tmp_path / "run")


FIRST = np.zeros(2, np.float32)


class Says(gymnasium.Env[Any, Any]):
    """Says what it was given, the first at reset; the last one ends it, truly or by a cut."""

    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, space: Any, shown: list[Any], terminates: bool = True) -> None:
        self.observation_space, self.shown, self.terminates = space, shown, terminates

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.shown[0], {}

    def step(self, action: int) -> Any:
        self.t += 1
        over = self.t == len(self.shown) - 1
        return self.shown[self.t], 1.0, over and self.terminates, over and not self.terminates, {}


BOX, SYMBOLS = gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Discrete(3, start=1)
WRONG = [
    (BOX, np.array([0.0, np.nan]), "[0.0, nan]", "finite numbers"),
    (BOX, np.zeros(3, np.float32), "of shape (3,)", "shape (2,)"),
    (BOX, None, "None", "numbers of shape (2,)"),
    (BOX, [[0.0], [1.0, 2.0]], "[[0.0], [1.0, 2.0]]", "numbers of shape (2,)"),
    (SYMBOLS, 0, "0", "a whole number from 1 to 3"),
    (SYMBOLS, 1.5, "1.5", "a whole number from 1 to 3"),
    (gymnasium.spaces.MultiDiscrete([2, 5]), np.array([1, 5]), "[1, 5]", "0 to 4 in place 1"),
    (gymnasium.spaces.Dict(a=BOX, b=SYMBOLS), {"a": FIRST}, "a dict without b", "a, b"),
    (gymnasium.spaces.Dict(a=BOX, b=SYMBOLS), {"a": FIRST, "b": 4}, "4 (b)", "a whole number from 1 to 3"),
    (gymnasium.spaces.Tuple([BOX, SYMBOLS]), (FIRST, FIRST), "[0.0, 0.0] (part 1)", "a whole number"),
]


@pytest.mark.parametrize(("space", "shown", "found", "expected"), WRONG, ids=[w[2] for w in WRONG])
def test_an_observation_that_is_none_of_its_space_is_named(
    space: Any, shown: Any, found: str, expected: str
) -> None:
    """At the start, under way and at a cut, which is bootstrapped from; after a true end nobody looks."""
    good = space.sample()
    for steps, where in [
        ([shown, good], "at the start of an episode (lane 0)"),
        ([good, good, shown, good], "in step 2 of an episode (lane 0)"),
        ([good, shown], "in step 1 of an episode (lane 0)"),
    ]:
        lanes = find_environment(Says(space, steps, terminates=False), 2, None).lanes
        agent = agent_of("actor-critic", MemorySpec(width=8), CriticSpec(), Spaces.of(lanes))
        with pytest.raises(InputError, match=re.escape(found) + ".*" + re.escape(expected)) as error:
            StepLanes(lanes, 2, np.random.default_rng(0)).collect(agent, 4)
        assert where in str(error.value)
    lanes = find_environment(Says(space, [good, good, shown]), 2, None).lanes
    rows = StepLanes(lanes, 2, np.random.default_rng(0)).collect(agent, 4)
    for row in rows:
        assert row.terminated and (row.observations[2] == row.observations[1]).all()


def test_a_vector_environment_of_ones_own_is_looked_at_too() -> None:
    """Arrays of all lanes: the second lane's reward, a symbol that is none, and another shape."""

    class Lanes:
        observation_space, action_space, state_space, states = Discrete(3), Discrete(2), None, None
        autoresets = False

        def __init__(self, shown: Any, rewards: Any) -> None:
            self.shown, self.rewards = shown, rewards

        def reset(self, rng: Any, lanes: int) -> Any:
            return np.zeros(lanes, np.int64)

        def step(self, actions: Any) -> Step:
            no = np.zeros(2, bool)
            return Step(np.array(self.shown), np.array(self.rewards), no, no)

    for shown, rewards, words in [
        ([0, 1], [0.0, np.inf], "reward is inf, in step 1 of an episode (lane 1); expected a finite number"),
        (
            [0, 3],
            [0.0, 0.0],
            "observation is 3, in step 1 of an episode (lane 1); expected a symbol from 0 to",
        ),
        ([0, 1, 1], [0.0, 0.0], "observations are int64 of shape (3,); expected symbols of shape (2,)"),
        ([0, 1], [[0.0], [1.0]], "rewards are float64 of shape (2, 1); expected numbers of shape (2,)"),
    ]:
        env: Any = Lanes(shown, rewards)
        agent = agent_of("actor-critic", MemorySpec(width=8), CriticSpec(), Spaces.of(env))
        with pytest.raises(InputError, match=re.escape(words)):
            StepLanes(env, 2, np.random.default_rng(0)).collect(agent, 1)


def test_a_number_outside_its_box_is_told_once_and_learnt_from() -> None:
    space = gymnasium.spaces.Box(np.array([-1, 0]), np.array([1, np.inf]), dtype=np.float64)
    steps = [np.array([0.0, 1.0]), np.array([1.0005, 1e9]), np.array([7.0, 0.0]), np.array([8.0, 0.0])]
    lanes = find_environment(Says(space, steps), 2, None).lanes
    agent = agent_of("actor-critic", MemorySpec(width=8), CriticSpec(), Spaces.of(lanes))
    told = r"shows the number 7; expected -1 to 1, as the space says \(in step 2 of an episode \(lane 0\)\)"
    with pytest.warns(RuntimeWarning, match=told) as caught:
        rows = StepLanes(lanes, 2, np.random.default_rng(0)).collect(agent, 6)
    assert len(caught) == 1 and rows[0].observations[2].tolist() == [7, 0]


def test_what_an_environment_answers_in_another_form_is_named() -> None:
    """Gymnasium's first interface had four parts in a step and no info at reset."""

    class Old(Says):
        def step(self, action: int) -> Any:
            observation, reward, over, _, info = super().step(action)
            return observation, reward, over, info

    lanes = find_environment(Old(BOX, [FIRST] * 3), 2, None).lanes
    lanes.reset(np.random.default_rng(0), 2)
    with pytest.raises(InputError, match=r"answer to step is a tuple of 4.*terminated, truncated, info\)"):
        lanes.step(np.zeros(2, np.int64))


def test_an_environment_that_fails_loses_no_step_of_training(tmp_path: Path) -> None:
    """It fails in the 13th of 20 steps (16 calls or fewer each), far before the checkpoint of step 100."""
    Walk.fails_at = 190
    with pytest.raises(ConnectionError) as found:
        fit(tmp_path / "run")
    (where, what) = found.value.__notes__
    step = int(where.split()[4]) - 1
    assert where == f"This happened in step {step + 1} of 20." and step >= 11
    assert f"has a checkpoint of step {step}" in what
    Walk.fails_at = -1
    actor = fit(tmp_path / "run", resume=True)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 19 and actor.result["metrics"]["step"] == 19


def test_a_collection_that_fails_has_not_been() -> None:
    """The same random numbers come again, no episode counts, and what comes next begins anew."""

    class Breaks:
        def __init__(self, env: Any) -> None:
            self.env, self.left = env, 3

        def __getattr__(self, name: str) -> Any:
            return getattr(self.env, name)

        def step(self, actions: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise OSError
            return self.env.step(actions)

    env = Breaks(lanes_by_id("CartPole-v1", 2))
    agent = agent_of("actor-critic", MemorySpec(width=8), CriticSpec(), Spaces.of(env.env))
    lanes = StepLanes(env, 2, np.random.default_rng(0))  # type: ignore[arg-type]
    with pytest.raises(OSError):
        lanes.collect(agent, 5)
    assert (lanes.changes, lanes.under_way) == (0, False)
    assert lanes.rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
    assert [row.age for row in lanes.collect(agent, 5)] == [0, 0] and lanes.changes == 1


def test_a_replay_goes_on_where_lanes_begin_anew() -> None:
    """A row to the end of a collection, then one of age 0: no pause lies between, since nothing ended."""
    env = lanes_by_id("Pendulum-v1", 2)
    agent = agent_of("actor-critic", MemorySpec(width=8), CriticSpec(), Spaces.of(env))
    experience = Experience(StepLanes(env, 2, np.random.default_rng(0)), Replay(100, 2, pauses=True))
    with torch.inference_mode():
        experience.collect(agent, 5)
    again = Experience(
        StepLanes(lanes_by_id("Pendulum-v1", 2), 2, np.random.default_rng(0)), Replay(100, 2, pauses=True)
    )
    again.load(experience.state())
    again.collect(agent, 5)
    assert again.replay.steps == 20
