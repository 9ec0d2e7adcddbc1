"""Stepping by hand: the belief is Bayes', the agent reads what it would read, the hidden state follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from turnwise.envs.problems.classics import CLASSICS, t_maze
from turnwise.envs.tabular import TabularEnv
from turnwise.evaluation.measures.agents.walk import Walk
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, agent_of
from turnwise.rollout.step_agent import Player, StepAgent
from turnwise.run.errors import InputError

TIGER = CLASSICS["tiger"]()


def agent(problem: Any, kind: Any = "actor-critic") -> StepAgent:
    torch.manual_seed(0)
    spec, spaces = MemorySpec(width=8), Spaces.of(TabularEnv(problem))
    module = agent_of(kind, spec, CriticSpec(), spaces).eval().requires_grad_(False)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return StepAgent(module, kind, spec, CriticSpec(), spaces)


def test_the_belief_of_the_tiger_is_what_one_counts() -> None:
    """Heard on the left: .85. Then it is heard there again with .85^2 + .15^2, and the odds are squared."""
    walk = Walk(TIGER, agent(TIGER).module)
    assert walk.seen is None and dict(walk.belief()) == {"tiger-left": 0.5, "tiger-right": 0.5}
    assert dict(walk.observations("listen")) == pytest.approx({"tiger-left": 0.5, "tiger-right": 0.5})
    step = walk.step("listen", "tiger-left")
    assert (step.action, step.observation, step.reward, step.ended) == ("listen", "tiger-left", -1.0, False)
    assert dict(walk.belief()) == pytest.approx({"tiger-left": 0.85, "tiger-right": 0.15})
    assert walk.observations("listen")[0] == ("tiger-left", pytest.approx(0.85**2 + 0.15**2))
    walk.step("0", "0")  # by numbers
    assert walk.belief()[0] == ("tiger-left", pytest.approx(0.85**2 / (0.85**2 + 0.15**2)))
    assert walk.rewards == [-1.0, -1.0]


def test_the_hidden_state_is_drawn_anew_from_what_was_said() -> None:
    """Of 200 walks on which the tiger is said to be heard on the left, it is there in 85% (4 deviations)."""
    walk, left = Walk(TIGER, agent(TIGER).module, seed=3), 0
    for _ in range(200):
        walk.begin()
        walk.step("listen", "tiger-left")
        left += walk.state == "tiger-left"
    assert abs(left / 200 - 0.85) < 4 * np.sqrt(0.85 * 0.15 / 200)


@pytest.mark.parametrize("kind", ["actor-critic", "q"])
def test_the_agent_does_what_its_player_does(kind: Any) -> None:
    """Greedily, on whatever is seen; and it remembers an action that was taken in its place."""
    maze = t_maze(3).showing_initial()
    saved = agent(maze, kind)
    walk, player, reward = Walk(maze, saved.module, seed=1, greedy=True), Player(saved, greedy=True), 0.0
    for t in range(12):
        seen = maze.observations.index(str(walk.seen))
        assert maze.actions[player.act(seen, reward)] == walk.intended
        forced = maze.actions[t % 2] if t % 3 == 0 else None
        if forced is not None:
            player._action[:] = maze.actions.index(forced)
        step = walk.step(forced)
        reward = step.reward
        if step.ended:
            break
    assert t > 2 and walk.values == (kind == "q")


def test_probabilities_are_drawn_from() -> None:
    walk, counts = Walk(TIGER, agent(TIGER).module, seed=5), dict.fromkeys(TIGER.actions, 0)
    for _ in range(200):
        walk.begin()
        counts[walk.intended] += 1
    for action, p in walk.choices():
        assert abs(counts[action] / 200 - p) <= 4 * np.sqrt(p * (1 - p) / 200)


def test_what_cannot_be_is_named() -> None:
    maze = t_maze(2).showing_initial()
    walk = Walk(maze, agent(maze).module)
    with pytest.raises(InputError, match=r"no action is called 'fly'; expected one of "):
        walk.step("fly")
    possible = [name for name, _ in walk.observations(maze.actions[0])]
    other = next(o for o in maze.observations if o not in possible)
    with pytest.raises(
        InputError, match=f"{other} cannot be seen after {maze.actions[0]} here; expected one"
    ):
        walk.step(maze.actions[0], other)
    assert walk.rewards == []
    for action in "EEEN":
        walk.step(action)
    with pytest.raises(InputError, match="the episode is over"):
        walk.step()
