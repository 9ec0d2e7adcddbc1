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
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, agent_of
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
