"""Lanes go on from a checkpoint in mid-episode, if their environment can say where it stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from numpy.testing import assert_array_equal

from turnwise.data.episode import Episode
from turnwise.data.replay import Replay
from turnwise.envs.gymnasium.lanes import lanes_by_id
from turnwise.envs.protocol import LaneEnv
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, agent_of
from turnwise.recipes.environments import find_environment
from turnwise.rollout.episodes.experience import Experience
from turnwise.rollout.episodes.lanes import StepLanes
from turnwise.run.files.checkpoint import read_checkpoint, write_checkpoint

N = 3


class Drunkard(gymnasium.Env[Any, Any]):
    """A walk from 0 that chance disturbs and that ends beyond 4; a stranger's environment."""

    observation_space = spaces.Box(-9.0, 9.0, (1,), np.float32)
    action_space = spaces.Discrete(2)
    forgets_its_seed = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.chance = np.random.default_rng() if self.forgets_its_seed else self.np_random
        self.at, self.lock = 0.0, open  # what nobody could write down
        return np.array([self.at], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at += 2.0 * int(action) - 1.0 + self.chance.normal()
        return np.array([self.at], np.float32), self.at, abs(self.at) > 4, False, {}


class Forgetful(Drunkard):
    forgets_its_seed = True


MAKE: dict[str, Callable[[], LaneEnv]] = {
    "one of ours": lambda: lanes_by_id("tiger", N, 9),
    "numbers": lambda: lanes_by_id("cartpole-hidden", N),
    "Gymnasium's own vector": lambda: lanes_by_id("CartPole-v1", N, 8),
    "of Gymnasium": lambda: lanes_by_id("Pendulum-v1", N, 8),
    "a stranger's": lambda: find_environment(Drunkard, N, 20).lanes,
}


def agent_for(env: LaneEnv) -> Any:
    import torch

    torch.manual_seed(1)
    return agent_of("actor-critic", MemorySpec("gru", width=8), CriticSpec(), Spaces.of(env))


def stored(state: Any, folder: Path) -> Any:
    """The state as it comes out of a checkpoint."""
    write_checkpoint(folder / "c", {"experience": state})
    return read_checkpoint(folder / "c")["experience"]


def collected(lanes: StepLanes, agent: Any, steps: int) -> list[Episode]:
    import torch

    torch.manual_seed(2)
    return lanes.collect(agent, steps)


@pytest.mark.parametrize("name", list(MAKE))
def test_episodes_under_way_go_on_from_a_checkpoint(name: str, tmp_path: Path) -> None:
    env = MAKE[name]()
    agent, lanes = agent_for(env), StepLanes(env, N, np.random.default_rng(0))
    collected(lanes, agent, 13)
    again = StepLanes(MAKE[name](), N, np.random.default_rng(5))
    again.load(stored(lanes.state(), tmp_path))
    one, two = (collected(x, agent, 25) for x in (lanes, again))
    assert len(one) == len(two) and sum(r.age for r in one) > 0
    for a, b in zip(one, two, strict=True):
        for x, y in ((a.observations, b.observations), (a.rewards, b.rewards), (a.actions, b.actions)):
            assert_array_equal(x, y)
        assert (a.age, a.terminated, a.previous_reward) == (b.age, b.terminated, b.previous_reward)
        assert_array_equal(a.memory, b.memory)
    for x, y in zip(lanes.finished(), again.finished(), strict=True):
        assert_array_equal(x, y)
    assert lanes.rng.bit_generator.state == again.rng.bit_generator.state


def test_an_environment_that_forgets_its_seed_begins_anew_and_says_so(tmp_path: Path) -> None:
    lanes = StepLanes(find_environment(Forgetful, N, 20).lanes, N, np.random.default_rng(0))
    agent = agent_for(lanes.env)
    collected(lanes, agent, 1)
    again = StepLanes(find_environment(Forgetful, N, 20).lanes, N, np.random.default_rng(5))
    with pytest.warns(RuntimeWarning, match="begin anew, so this run is not the same to the bit: in lane"):
        again.load(stored(lanes.state(), tmp_path))
    assert [row.age for row in collected(again, agent, 1)] == [0] * N


class Stranger:
    """Lanes that cannot say where they stand: an environment of ours behind a wall."""

    def __init__(self, autoresets: bool) -> None:
        self._env: Any = lanes_by_id("CartPole-v1", N, 8) if autoresets else lanes_by_id("tiger", N, 8)

    def __getattr__(self, name: str) -> Any:
        if name in ("state", "load", "resumes", "_env"):
            raise AttributeError(name)
        return getattr(self._env, name)


@pytest.mark.parametrize("autoresets", [True, False])
def test_an_environment_that_cannot_say_where_it_stands_begins_anew(autoresets: bool, tmp_path: Path) -> None:
    """All lanes were cut at the eighth step, the last of the collection: a replay would wait for a pause."""
    env: Any = Stranger(autoresets)
    agent = agent_for(env)
    made = [StepLanes(Stranger(autoresets), N, np.random.default_rng(i)) for i in (0, 5)]  # type: ignore[arg-type]
    first, second = (Experience(x, Replay(99, N, pauses=autoresets)) for x in made)
    first.collect(agent, 8)
    second.load(stored(first.state(), tmp_path))
    assert second.lanes.rng.integers(1 << 40) == first.lanes.rng.integers(1 << 40)
    second.collect(agent, 4)
    assert [second.replay.read(i).age for i in range(N, 2 * N)] == [0] * N
