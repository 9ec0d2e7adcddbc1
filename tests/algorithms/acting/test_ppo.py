"""PPO's loss on rows of its own acting: nothing of it is padding's, order's or another episode's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from turnwise.algorithms.acting import a2c, ppo
from turnwise.algorithms.acting.ppo import Config, Targets, loss, make_targets
from turnwise.data.episode import Episode
from turnwise.data.steps import joined, pack_steps
from turnwise.envs.problems.classics import t_maze
from turnwise.envs.tabular import TabularEnv
from turnwise.models.agents.action_heads import Categorical
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.models.agents.views import Critic, HistoryView
from turnwise.models.memory.base import LearnedMemory
from turnwise.models.memory.encoders import Encoder
from turnwise.models.memory.recurrent import GRU
from turnwise.rollout.episodes.lanes import StepLanes
from turnwise.run.settings import Adam

f64 = torch.float64
C = Config(gamma=0.9, lam=0.8, visit_discount=0.95)


def agent_and_rows(lanes: int = 6) -> tuple[ActorCritic, list[Episode]]:
    """Rows of many lengths: some ended, some cut, some that begin in mid-episode."""
    env = TabularEnv(t_maze(0).showing_initial(), 7)
    torch.manual_seed(0)

    def memory() -> LearnedMemory:
        return LearnedMemory(Encoder(env.observation_space, env.action_space, 8), GRU(8))

    critic = Critic(HistoryView(memory()))
    torch.nn.init.normal_(critic.value.out.weight)
    agent = ActorCritic(memory(), Categorical(8, env.action_space.n, gain=1.0), critic).double()
    acting = StepLanes(env, lanes, np.random.default_rng(0))
    acting.collect(agent, 8)
    return agent, acting.collect(agent, 8)


def pack(rows: list[Episode]) -> Any:
    return pack_steps(rows, gamma=0.9, dtype=f64)


def moved(agent: ActorCritic) -> ActorCritic:
    """As after some updates, so that ratios are not 1."""
    with torch.no_grad():
        for p in agent.parameters():
            p += 0.05 * torch.randn_like(p)
    return agent


def gradients(agent: ActorCritic, total: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(total, list(agent.parameters())))


def part(t: Targets, b: int, n: int) -> Targets:
    return Targets(*(getattr(t, name)[b : b + 1, :n] for name in vars(t)))


def test_the_ratio_is_one_before_the_first_update() -> None:
    agent, rows = agent_and_rows()
    assert any(r.age for r in rows)
    batch = pack(rows)
    _, sums = loss(agent, batch, make_targets(agent, batch, C), 1.0, C, 0.0)
    assert abs(float(sums["kl"])) < 1e-12 and float(sums["clipped"]) == 0
    _, sums = loss(moved(agent), batch, make_targets(agent, batch, C), 1.0, C, 0.0)
    assert float(sums["kl"]) > 1e-4


def test_rows_packed_together_are_rows_alone() -> None:
    """Padding changes neither loss, gradient nor any logged sum."""
    agent, rows = agent_and_rows()
    batch = pack(rows)
    assert not batch.mask.all()
    t = make_targets(agent, batch, C)
    moved(agent)
    total, sums = loss(agent, batch, t, 7.0, C, 0.02)
    alone = [loss(agent, pack([r]), part(t, b, len(r)), 7.0, C, 0.02) for b, r in enumerate(rows)]
    added = torch.stack([x for x, _ in alone]).sum()
    assert_close(total, added, rtol=0, atol=1e-10)
    for name, value in sums.items():
        assert_close(value.double(), sum(s[name].double() for _, s in alone), rtol=0, atol=1e-10)
    for a, b in zip(gradients(agent, total), gradients(agent, added), strict=True):
        assert_close(a, b, rtol=0, atol=1e-10)


def test_the_order_of_rows_does_not_matter() -> None:
    agent, rows = agent_and_rows()
    found = []
    for order in (rows, rows[::-1]):
        batch = pack(order)
        found.append(loss(agent, batch, make_targets(agent, batch, C), 7.0, C, 0.02))
    assert_close(found[0][0], found[1][0], rtol=0, atol=1e-10)
    for name in found[0][1]:
        assert_close(found[0][1][name], found[1][1][name], rtol=0, atol=1e-10)
    for a, b in zip(gradients(agent, found[0][0]), gradients(agent, found[1][0]), strict=True):
        assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["ppo", "a2c"])
def test_masked_decisions_get_no_gradient_at_all(name: str) -> None:
    """Padding, and burn-in: read, so that memory gets there, and not learnt from."""
    agent, rows = agent_and_rows()
    long = next(r for r in rows if len(r) > 3)
    k = 2
    burnt = joined(
        replace(
            long,
            observations=long.observations[: k + 1],
            actions=long.actions[:k],
            rewards=long.rewards[:k],
            behavior_logp=None if long.behavior_logp is None else long.behavior_logp[:k],
            states=None if long.states is None else long.states[: k + 1],
            terminated=False,
            truncated=True,
        ),
        replace(
            long,
            observations=long.observations[k:],
            actions=long.actions[k:],
            rewards=long.rewards[k:],
            behavior_logp=None if long.behavior_logp is None else long.behavior_logp[k:],
            states=None if long.states is None else long.states[k:],
            age=long.age + k,
            previous_action=long.actions[k - 1],
            previous_reward=long.rewards[k - 1],
            memory=None,
        ),
    )
    batch = pack([*rows, burnt])
    assert (batch.mask & ~batch.loss_mask).sum() == k
    outputs: list[Tensor] = []

    def keep(_: Any, __: Any, out: Tensor) -> None:
        out.retain_grad()
        outputs.append(out)

    t = make_targets(agent, batch, C)
    agent.head.register_forward_hook(keep)
    agent.critic.register_forward_hook(keep)
    if name == "ppo":
        total = loss(agent, batch, t, 7.0, C, 0.02)[0]
    else:
        total = a2c.loss(agent, batch, a2c.Config(gamma=0.9), 0.02)[0]
    total.backward()
    policy, values = (x.grad for x in outputs)
    assert policy is not None and values is not None
    assert not policy[~batch.loss_mask].any() and not values[:, :-1][~batch.loss_mask].any()
    assert policy[batch.loss_mask].any(-1).all()


def test_another_episode_changes_nothing_of_mine() -> None:
    """Bit for bit, where shapes stay the same."""
    agent, rows = agent_and_rows()
    one = agent(pack(rows))
    changed = replace(rows[0], observations=(rows[0].observations + 1) % 3)
    other = agent(pack([changed, *rows[1:]]))
    assert not torch.equal(one.policy[0], other.policy[0])
    assert torch.equal(one.policy[1:], other.policy[1:]) and torch.equal(one.values[1:], other.values[1:])


def test_an_end_does_not_bootstrap_and_a_cut_does() -> None:
    """One step: the return is the reward after an end, reward + gamma V after a cut."""
    agent, rows = agent_and_rows()
    c = replace(C, lam=0.0)
    ended = next(r for r in rows if r.terminated)
    for row in (ended, replace(ended, terminated=False, truncated=True)):
        batch = pack([row])
        found = make_targets(agent, batch, c).returns[0, -1]
        value = agent(batch).values[0, -1].detach()
        assert_close(found, batch.rewards[0, -1] + (0.0 if row.terminated else 0.9) * value)


def test_weights_of_visits_go_on_in_segments() -> None:
    """Decision k of the *episode* weighs .95^k, wherever its row begins."""
    agent, rows = agent_and_rows()
    row = next(r for r in rows if r.age)
    batch = pack([row])
    expected = 0.95 ** torch.arange(row.age, row.age + len(row), dtype=f64)
    assert_close(make_targets(agent, batch, C).weights[0], expected)


def test_a_step_of_ppo_is_taken_against_the_old_policy(tmp_path: Any) -> None:
    """Numbers of one update: with a huge learning rate the clip shows; one too small to move a
    weight leaves nothing to clip.
    """
    from turnwise.run.learner import Learner
    from turnwise.run.training import TrainingRun

    for lr, wide in ((1e-30, False), (0.3, True)):
        agent, rows = agent_and_rows()
        torch.manual_seed(0)
        c = replace(C, optimizer=Adam(lr, grad_clip=0.5), epochs=3, minibatches=2)
        run = TrainingRun(tmp_path, quiet=True)
        before, real = make_targets(agent, pack(rows), c), pack(rows).loss_mask
        G, V = before.returns[real].numpy(), before.values[real].numpy()
        sums = ppo.update(Learner(agent, c.optimizer), agent, rows, c, 1.0, run)
        assert float(sums["decisions"]) == 3 * sum(len(r) for r in rows)
        assert (float(sums["clipped"]) > 0) == wide
        explained = float(sums["explained_variance"] / sums["decisions"])
        assert explained == pytest.approx(1 - (G - V).var() / G.var(), abs=1e-12)
