"""Whole episodes measured: means against exact values, horizons against what they leave out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from turnwise.envs.problems.classics import CLASSICS, tiger
from turnwise.envs.tabular import TabularEnv
from turnwise.evaluation.measures.agents.episodes import (
    NEGLIGIBLE,
    episode_summary,
    horizon_for,
    play,
    tail_of,
)
from turnwise.exact.controllers import Controller, controller_value
from turnwise.models.agents.actor_critic import ActOutput


class Memoryless:
    """pi(a|o) from a table [I, A]; it remembers nothing."""

    def __init__(self, policy: np.ndarray) -> None:
        self.policy = torch.as_tensor(policy)

    def act(self, inputs: Any, state: torch.Tensor) -> ActOutput:
        p = self.policy[inputs.observation]
        actions = torch.multinomial(p, 1).squeeze(-1)
        return ActOutput(actions, p.log().gather(-1, actions.unsqueeze(-1)).squeeze(-1), state)

    def initial_state(self, lanes: int) -> torch.Tensor:
        return torch.zeros(lanes, 0)


@pytest.mark.parametrize("name", ["airlock", "t-maze-2", "cheese"])
def test_the_mean_is_the_exact_value(name: str) -> None:
    """A random memoryless policy: sampled mean and linear algebra agree within 4 standard errors (seed 3)."""
    problem = CLASSICS[name]()
    _, A, O = problem.shape
    policy = np.random.default_rng(3).dirichlet(np.ones(A), O + 1)
    steps = horizon_for(problem)
    held = play(
        Memoryless(policy),
        TabularEnv(problem, steps),
        episodes=1500,
        lanes=500,
        longest=steps,
        gamma=problem.discount,
        seed=3,
    )
    found = episode_summary(held, gamma=problem.discount, seed=0)
    exact = controller_value(problem, Controller.memoryless(policy))
    assert abs(found["mean"] - exact) < 4 * found["standard_error"] + tail_of(problem, steps)
    assert found["low"] < found["mean"] < found["high"]


def test_one_episode_counts_once_whatever_its_length() -> None:
    """Ended by a coin at each step, episodes have 2 steps on average: short ones are not favoured."""
    from turnwise.envs.pomdp import POMDP

    coin = POMDP.from_arrays(
        np.array([[[0.5, 0.5], [0.0, 1.0]]]),
        np.array([[[1.0], [1.0]]]),
        np.array([[1.0, 0.0]]),
        discount=1.0,
        start=np.array([1.0, 0.0]),
        ends=np.array([False, True]),
    )
    one = Memoryless(np.ones((2, 1)))
    held = play(one, TabularEnv(coin), episodes=999, lanes=50, longest=200, gamma=1.0, seed=1)
    found = episode_summary(held, gamma=None, seed=1)
    assert len(held) == 999 and found["truncated"] == 0
    # Variance of the geometric length is 2; 4 standard errors of 999 episodes are 0.18.
    assert abs(found["length"] - 2) < 0.18 and found["mean"] == found["length"]


def test_the_same_seed_gives_the_same_episodes_and_leaves_torch_alone() -> None:
    problem = tiger()
    policy = np.full((3, 3), 1 / 3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = (
        play(Memoryless(policy), TabularEnv(problem, 9), episodes=5, lanes=4, longest=9, gamma=1.0, seed=2)
        for _ in range(2)
    )
    assert [e.rewards.tolist() for e in first] == [e.rewards.tolist() for e in again]
    assert torch.equal(before, torch.get_rng_state())


def test_the_horizon_leaves_out_next_to_nothing() -> None:
    """Tiger: 100 * 0.95^H / 0.05 < 1e-3 from H = log(1e-3 * 0.05 / 100) / log(0.95) = 282.9 on."""
    assert horizon_for(tiger()) == 283
    assert tail_of(tiger(), 283) < NEGLIGIBLE < tail_of(tiger(), 282)
    assert horizon_for(replace(tiger(), discount=0.0)) == 1
    assert horizon_for(replace(tiger(), discount=1.0)) == 5000
