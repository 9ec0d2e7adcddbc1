"""Soft actor-critic for discrete actions, with memory. Christodoulou 2019, arXiv:1910.07207, algorithm 1;
Haarnoja et al. 2018, arXiv:1812.05905; with memories apart as in Ni et al. 2021, arXiv:2110.05038.

    V_k   = sum_a pi(a|h_k) (min_i Q'_i(h_k, a) - alpha log pi(a|h_k))      eq. 10 of Christodoulou
    y_k   = r_k + ... + gamma^{n-1} r_{k+n-1} + gamma^n V_{k+n}             eq. 3 at n = 1
    L_Q   = sum_i (y_k - Q_i(h_k, a_k))^2 / scale^2                         eq. 4
    L_pi  = sum_a pi(a|h_k) (alpha log pi(a|h_k) - min_i Q_i(h_k, a)) / scale    eq. 12
    L_al  = log(alpha / scale) (H(pi(.|h_k)) - H*)                          eq. 11, in the logarithm
    Q'    <- (1 - polyak) Q' + polyak Q                                     after each step

Rows are segments, read from the memories (the actor's and the critics') that acting had before the row
`burn_in` rows earlier; what is read before the row itself is not learnt from. Differs from the papers: alpha
is learnt per unit of the values' scale, so that it means the same where returns are 4 and where they are
-100; the entropy H* that it aims at falls to nearly none (at Christodoulou's constant .98 log|A| the policy
stays nearly uniform); three losses, one optimiser: no gradient of one reaches what another one trains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from turnwise.data.batch import Batch
from turnwise.data.replay import Replay
from turnwise.data.steps import pack_steps
from turnwise.envs.protocol import LaneEnv
from turnwise.losses.policy import entropy, soft_policy_loss
from turnwise.losses.reduce import sum_over_decisions
from turnwise.losses.returns import n_step_returns
from turnwise.losses.value import soft_values, squared_error
from turnwise.models.agents.soft_actor_critic import SoftActorCritic, TwinQ
from turnwise.models.target import polyak_, slow_copy
from turnwise.rollout.episodes import StepLanes, told
from turnwise.rollout.experience import Experience
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, PART, SHARE, check
from turnwise.run.optim import adam, descend, linear
from turnwise.run.seeds import generator
from turnwise.run.settings import Adam
from turnwise.run.training import Learner, Run


@dataclass(frozen=True)
class Config:
    """Numbers of discrete SAC."""

    steps: int = 150_000
    """steps of the environment, over all lanes"""
    lanes: int = 32
    """episodes under way at a time"""
    rollout: int = 32
    """steps in each lane between updates: the length of rows"""
    capacity: int = 100_000
    """steps that the replay holds"""
    warmup: int = 5_000
    """steps in the replay before learning begins"""
    updates: int = 16
    """gradient steps after each collection"""
    batch_size: int = 32
    """rows per gradient step"""
    burn_in: int = 1
    """rows before the row learnt from that are read first"""
    optimizer: Adam = Adam(lr=1e-3, grad_clip=10.0)
    """Settings of the optimizer."""
    gamma: float = 0.99
    """discount per step"""
    n: int = 1
    """rewards in a target before it bootstraps; above 1 what replayed actions cost counts too"""
    polyak: float = 0.05
    """share of the weights that the slow copy of the critics takes on at each gradient step"""
    entropy: float = 0.7
    """entropy that the temperature aims at, as a share of log|A|, at first"""
    entropy_end: float = 0.02
    """the same when three quarters of training are over, and from then on; it falls linearly"""
    scale_rate: float = 0.01
    """how fast mean and scale of values follow those of targets, per gradient step"""

    def __post_init__(self) -> None:
        check(
            self,
            steps=ONE_OR_MORE,
            lanes=ONE_OR_MORE,
            rollout=ONE_OR_MORE,
            capacity=ONE_OR_MORE,
            warmup=NOT_NEGATIVE,
            updates=ONE_OR_MORE,
            batch_size=ONE_OR_MORE,
            burn_in=NOT_NEGATIVE,
            gamma=SHARE,
            n=ONE_OR_MORE,
            polyak=PART,
            entropy=SHARE,
            entropy_end=NOT_NEGATIVE,
            scale_rate=PART,
        )


@torch.no_grad()
def targets(agent: SoftActorCritic, target: TwinQ, logits: Tensor, batch: Batch, c: Config) -> Tensor:
    """[B, A], n-step returns with the soft value of where they lead; `logits` [B, A+1, V]."""
    alpha = agent.temperature * target.scale
    q = target(batch, agent.parts(batch.state0)[1]).amin(0)
    values = soft_values(q, logits, alpha)[:, 1:]
    return n_step_returns(batch.rewards, batch.discounts, values, batch.mask, c.n)


def loss(
    agent: SoftActorCritic, target: TwinQ, batch: Batch, aim: float, denominator: float, c: Config
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The three terms together; targets [B, A]; sums over decisions. `aim` is H*, in nats."""
    logits = agent.policy(batch)
    q = agent.critics(batch, agent.parts(batch.state0)[1])[:, :, :-1]
    y = targets(agent, target, logits, batch, c)
    scale, logits = agent.critics.scale, logits[:, :-1]
    index = batch.actions.expand(q.shape[:-1]).unsqueeze(-1)
    error = squared_error(q.gather(-1, index).squeeze(-1), y).sum(0) / scale**2
    policy = soft_policy_loss(logits, q.detach().amin(0) / scale, agent.temperature.detach())
    spread = entropy(logits)
    temperature = agent.slow_log_temperature * (spread.detach() - aim)
    objective = error + policy + temperature
    sums = {"td": error, "entropy": spread, "target": y}
    sums = {name: sum_over_decisions(x.detach(), batch.loss_mask) for name, x in sums.items()}
    sums["decisions"] = batch.loss_mask.sum()
    return sum_over_decisions(objective, batch.loss_mask) / denominator, y, sums


def update(
    learner: Learner, replay: Replay, rng: np.random.Generator, c: Config, left: float
) -> dict[str, Tensor]:
    """One gradient step on rows from the replay; sums over decisions."""
    agent, target = learner.module, learner.target
    assert isinstance(agent, SoftActorCritic)
    like = next(agent.parameters())
    rows = replay.sample(rng, c.batch_size).rows
    batch = pack_steps([replay.read(i, c.burn_in) for i in rows], gamma=c.gamma, dtype=like.dtype)
    batch = batch.to(like.device)
    share = c.entropy_end + (c.entropy - c.entropy_end) * max(0.0, left - 0.25) / 0.75
    aim = share * math.log(agent.head.logits.out_features)
    total, y, sums = loss(agent, target, batch, aim, c.batch_size * replay.steps / len(replay), c)
    descend(agent, learner.optimizer, total, c.optimizer, lr=linear(c.optimizer, left))
    polyak_(target, agent.critics, c.polyak)
    for critics in (agent.critics, target):  # the same seen by both: they stay in the same units
        critics.rescale_(y[batch.loss_mask], c.scale_rate)
    return sums


def train(c: Config, env: LaneEnv, agent: SoftActorCritic, run: Run, seed: int) -> SoftActorCritic:
    """Improve `agent` in place by acting in `env` and replaying what happened."""
    run.world.place(agent)
    lanes = StepLanes(env, c.lanes, generator(seed, 0), gamma=c.gamma, device=str(run.world.device))
    replay = Replay(c.capacity, c.lanes, pauses=env.begins_while_stepping)
    experience = Experience(lanes, replay)
    learner = Learner(agent, adam(agent, c.optimizer), slow_copy(agent.critics), experience)
    total = max(1, round(c.steps / (c.lanes * c.rollout)))
    for step in run.steps(total, learner):
        experience.collect(agent, c.rollout)
        rng, sums = generator(seed, 1, step), {}
        for _ in range(c.updates if replay.steps >= min(c.warmup, c.capacity) else 0):
            part = update(learner, replay, rng, c, 1 - step / total)
            sums = {name: sums.get(name, 0.0) + value for name, value in part.items()}
        if run.due(step, total):
            temperature = float(agent.temperature.detach() * agent.critics.scale)
            metrics = {"steps": (step + 1) * c.lanes * c.rollout, "temperature": temperature, **told(lanes)}
            run.log(step, metrics | (run.world.means(sums) if sums else {}))
    return agent
