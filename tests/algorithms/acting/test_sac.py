"""Discrete SAC's formulas against their fixed points, and what each loss trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from turnwise.algorithms.acting import sac
from turnwise.algorithms.acting.sac import Config
from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.steps import joined, pack_steps
from turnwise.envs.problems.classics import tiger
from turnwise.envs.protocol import Discrete
from turnwise.envs.tabular import TabularEnv
from turnwise.losses.policy import soft_policy_loss
from turnwise.losses.value import soft_values
from turnwise.models.agents.soft_actor_critic import SoftActorCritic, soft_actor_critic_of
from turnwise.models.memory.base import LearnedMemory
from turnwise.models.memory.encoders import Encoder
from turnwise.models.memory.recurrent import GRU
from turnwise.models.target import slow_copy
from turnwise.rollout.episodes.lanes import StepLanes

f64 = torch.float64


def agent_of(seed: int = 0) -> SoftActorCritic:
    """Nothing in it is zero or uniform."""
    torch.manual_seed(seed)
    a, c = (LearnedMemory(Encoder(Discrete(5), Discrete(3), w), GRU(w)) for w in (6, 4))
    agent = soft_actor_critic_of(Discrete(3), a, c).double()
    torch.nn.init.normal_(agent.head.logits.weight)
    for head in agent.critics.heads:
        torch.nn.init.normal_(head.value.out.weight)
    return agent


def batch_of(*lengths: int, terminated: bool = False) -> Batch:
    rng = np.random.default_rng(len(lengths))
    rows = [
        Episode(
            rng.integers(0, 5, n + 1), rng.integers(0, 3, n), rng.normal(size=n), terminated, not terminated
        )
        for n in lengths
    ]
    return pack_steps(rows, gamma=0.9, dtype=f64)


def test_soft_values_by_hand() -> None:
    """pi = (1/4, 3/4), Q = (4, 8), temperature 2: 7 + 2 H(pi)."""
    logits = torch.tensor([1.0, 3.0], dtype=f64).log()
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    found = soft_values(torch.tensor([4.0, 8.0], dtype=f64), logits, 2.0)
    assert abs(float(found) - (7 + 2 * entropy)) < 1e-12


def test_the_policy_loss_is_least_at_the_softmax_of_q() -> None:
    """Its gradient vanishes there, and its value is -temperature logsumexp(Q / temperature)."""
    q = torch.tensor([[0.3, -1.0, 2.0]], dtype=f64)
    logits = (q / 0.7).requires_grad_()
    loss = soft_policy_loss(logits, q, 0.7)
    loss.sum().backward()
    assert logits.grad is not None and logits.grad.abs().max() < 1e-12
    assert abs(float(loss.detach()) + 0.7 * float((q / 0.7).logsumexp(-1))) < 1e-12
    soft = soft_values(q, q / 0.7, 0.7)
    torch.testing.assert_close(soft, -loss.detach())


def test_targets_take_the_lesser_slow_critic() -> None:
    """One step that was cut: r + .9 V with V of the final history; ended: r alone."""
    agent, target = agent_of(), slow_copy(agent_of(1).critics)
    for ended in (False, True):
        batch = batch_of(1, terminated=ended)
        logits = agent.policy(batch)
        found = sac.targets(agent, target, logits, batch, Config())
        q = target(batch, None)[:, 0, 1].amin(0)
        logp = logits[0, 1].log_softmax(-1)
        v = (logp.exp() * (q - agent.temperature * target.scale * logp)).sum()
        torch.testing.assert_close(found[0, 0], batch.rewards[0, 0] + (0.0 if ended else 0.9) * v)


def gradients(agent: SoftActorCritic, batch: Batch, aim: float = 0.5) -> dict[str, float]:
    """Largest gradient of each part."""
    agent.zero_grad()
    total, _, _ = sac.loss(agent, slow_copy(agent_of(1).critics), batch, aim, 1.0, Config())
    total.backward()
    parts = {"actor": [agent.memory, agent.head], "critics": [agent.critics]}
    found = {
        name: max(float(p.grad.abs().max()) for m in modules for p in m.parameters() if p.grad is not None)
        for name, modules in parts.items()
    }
    assert agent.slow_log_temperature.grad is not None
    return found | {"temperature": float(agent.slow_log_temperature.grad)}


def test_no_loss_reaches_what_another_trains() -> None:
    """With Q the same for all actions and no temperature the actor has no gradient, and the critics have."""
    agent, batch = agent_of(), batch_of(4, 6)
    with torch.no_grad():
        agent.slow_log_temperature.fill_(-20.0)
        for head in agent.critics.heads:
            head.value.out.weight.copy_(head.value.out.weight[:1].expand(3, -1).clone())
            head.value.out.bias.fill_(0.3)
    found = gradients(agent, batch)
    assert found["actor"] < 1e-12 < 1e-3 < found["critics"]


def test_the_temperature_falls_where_the_policy_is_too_random() -> None:
    """Its gradient is the sum of H(pi) - H*: descending lowers it exactly where H(pi) is above H*."""
    batch = batch_of(3)
    agent = agent_of()
    logp = agent.policy(batch)[:, :-1].detach().log_softmax(-1)
    entropy = float(-(logp.exp() * logp).sum(-1).mean())
    for aim in (entropy - 0.1, entropy + 0.1):
        found = gradients(agent, batch, aim)["temperature"]
        assert abs(found - 3 * (entropy - aim)) < 1e-12


def test_padding_and_burn_in() -> None:
    """A longer neighbour that is masked changes nothing (1e-10); burn-in is in no loss."""
    agent, target = agent_of(), slow_copy(agent_of(1).critics)
    rng = np.random.default_rng(0)

    def row(n: int, age: int = 0) -> Episode:
        before = 1 if age else None
        obs, actions = rng.integers(0, 5, n + 1), rng.integers(0, 3, n)
        return Episode(obs, actions, rng.normal(size=n), False, True, age=age, previous_action=before)

    short, long = row(4), row(9)
    alone = pack_steps([short], gamma=0.9, dtype=f64)
    both = pack_steps([short, long], gamma=0.9, dtype=f64)
    mask = both.loss_mask.clone()
    mask[1] = False
    both = replace(both, loss_mask=mask)
    totals = []
    for batch in (alone, both):
        agent.zero_grad()
        total, _, _ = sac.loss(agent, target, batch, 0.4, 2.0, Config(n=3))
        total.backward()
        totals.append((float(total.detach()), [p.grad.clone() for p in agent.parameters()]))
    assert abs(totals[0][0] - totals[1][0]) < 1e-10
    for a, b in zip(totals[0][1], totals[1][1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
    batch = pack_steps([joined(row(3), row(5, age=3))], gamma=0.9, dtype=f64)
    richer = replace(batch, rewards=batch.rewards + 100.0 * ~batch.loss_mask)
    losses = [float(sac.loss(agent, target, b, 0.4, 1.0, Config(n=2))[0].detach()) for b in (batch, richer)]
    assert losses[0] == losses[1]


def test_rows_store_both_memories() -> None:
    """A segment's memory is what reading the episode up to it leaves in the actor and in the critics."""
    torch.manual_seed(0)
    env = TabularEnv(tiger(), 50)
    a, c = (LearnedMemory(Encoder(env.observation_space, env.action_space, w), GRU(w)) for w in (6, 4))
    agent = soft_actor_critic_of(Discrete(3), a, c)
    lanes = StepLanes(env, 2, np.random.default_rng(0))
    first, second = lanes.collect(agent, 7), lanes.collect(agent, 7)
    for before, after in zip(first, second, strict=True):
        batch = pack_steps([before], gamma=1.0)
        mine, critics = (m.unroll(batch.inputs)[0, 6] for m in (a, c))
        stored = torch.as_tensor(after.memory)
        torch.testing.assert_close(stored, torch.cat([mine, critics]), atol=1e-6, rtol=0)
