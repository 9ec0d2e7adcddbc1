"""A solved policy in action: the belief inside, observations by number or name, what cannot be seen."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from turnwise.envs.gymnasium.door import register_environments
from turnwise.envs.problems.classics import corridor, t_maze, tiger
from turnwise.envs.variants import with_horizon
from turnwise.exact.alpha_policy import AlphaPolicy
from turnwise.exact.controller_search import best_controller
from turnwise.exact.player import Player
from turnwise.exact.sarsop.solve import solve
from turnwise.run.errors import InputError


def test_the_belief_is_inside() -> None:
    p = tiger()
    player = Player(p, solve(p).policy)
    assert player.act() == 0
    np.testing.assert_allclose(player.belief, [0.5, 0.5])
    assert player.act("tiger-left") == 0
    np.testing.assert_allclose(player.belief, [0.85, 0.15])
    assert p.actions[player.act(0)] == "open-right"  # the second time on the same side: .97
    np.testing.assert_allclose(player.belief, np.array([0.85**2, 0.15**2]) / (0.85**2 + 0.15**2))
    player.reset()
    assert player.act(None) == 0 and player.belief.tolist() == [0.5, 0.5]


def test_lanes_are_players_side_by_side() -> None:
    p = tiger()
    policy = solve(p).policy
    many, one = Player(p, policy, 3), Player(p, policy)
    assert many.act([2, 2, 2]).tolist() == [0, 0, 0]
    for seen in ([0, 1, 0], [0, 0, 1], [1, 1, 0]):
        actions = many.act(seen)
    one.act()
    assert actions.tolist()[1] == [one.act(o) for o in (1, 0, 1)][-1]
    many.reset(np.array([False, True, False]))
    many.act([0, 2, 1])
    np.testing.assert_allclose(many.belief[1], [0.5, 0.5])


def test_the_loop_of_gymnasium_plays_it() -> None:
    register_environments()
    p = t_maze(5)  # its environment shows the cue at once, and the solved policy waits for it in vain
    player, env = Player(p, solve(p.showing_initial()).policy), gym.make("turnwise/TMaze-5-v0")
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        player.reset()
        total, over, steps = 0.0, False, 0
        while not over:
            observation, reward, terminated, truncated, _ = env.step(player.act(observation))
            over, total, steps = terminated or truncated, total + 0.9**steps * float(reward), steps + 1
        assert total == pytest.approx(4 * 0.9**6)


def test_a_plan_is_followed_at_discount_one_and_a_horizon_ends() -> None:
    p = corridor()
    player = Player(p, solve(p, gap=1e-6).policy)
    assert player.act(None if p.initial is None else 0) in range(len(p.actions))
    short = with_horizon(tiger(), 2)
    player = Player(short, solve(short).policy)
    player.act()
    player.act(0)
    with pytest.raises(InputError, match="ended the episode for sure"):
        player.act(0)


def test_a_controller_plays_too() -> None:
    p = tiger()
    found = best_controller(p, 1, np.random.default_rng(0), 3).controller
    player = Player(p, found, 4, seed=1)
    assert set(player.act([2] * 4).tolist()) <= {0, 1, 2}
    assert len(player.act([0, 1, 0, 1])) == 4


@pytest.mark.parametrize("seen", ["hear-up", 3, -1, 0.5])
def test_what_is_no_observation_is_named(seen: object) -> None:
    p = tiger()
    player = Player(p, AlphaPolicy(np.zeros((1, 2)), np.array([0]), None))
    player.act()
    with pytest.raises(InputError, match=r"observation .*; expected a number from 0 to 1, or a name"):
        player.act(seen)


def test_nothing_seen_after_an_action_is_refused() -> None:
    p = tiger()
    player = Player(p, AlphaPolicy(np.zeros((1, 2)), np.array([0]), None))
    player.act()
    with pytest.raises(InputError, match="no observation after an action"):
        player.act()
