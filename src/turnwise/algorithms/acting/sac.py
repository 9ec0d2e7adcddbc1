"""Soft actor-critic with memory. Haarnoja et al. 2018, arXiv:1812.05905; for actions that can be counted
Christodoulou 2019, arXiv:1910.07207, algorithm 1; with memories apart as in Ni et al. 2021, arXiv:2110.05038.

    V_k   = sum_a pi(a|h_k) (min_i Q'_i(h_k, a) - alpha log pi(a|h_k))      eq. 10 of Christodoulou
    y_k   = r_k + ... + gamma^{n-1} r_{k+n-1} + gamma^n V_{k+n}             eq. 3 at n = 1
    L_Q   = sum_i (y_k - Q_i(h_k, a_k))^2 / scale^2                         eq. 4
    L_pi  = sum_a pi(a|h_k) (alpha log pi(a|h_k) - min_i Q_i(h_k, a)) / scale    eq. 12
    L_al  = log(alpha / scale) (H(pi(.|h_k)) - H*)                          eq. 11, in the logarithm
    Q'    <- (1 - polyak) Q' + polyak Q                                     after each step

Of actions that are vectors one is drawn where these sum over all: b_k ~ pi(.|h_k), as tanh of a normal,

    V_k   = min_i Q'_i(h_k, b_k) - alpha log pi(b_k|h_k)                    eq. 3 of Haarnoja et al.
    L_pi  = alpha log pi(b_k|h_k) - min_i Q_i(h_k, b_k) / scale             eq. 7, through b_k
    L_al  = log(alpha / scale) (-log pi(b_k|h_k) - H*)                      eq. 18

Rows are segments, read from the memories (the actor's and the critics') that acting had before the row
`burn_in` rows earlier; what is read before the row itself is not learnt from.

Differs from the papers: alpha is learnt per unit of the values' scale, so that it means the same if returns
are 4 and if they are -100; the entropy H* that it aims at falls to nearly none (at Christodoulou's constant
.98 log|A| the policy stays nearly uniform; Haarnoja's -1 for each number of a vector is a share of .18 of its
bounds); the three losses share one optimizer, because no gradient of one reaches what another one trains.
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
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions
from turnwise.losses.returns import n_step_returns
from turnwise.losses.value import action_values, soft_values, squared_error
from turnwise.models.agents.action_heads import Categorical, SquashedGaussian
from turnwise.models.agents.soft_actor_critic import SoftActorCritic, TwinQ, TwinQOfVectors
from turnwise.models.target import polyak_, slow_copy
from turnwise.rollout.episodes.experience import Experience
from turnwise.rollout.episodes.lanes import StepLanes, episode_metrics
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, PART, SHARE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import EPISODES, Metric, added
from turnwise.run.optim import annealed, scheduled
from turnwise.run.seeds import generator
from turnwise.run.settings import Adam, discount_of
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of SAC."""

    steps: int = 150_000
    """Steps of the environment, counted over all lanes."""
    lanes: int = 32
    """Episodes under way at a time."""
    rollout: int = 32
    """Steps in each lane between updates: the length of the rows that are stored and replayed."""
    capacity: int = 100_000
    """Steps that the replay holds; the oldest rows make room."""
    warmup: int = 5_000
    """Steps in the replay before learning begins."""
    updates: int = 16
    """Gradient steps after each collection. More of them use each step better and cost time."""
    batch_size: int = 32
    """Rows per gradient step."""
    burn_in: int = 1
    """Rows that are read before the row that is learnt from, so that its memory is of today's weights."""
    optimizer: Adam = Adam(lr=1e-3, grad_clip=10.0)
    """Settings of the optimizer."""
    gamma: float | None = None
    """Discount per step; none: the environment's own, 0.99 if it has none."""
    n: int = 1
    """Rewards in a target before it bootstraps. Above 1 rewards travel faster, but the target also counts
    what actions of older policies cost."""
    polyak: float = 0.05
    """Share of the critics' weights that their slow copy takes on at each gradient step: smaller is
    steadier."""
    entropy: float = 0.7
    """Entropy of the policy that the temperature aims at, as a share of log|A|, at first. Of vectors: that of
    actions spread evenly over this share of the bounds."""
    entropy_end: float = 0.02
    """The same share when three quarters of training are over, and from then on; it changes linearly."""
    scale_rate: float = 0.01
    """How far mean and scale of values move towards those of the targets at each gradient step."""

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


LEAST_SHARE = 1e-4
"""of the bounds, over which vectors are spread: a policy that draws nothing has no entropy at all"""

METRICS: dict[str, Metric] = EPISODES | {
    "steps": Metric("environment steps", "steps"),
    "td": Metric("TD loss, both critics", "squared standard deviations of the target", loss=True),
    "target": Metric("mean target of Q", "return"),
    "entropy": Metric("entropy of the policy", "nats"),
    "temperature": Metric("temperature", "return per nat"),
}


def entropy_aim(agent: SoftActorCritic, share: float) -> float:
    """H*, in nats: `share` of log|A|, or the log-volume of that share of the bounds, which are 2 apart."""
    if isinstance(agent.head, Categorical):
        return share * math.log(agent.head.actions)
    return len(agent.head.bounded) * math.log(2 * max(share, LEAST_SHARE))


@torch.no_grad()
def targets(
    agent: SoftActorCritic, target: TwinQ | TwinQOfVectors, parameters: Tensor, batch: Batch, c: Config
) -> Tensor:
    """[B, A], n-step returns with the soft value of where they lead; `parameters` [B, A+1, P]."""
    alpha = agent.temperature * target.scale  # units of return per nat
    state0 = agent.parts(batch.state0)[1]
    # The smaller of two noisy values: the policy seeks out what is overestimated, a mean would not resist.
    if isinstance(target, TwinQ):
        q = target(batch, state0).amin(0)  # [E, B, A+1, V] -> [B, A+1, V]
        values = soft_values(q, parameters, alpha)  # [B, A+1]
    else:
        assert isinstance(agent.head, SquashedGaussian)
        drawn, logp = agent.head.draw(parameters)  # [B, A+1, d], [B, A+1]
        values = target.q(target.features(batch, state0), drawn).amin(0) - alpha * logp
    return n_step_returns(batch.rewards, batch.discounts, values[:, 1:], batch.mask, c.n)


def counted_terms(agent: SoftActorCritic, parameters: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Q of the actions taken [E, B, A]; loss and entropy of the policy [B, A], sums over all actions."""
    critics, logits = agent.critics, parameters[:, :-1]
    assert isinstance(critics, TwinQ) and batch.actions is not None
    q = critics(batch, agent.parts(batch.state0)[1])[:, :, :-1]  # [E, B, A, V]
    # Q and the temperature are numbers to the policy, and its entropy is one to the temperature: each of the
    # three losses trains one part, which is why one optimizer can take all of them in one step.
    policy = soft_policy_loss(logits, q.detach().amin(0) / critics.scale, agent.temperature.detach())
    return action_values(q, batch.actions), policy, entropy(logits)


def drawn_terms(agent: SoftActorCritic, parameters: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The same of vectors, by one action drawn at each decision."""
    critics, head = agent.critics, agent.head
    assert isinstance(critics, TwinQOfVectors) and isinstance(head, SquashedGaussian)
    assert batch.actions is not None
    features = critics.features(batch, agent.parts(batch.state0)[1])[:, :-1]
    drawn, logp = head.draw(parameters[:, :-1])  # [B, A, d], [B, A]
    # How Q rises with the action is a number to the policy, so that its gradient goes into no critic.
    there = drawn.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critics.q(features.detach(), there).amin(0).sum(), there)
    policy = agent.temperature.detach() * logp - (drawn * slope).sum(-1) / critics.scale
    return critics.q(features, batch.actions), policy, -logp


def loss(
    agent: SoftActorCritic,
    target: TwinQ | TwinQOfVectors,
    batch: Batch,
    aim: float,
    denominator: float,
    c: Config,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The three terms together; targets [B, A]; sums over decisions. `aim` is H*, in nats."""
    parameters = agent.policy(batch)  # [B, A+1, P]
    terms = counted_terms if isinstance(agent.critics, TwinQ) else drawn_terms
    q, policy, spread = terms(agent, parameters, batch)  # [E, B, A], [B, A], [B, A]
    y = targets(agent, target, parameters, batch, c)  # [B, A]
    error = squared_error(q, y).sum(0) / agent.critics.scale**2
    temperature = agent.slow_log_temperature * (spread.detach() - aim)
    objective = error + policy + temperature
    sums = sums_over_decisions({"td": error, "entropy": spread, "target": y}, batch.loss_mask)
    return sum_over_decisions(objective, batch.loss_mask) / denominator, y, sums


def update(
    learner: Learner, replay: Replay, rng: np.random.Generator, c: Config, remaining: float
) -> dict[str, Tensor]:
    """One gradient step on rows from the replay; sums over decisions of what is logged.

    `remaining` is the share of training that is still to come.
    """
    agent, target = learner.module, learner.target
    assert isinstance(agent, SoftActorCritic)
    like = next(agent.parameters())
    rows = replay.sample(rng, c.batch_size).rows
    # Burn-in: rows come with those before them, whose decisions are in `mask` and not in `loss_mask`.
    batch = pack_steps(
        [replay.read(i, c.burn_in) for i in rows], gamma=discount_of(c.gamma), dtype=like.dtype
    )
    batch = batch.to(like.device)
    share = annealed(c.entropy, c.entropy_end, max(0.0, remaining - 0.25) / 0.75)
    aim = entropy_aim(agent, share)
    denominator = c.batch_size * replay.steps / len(replay)  # decisions of an average batch
    total, y, sums = loss(agent, target, batch, aim, denominator, c)
    learner.descend(total, lr=scheduled(c.optimizer, remaining))
    polyak_(target, agent.critics, c.polyak)
    # Pop-Art. Both are shown the same targets and so stay in the same units, which Polyak averaging needs.
    for critics in (agent.critics, target):
        critics.update_scale_(y[batch.loss_mask], c.scale_rate)
    return sums


def train(c: Config, env: LaneEnv, agent: SoftActorCritic, run: TrainingRun, seed: int) -> SoftActorCritic:
    """Improve `agent` in place by acting in `env` and replaying what happened."""
    lanes = StepLanes(
        env, c.lanes, generator(seed, 0), gamma=discount_of(c.gamma), device=str(run.world.device)
    )
    replay = Replay(c.capacity, c.lanes, pauses=env.autoresets)
    experience = Experience(lanes, replay)
    learner = run.learner(agent, c.optimizer, target=slow_copy(agent.critics), experience=experience)
    total = max(1, round(c.steps / (c.lanes * c.rollout)))
    for step in run.steps(total, learner):
        experience.collect(agent, c.rollout)
        rng, sums = generator(seed, 1, step), {}
        for _ in range(c.updates if replay.steps >= min(c.warmup, c.capacity) else 0):
            part = update(learner, replay, rng, c, 1 - step / total)
            sums = added(sums, part)
        if run.due(step):
            temperature = float(agent.temperature.detach() * agent.critics.scale)
            metrics = {"steps": (step + 1) * c.lanes * c.rollout, "temperature": temperature}
            metrics |= episode_metrics(lanes) | (run.world.means(sums) if sums else {})
            run.log(step, metrics)
    return agent
