"""What an environment shows after a true end reaches no target: 0 times no number is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from turnwise.algorithms.acting import a2c, ppo, r2d2, reinforce, sac
from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.replay import Replay
from turnwise.data.steps import pack_steps
from turnwise.envs.protocol import Discrete, Vector
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, agent_of
from turnwise.models.target import slow_copy

SPACES = Spaces(Vector(2), Discrete(3), Vector(1))


def rows(last: float) -> list[Episode]:
    """An episode of three steps that ended, with numbers `last` behind it, and one of two that was cut."""
    rng, found = np.random.default_rng(0), []
    for n, over in ((3, True), (2, False)):
        seen = rng.normal(size=(n + 1, 2)).astype(np.float32)
        states = rng.normal(size=(n + 1, 1)).astype(np.float32)
        if over:
            seen[-1] = states[-1] = last
        logp = np.full(n, -1.0)
        found.append(Episode(seen, rng.integers(0, 3, n), rng.normal(size=n), over, not over, logp, states))
    return found


def through_replay(last: float) -> Batch:
    """Rows of two lanes, stored, brought to a checkpoint and back, read and packed."""
    one, two = (Replay(100, 1) for _ in range(2))
    one.add(rows(last), 5)
    two.load(one.state())
    return pack_steps([two.read(0), two.read(1)], gamma=0.9)


def targets_of(algorithm: Any, batch: Batch) -> Tensor:
    """What values learn, or what weighs log-probabilities."""
    torch.manual_seed(0)
    kind: Any = {r2d2: "q", sac: "soft"}.get(algorithm, "actor-critic")
    agent = agent_of(kind, MemorySpec(width=8), CriticSpec("history+state", separate=True), SPACES)
    for p in agent.parameters():
        torch.nn.init.normal_(p)
    if algorithm is r2d2:
        return r2d2.targets(slow_copy(agent), agent(batch), batch, r2d2.Config(gamma=0.9, n=2))
    if algorithm is sac:
        return sac.targets(agent, slow_copy(agent.critics), agent.policy(batch), batch, sac.Config(gamma=0.9))
    return ppo.make_targets(agent, batch, ppo.Config(gamma=0.9)).returns


@pytest.mark.parametrize("algorithm", [ppo, r2d2, sac], ids=lambda m: m.__name__.rsplit(".", 1)[1])
def test_no_target_knows_what_followed_an_end(algorithm: Any) -> None:
    expected = targets_of(algorithm, through_replay(0.25))
    assert expected.isfinite().all()
    for last in (float("nan"), float("inf"), 1e9):
        torch.testing.assert_close(targets_of(algorithm, through_replay(last)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("algorithm", [a2c, reinforce], ids=lambda m: m.__name__.rsplit(".", 1)[1])
def test_no_gradient_does_either(algorithm: Any) -> None:
    found = []
    for last in (0.25, float("nan")):
        torch.manual_seed(0)
        agent = agent_of("actor-critic", MemorySpec(width=8), CriticSpec("history+state"), SPACES)
        batch = pack_steps(rows(last), gamma=0.9)
        if algorithm is a2c:
            total, *_ = a2c.loss(agent, batch, a2c.Config(gamma=0.9), 0.1)
        else:
            total, _ = reinforce.loss(agent, batch, batch.rewards, reinforce.Config(gamma=0.9), 0.1)
        total.backward()
        found.append([p.grad for p in agent.parameters() if p.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
