"""SAC of actions that are vectors: densities by quadrature, gradients against autograd, a probe."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import turnwise as tw
from turnwise.algorithms.acting import sac
from turnwise.data.episode import Episode
from turnwise.data.steps import pack_steps
from turnwise.envs.protocol import Discrete, MultiDiscrete, Vector
from turnwise.models.agents.action_heads import SquashedGaussian
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.soft_actor_critic import SoftActorCritic, TwinQOfVectors
from turnwise.models.agents.spec import Spaces, agent_of
from turnwise.models.target import slow_copy
from turnwise.run.errors import InputError

f64 = torch.float64


def agent_and_batch() -> tuple[SoftActorCritic, Any]:
    """Nothing in the agent is zero; two rows of three and two steps."""
    torch.manual_seed(0)
    where = Spaces(Discrete(4), Vector(2, -1.0, 3.0), None)
    agent = agent_of("soft", MemorySpec(width=6), CriticSpec(), where).double()
    for p in agent.parameters():
        torch.nn.init.normal_(p, std=0.4)
    rng = np.random.default_rng(1)
    rows = [
        Episode(rng.integers(0, 4, n + 1), rng.uniform(-0.9, 0.9, (n, 2)), rng.normal(size=n), over, not over)
        for n, over in ((3, True), (2, False))
    ]
    return agent, pack_steps(rows, gamma=0.9, dtype=f64)


def test_the_density_of_squashed_actions_sums_to_one_and_is_that_of_what_is_drawn() -> None:
    """On a grid of (-1, 1), for a mean of 0.7 and deviations of e^0.1 and e^-1.5 before squashing."""
    head = SquashedGaussian(3, [True]).double()
    edges = torch.linspace(-1, 1, 200_001, dtype=f64)
    middles = (edges[1:] + edges[:-1]) / 2
    for log_deviation in (0.1, -1.5):
        parameters = torch.tensor([0.7, log_deviation], dtype=f64)
        density = head.logp(parameters.expand(len(middles), 2), middles.unsqueeze(-1)).exp()
        assert abs(float(density.sum()) * 1e-5 - 1) < 1e-4
        drawn, logp = head.draw(parameters.expand(50, 2))
        torch.testing.assert_close(head.logp(parameters.expand(50, 2), drawn), logp)
        assert drawn.abs().max() < 1


def test_a_number_without_a_bound_is_not_squashed() -> None:
    head = SquashedGaussian(3, [False]).double()
    parameters = torch.tensor([[5.0, 0.0]], dtype=f64)
    assert float(head.mode(parameters)) == 5.0
    expected = -0.5 * 4 - 0.5 * math.log(2 * math.pi)  # two deviations from the mean
    assert abs(float(head.logp(parameters, torch.tensor([[7.0]], dtype=f64))) - expected) < 1e-12


def test_the_policys_gradient_is_that_through_q_and_none_goes_into_the_critics() -> None:
    agent, batch = agent_and_batch()
    actor = [*agent.memory.parameters(), *agent.head.parameters()]
    assert isinstance(agent.critics, TwinQOfVectors) and isinstance(agent.head, SquashedGaussian)

    def drawn_with(seed: int) -> Any:
        torch.manual_seed(seed)
        return agent.policy(batch)

    _, policy, spread = sac.drawn_terms(agent, drawn_with(3), batch)
    found = torch.autograd.grad(policy.sum(), actor, retain_graph=True)
    critics = torch.autograd.grad(policy.sum(), list(agent.critics.parameters()), allow_unused=True)
    assert all(g is None or not g.any() for g in critics)
    parameters = drawn_with(3)[:, :-1]
    drawn, logp = agent.head.draw(parameters)
    torch.testing.assert_close(spread, -logp)
    features = agent.critics.features(batch, None)[:, :-1].detach()
    direct = (
        agent.temperature.detach() * logp - agent.critics.q(features, drawn).amin(0) / agent.critics.scale
    )
    for one, other in zip(found, torch.autograd.grad(direct.sum(), actor), strict=True):
        torch.testing.assert_close(one, other)


def test_targets_by_hand() -> None:
    """y = r + gamma (min Q'(h', b') - alpha log pi(b')), the reward alone at a true end."""
    agent, batch = agent_and_batch()
    target = slow_copy(agent.critics)
    assert isinstance(target, TwinQOfVectors) and isinstance(agent.head, SquashedGaussian)
    parameters = agent.policy(batch)
    torch.manual_seed(5)
    y = sac.targets(agent, target, parameters, batch, sac.Config(gamma=0.9))
    torch.manual_seed(5)
    drawn, logp = agent.head.draw(parameters)
    q = target.q(target.features(batch, None), drawn).amin(0)
    alpha = agent.temperature * target.scale
    expected = batch.rewards[0, 1] + 0.9 * (q[0, 2] - alpha * logp[0, 2])
    torch.testing.assert_close(y[0, 1], expected.detach())
    torch.testing.assert_close(y[0, 2], batch.rewards[0, 2])
    assert (y[1, 1] - batch.rewards[1, 1]).abs() > 1e-6


def test_the_entropy_aimed_at_is_that_of_a_share_of_the_bounds() -> None:
    """A quarter of bounds that are 2 apart is 1/2 wide: 2 log(1/2) for two numbers; all of it is 2 log 2."""
    agent, _ = agent_and_batch()
    assert abs(sac.entropy_aim(agent, 0.25) - 2 * math.log(0.5)) < 1e-12
    assert abs(sac.entropy_aim(agent, 1.0) - 2 * math.log(2)) < 1e-12


def test_several_symbols_at_once_are_refused_by_what_cannot_choose_them() -> None:
    where = Spaces(Discrete(2), MultiDiscrete((9, 9)), None)
    for kind, words in (
        ("soft", "or vectors; expected ppo"),
        ("q", "expected ppo, a2c or reinforce for several"),
    ):
        with pytest.raises(InputError, match=words):
            agent_of(kind, MemorySpec(width=8), CriticSpec(), where)  # type: ignore[arg-type]


class Recall(gymnasium.Env[Any, Any]):
    """A number from 2 to 4 is shown; the second action earns by how near it is, the first one nothing."""

    observation_space, action_space = spaces.Box(0, 4, (1,)), spaces.Box(2, 4, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.shown, self.time = self.np_random.uniform(2, 4, 1).astype(np.float32), 0
        return self.shown, {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.time += 1
        reward = -float((action - self.shown)[0] ** 2) if self.time == 2 else 0.0
        return np.zeros(1, np.float32), reward, self.time == 2, False, {}


def test_a_number_is_recalled() -> None:
    """Without memory the best is 3, which costs 1/3. A sixth of that is asked for."""
    numbers = {"lanes": 16, "rollout": 4, "warmup": 500, "updates": 8, "burn_in": 0, "polyak": 0.2}
    config = tw.SAC(steps=3_600, optimizer=tw.Adam(1e-2), **numbers)
    actor = tw.fit(config, Recall, width=32, quiet=True, seed=1)
    assert tw.evaluate(actor, episodes=200, greedy=True, quiet=True).mean > -0.055
