"""Every kind of space: a player in anybody's loop does what evaluation measured."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import turnwise as tw
from turnwise.envs.gymnasium.lanes import translation_of
from turnwise.envs.gymnasium.written import space_of, written
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, agent_of
from turnwise.recipes.environments import find_environment
from turnwise.recipes.trained import Actor
from turnwise.rollout.step_agent import StepAgent
from turnwise.run.errors import InputError

BOTH = {
    "Box, even": spaces.Box(-2, 2, (3,), np.float32),
    "Box, uneven": spaces.Box(np.array([0.0, -4.0, 1.0]), np.array([1.0, 4.0, 1.5]), dtype=np.float64),
    "Box, from 0 on": spaces.Box(0, np.inf, (2,), np.float32),
    "Box, up to 3": spaces.Box(-np.inf, 3, (2, 1), np.float32),
    "Box, of integers": spaces.Box(np.array([0, -5]), np.array([7, 5]), dtype=np.int32),
    "Discrete": spaces.Discrete(4),
    "Discrete, from 1 on": spaces.Discrete(5, start=1),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3], start=[0, 4]),
    "MultiDiscrete, large": spaces.MultiDiscrete([[9, 8], [3, 2]]),
    "MultiBinary": spaces.MultiBinary(4),
    "Tuple": spaces.Tuple((spaces.Discrete(2, start=-1), spaces.MultiDiscrete([3, 2]))),
    "Dict": spaces.Dict({"b": spaces.Box(-1, 1, (2,)), "a": spaces.Dict({"c": spaces.Box(0, 9, (1, 2))})}),
}
SEEN = {
    "image": spaces.Box(0, 255, (12, 16, 3), np.uint8),
    "image among others": spaces.Dict(
        {"see": spaces.Box(0, 255, (2, 9, 8), np.uint8), "go": spaces.Discrete(3), "say": spaces.Text(3)}
    ),
}


class Shows(gymnasium.Env[Any, Any]):
    """Shows samples of its space for six steps; an action pays by its numbers, and must be of its space."""

    def __init__(self, seen: spaces.Space[Any], done: spaces.Space[Any]) -> None:
        # Spaces draw from generators of their own, which lanes must not share.
        self.observation_space, self.action_space = copy.deepcopy((seen, done))
        size = spaces.flatdim(done)
        self.pays = np.random.default_rng(1).normal(size=size)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action} is not of {self.action_space}"
        self.t += 1
        reward = float(spaces.flatten(self.action_space, action) @ self.pays)
        return self.observation_space.sample(), reward, self.t == 6, False, {}


def actor_in(env: Any, folder: Path) -> Actor:
    """A saved agent with large weights, so that what it sees decides what it does; loaded again."""
    lanes = find_environment(env, 1, None).lanes
    memory, critic, where = MemorySpec(width=8), CriticSpec(), Spaces.of(lanes)
    torch.manual_seed(2)
    agent = agent_of("actor-critic", memory, critic, where)
    for p in agent.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p)
    StepAgent(agent, "actor-critic", memory, critic, where, translation_of(lanes)).save(folder / "agent")
    found = tw.load(folder / "agent")
    assert isinstance(found, Actor)
    return found


@pytest.mark.parametrize(
    ("seen", "done"),
    [(s, s) for s in BOTH.values()] + [(s, BOTH["Dict"]) for s in SEEN.values()],
    ids=[*BOTH, *SEEN],
)
def test_a_player_earns_in_a_loop_what_evaluate_measures(tmp_path: Path, seen: Any, done: Any) -> None:
    """The likeliest actions, episode by episode from the same seeds; then four episodes at a time."""
    env, n = Shows(seen, done), 4
    actor = actor_in(env, tmp_path)
    measured = tw.evaluate(actor, env, episodes=n, lanes=n, greedy=True, quiet=True)
    seeds = np.random.default_rng(0).integers(2**31, size=n).tolist()
    player, returns = actor.player(greedy=True), []
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        player.reset()
        reward, total, over = 0.0, 0.0, False
        while not over:
            observation, reward, over, _, _ = env.step(player.act(observation, reward))
            total += reward
        returns.append(total)
    assert np.ptp(returns) > 0
    np.testing.assert_allclose(np.mean(returns), measured.mean, rtol=1e-4)
    envs = gymnasium.vector.SyncVectorEnv([lambda: Shows(seen, done)] * n)
    many, (observations, _) = actor.player(n, greedy=True), envs.reset(seed=seeds)
    rewards, totals = np.zeros(n), np.zeros(n)
    for _ in range(6):
        observations, rewards, *_ = envs.step(many.act(observations, rewards))
        totals += rewards
    np.testing.assert_allclose(totals, returns, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("space", [*BOTH.values(), *SEEN.values()], ids=[*BOTH, *SEEN])
def test_a_space_is_written_and_read_again(space: spaces.Space[Any]) -> None:
    assert space_of(json.loads(json.dumps(written(space), allow_nan=False))) == space


def test_a_player_says_what_it_expected_to_see(tmp_path: Path) -> None:
    player = actor_in(Shows(BOTH["Dict"], BOTH["Discrete"]), tmp_path).player()
    whole = {"b": np.zeros(2, np.float32), "a": {"c": np.zeros((1, 2), np.float32)}}
    player.act(whole)
    for wrong, words in [
        (np.zeros(4), r"expected a dict with a, b"),
        ({"b": whole["b"]}, "a dict without a"),
        (whole | {"b": np.zeros(3, np.float32)}, r"of shape \(3,\) \(b\); expected shape \(2,\)"),
        (whole | {"b": np.array([0, np.nan])}, r"nan.* \(b\); expected finite numbers"),
    ]:
        with pytest.raises(InputError, match=words):
            player.act(wrong)
    with pytest.raises(InputError, match="the reward is nan; expected finite numbers"):
        player.act(whole, float("nan"))
