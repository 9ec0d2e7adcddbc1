from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import cheese_maze, corridor, t_maze, tiger
from turnwise.envs.variants import continuing, ending, with_horizon
from turnwise.exact.horizon import horizon_value
from turnwise.exact.sarsop.solve import solve
from turnwise.exact.simulation import simulate
from turnwise.run.errors import InputError


@pytest.mark.parametrize("gamma", [0.95, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_so_many_steps_are_worth_what_exact_pruning_says(gamma: float, steps: int) -> None:
    p = tiger(discount=gamma)
    s = solve(with_horizon(p, steps), gap=1e-6)
    assert s.lower - 1e-6 <= horizon_value(p, steps) <= s.upper + 1e-6


def test_a_first_observation_and_ends_stay_with_a_clock() -> None:
    p = t_maze(2).showing_initial()
    s = solve(with_horizon(p, 4), gap=1e-6)
    assert s.lower - 1e-6 <= horizon_value(p, 4) <= s.upper + 1e-6
    walked = simulate(with_horizon(p, 4), s.policy, np.random.default_rng(0), 20)
    np.testing.assert_allclose(walked.returns, horizon_value(p, 4))
    assert walked.steps <= 4


def test_rewards_of_what_is_seen_stay_with_a_clock() -> None:
    p = POMDP.from_functions(
        states=2, actions=2, observations=2, transition=lambda s, a: {0: 0.25, 1: 0.75},
        observation=lambda a, s: s, reward=lambda s, a, t, o: float(a == t) + o, discount=0.9, start=0,
    )  # fmt: skip
    clocked = with_horizon(p, 3)
    assert clocked.seen_rewards is not None and len(clocked.seen_rewards) == len(clocked.rewards)
    np.testing.assert_allclose(clocked.expected_rewards().reshape(2, 3, 2)[:, 1], p.expected_rewards())


def test_a_problem_that_begins_anew_ends_there_if_asked() -> None:
    # the tiger is put anew after each door, so that listening until sure ends the episode
    over = ending(tiger())
    assert over.episodic and over.ends.reshape(-1).sum() == 8  # two doors, two sides, two sides anew
    assert solve(over, gap=1e-3).upper < 10
    assert not continuing(over).episodic
    s, t = solve(continuing(over), gap=1e-3), solve(tiger(), gap=1e-3)
    assert s.lower <= t.upper and t.lower <= s.upper
    maze = ending(cheese_maze())
    assert maze.episodic and maze.ends.sum() < len(maze.ends)


def test_standing_still_is_no_new_beginning() -> None:
    with pytest.raises(InputError, match="nothing begins anew"):
        ending(replace(tiger(), start=np.array([1.0, 0.0])))
    assert ending(corridor()).ends.sum() == corridor().ends.sum()  # what ends already stays as it is
