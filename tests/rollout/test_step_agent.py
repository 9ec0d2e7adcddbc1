"""Agents on disk: what is saved acts as what was trained, and in any loop."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any, get_args

import gymnasium
import numpy as np
import pytest
import torch

from turnwise.data.steps import StepInputs
from turnwise.envs.gymnasium.door import register_environments
from turnwise.envs.problems.classics import t_maze
from turnwise.envs.protocol import Discrete, Space, Vector
from turnwise.envs.tabular import TabularEnv
from turnwise.models.agents.settings import CriticName, CriticSpec, MemoryName, MemorySpec
from turnwise.models.agents.spec import Spaces, agent_of
from turnwise.rollout.episodes.lanes import StepLanes
from turnwise.rollout.load import load_step_agent
from turnwise.rollout.step_agent import StepAgent
from turnwise.run.errors import InputError

SYMBOLS = Spaces(Discrete(5), Discrete(4), Discrete(9))
VECTORS = Spaces(Vector(3), Vector(2, -2.0, 6.0), None)


def inputs(spaces: Spaces, rng: np.random.Generator, n: int, start: bool) -> StepInputs:
    def some(space: Space) -> torch.Tensor:
        if isinstance(space, Discrete):
            return torch.as_tensor(rng.integers(space.n, size=n))
        return torch.as_tensor(rng.normal(size=(n, space.size)), dtype=torch.float32)

    rewards = torch.as_tensor(rng.normal(size=n), dtype=torch.float32)
    return StepInputs(
        some(spaces.observations), some(spaces.actions), rewards, torch.full((n,), start, dtype=torch.bool)
    )


@pytest.mark.parametrize("kind", ["actor-critic", "q", "soft"])
@pytest.mark.parametrize("memory", get_args(MemoryName))
def test_what_is_saved_acts_as_what_was_trained(tmp_path: Path, kind: Any, memory: Any) -> None:
    torch.manual_seed(3)
    spec = MemorySpec(memory, width=16, layers=2, context=4, heads=2)
    agent = agent_of(kind, spec, CriticSpec(), SYMBOLS)
    for p in agent.parameters():
        torch.nn.init.normal_(p, std=0.3)
    StepAgent(agent, kind, spec, CriticSpec(), SYMBOLS).save(tmp_path / "run" / "policy")
    again = load_step_agent(tmp_path / "run").module
    rng, a, b = np.random.default_rng(0), agent.initial_state(6), again.initial_state(6)
    for t in range(7):
        x = inputs(SYMBOLS, rng, 6, t == 0)
        with torch.no_grad():
            torch.manual_seed(t)
            one, _, a = agent.act(x, a)
            torch.manual_seed(t)
            other, _, b = again.act(x, b)
        assert torch.equal(one, other) and torch.equal(a, b)


@pytest.mark.parametrize(("critic", "separate"), list(product(get_args(CriticName), [False, True])))
def test_every_critic_is_built_and_reads_what_it_names(critic: Any, separate: bool) -> None:
    """A change of hidden states reaches the values of privileged critics, and of no other."""
    problem = t_maze(2).showing_initial()
    env = TabularEnv(problem, 20)
    torch.manual_seed(0)
    agent = agent_of("actor-critic", MemorySpec(width=16), CriticSpec(critic, separate), Spaces.of(env))
    torch.nn.init.normal_(agent.critic.value.out.weight)
    rows = StepLanes(env, 4, np.random.default_rng(0)).collect(agent, 8)
    from dataclasses import replace

    from turnwise.data.steps import pack_steps

    batch = pack_steps(rows, gamma=0.9)
    moved = replace(batch, states=(batch.states + 1) % len(problem.states))
    with torch.no_grad():
        before, after = agent(batch), agent(moved)
    assert torch.equal(before.policy, after.policy)
    assert torch.equal(before.values, after.values) == (critic in ("history", "observation"))


def test_a_player_keeps_its_own_memory_in_a_gymnasium_loop(tmp_path: Path) -> None:
    """Actions of a loop equal those of the module given observation, previous action, reward and start."""
    register_environments()
    env = gymnasium.make("turnwise/TMaze-2-v0", horizon=12)
    observations = env.observation_space
    assert isinstance(observations, gymnasium.spaces.Discrete)
    spaces = Spaces(Discrete(int(observations.n)), Discrete(4), None)
    torch.manual_seed(1)
    spec = MemorySpec(width=16)
    agent = agent_of("actor-critic", spec, CriticSpec(), spaces)
    torch.nn.init.normal_(agent.head.logits.weight)
    StepAgent(agent, "actor-critic", spec, CriticSpec(), spaces).save(tmp_path)
    player = load_step_agent(tmp_path).player(greedy=True)
    for episode in range(3):
        player.reset()
        seen, _ = env.reset(seed=episode)
        state, action, reward, start, over = agent.initial_state(1), 0, 0.0, True, False
        while not over:
            x = StepInputs(
                torch.tensor([int(seen)]),
                torch.tensor([action]),
                torch.tensor([reward]),
                torch.tensor([start]),
            )
            with torch.no_grad():
                expected, _, state = agent.act_greedily(x, state)
            action = player.act(seen, reward)
            assert action == int(expected)
            seen, reward, terminated, truncated, _ = env.step(action)
            reward, start, over = float(reward), False, terminated or truncated


def test_lanes_of_a_player_begin_anew_alone() -> None:
    spec = MemorySpec(width=8)
    torch.manual_seed(0)
    agent = agent_of("actor-critic", spec, CriticSpec(), SYMBOLS)
    torch.nn.init.normal_(agent.head.logits.weight)
    saved = StepAgent(agent, "actor-critic", spec, CriticSpec(), SYMBOLS)
    both, fresh = saved.player(2, greedy=True), saved.player(1, greedy=True)
    both.act(np.array([1, 2]))
    both.reset(np.array([False, True]))
    second = both.act(np.array([3, 4]), np.array([1.0, 1.0]))
    assert second[1] == fresh.act(np.array([4]))[0]
    torch.testing.assert_close(both._memory[1:], fresh._memory)
    assert not torch.allclose(both._memory[:1], fresh._memory, atol=1e-3)


def test_vectors_come_out_within_the_bounds_of_the_environment() -> None:
    spec = MemorySpec(width=8)
    agent = agent_of("actor-critic", spec, CriticSpec(), VECTORS)
    torch.nn.init.constant_(agent.head.mean.bias, 0.5)
    player = StepAgent(agent, "actor-critic", spec, CriticSpec(), VECTORS).player(greedy=True)
    torch.nn.init.zeros_(agent.head.mean.weight)
    np.testing.assert_allclose(player.act(np.zeros(3)), [4.0, 4.0])  # -2 + (0.5 + 1) / 2 * 8
    torch.nn.init.constant_(agent.head.mean.bias, 9.0)
    np.testing.assert_allclose(player.act(np.zeros(3)), [6.0, 6.0])


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no agent\.json"):
        load_step_agent(tmp_path)
    with pytest.raises(InputError, match="does not tell its hidden state"):
        agent_of("actor-critic", MemorySpec(), CriticSpec("state"), VECTORS)
    with pytest.raises(InputError, match="actions that can be counted"):
        agent_of("q", MemorySpec(), CriticSpec(), VECTORS)
    with pytest.raises(InputError, match="width is 10; expected a multiple of 8, twice the number of heads"):
        agent_of("q", MemorySpec("transformer", width=10, heads=4), CriticSpec(), SYMBOLS)
    spec = MemorySpec(width=8)
    StepAgent(agent_of("q", spec, CriticSpec(), SYMBOLS), "q", spec, CriticSpec(), SYMBOLS).save(tmp_path)
    settings = json.loads((tmp_path / "agent.json").read_text())
    settings["memory"]["width"] = 12
    (tmp_path / "agent.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="weights do not fit"):
        load_step_agent(tmp_path)
    player = StepAgent(agent_of("q", spec, CriticSpec(), SYMBOLS), "q", spec, CriticSpec(), SYMBOLS).player()
    with pytest.raises(InputError, match="observation is 5; expected a whole number from 0 to 4"):
        player.act(5)
