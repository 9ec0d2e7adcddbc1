"""Recurrent replay distributed DQN. Kapturowski et al. 2019, "Recurrent experience replay in distributed
reinforcement learning" (ICLR), section 2.3 and section 3.

    v_k   = Q'(h_k, argmax_a Q(h_k, a))                                Q': slow copy        (double Q)
    G_k   = r_k + ... + gamma^{n-1} r_{k+n-1} + gamma^n v_{k+n}        cut at a true end    (n-step)
    delta = G_k - Q(h_k, a_k)
    L     = w_b delta^2 / scale^2                                      w: undoes the priorities of rows
    p_b   = eta max_k |delta| + (1 - eta) mean_k |delta|
    Q'    <- (1 - polyak) Q' + polyak Q                                after each step

Rows are segments of `rollout` steps. The memory that acting had before a row is stored with it, but weights
have moved since: the stored memory is stale. So reading begins `burn_in` rows earlier, and what is read
before the row itself is not learnt from.

Differs from the paper: values are scaled affinely and not by h (models/agents/q_network.py says why); targets
move by Polyak averaging; gradients run through burn-in too (they are small there, and right); rows do not
overlap. The agent decides what its memory is: with a transformer there is a Q at every position; with a
memory of the observation alone it is the Q(o, a) that a POMDP does not have, kept as the example of what goes
wrong (docs/algorithms/acting/r2d2.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from turnwise.data.batch import Batch
from turnwise.data.replay import Replay
from turnwise.data.steps import pack_steps
from turnwise.envs.protocol import LaneEnv
from turnwise.losses.reduce import sum_over_decisions
from turnwise.losses.returns import n_step_returns
from turnwise.losses.value import action_values, squared_error
from turnwise.models.agents.q_network import EpsilonGreedy, QNetwork, spread
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
    """Numbers of R2D2."""

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
    optimizer: Adam = Adam(lr=1e-3, grad_clip=1.0)
    """Settings of the optimizer."""
    gamma: float | None = None
    """Discount per step; none: the environment's own, 0.99 if it has none."""
    n: int = 1
    """Rewards in a target before it bootstraps. Above 1 rewards travel faster, but the target also counts
    what exploring actions cost."""
    polyak: float = 0.02
    """Share of the online weights that the slow copy takes on at each gradient step: smaller is steadier."""
    priority_exponent: float = 0.6
    """Exponent of the priorities when rows are drawn: 0 draws all alike, 1 in proportion."""
    importance_exponent: float = 0.4
    """Exponent of the importance weights that undo the priorities in the loss: 0 not at all, 1 entirely."""
    eta: float = 0.9
    """Share of a row's largest error in its priority; the rest is that of its mean error."""
    priority_floor: float = 1e-2
    """Added to every priority, in units of the values' scale, so that no row is never drawn again."""
    epsilon: float = 1.0
    """Probability of a uniform action in the lane that explores most, at first. At 1 all lanes are random."""
    epsilon_end: float = 0.1
    """The same probability at the end; it changes linearly over training."""
    epsilon_alpha: float = 7.0
    """How much less other lanes explore: lane i has epsilon^(1 + alpha i / (lanes - 1))."""
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
            priority_exponent=NOT_NEGATIVE,
            importance_exponent=SHARE,
            eta=SHARE,
            priority_floor=NOT_NEGATIVE,
            epsilon=SHARE,
            epsilon_end=SHARE,
            epsilon_alpha=NOT_NEGATIVE,
            scale_rate=PART,
        )


METRICS: dict[str, Metric] = EPISODES | {
    "steps": Metric("environment steps", "steps"),
    "epsilon": Metric("epsilon of the lane that explores most"),
    "td": Metric("TD loss", "squared standard deviations of the target", loss=True),
    "target": Metric("mean target of Q", "return"),
    "staleness": Metric("error of Q from the stored memory", "standard deviations of the target"),
    "staleness_trained": Metric("error of Q after burn-in", "standard deviations of the target"),
}


@torch.no_grad()
def targets(target: QNetwork, q: Tensor, batch: Batch, c: Config) -> Tensor:
    """[B, A], n-step returns with the double-Q bootstrap; `q` [B, A+1, V] is the online one."""
    # Double Q: one network chooses and the other one judges. A maximum over noisy values would be too high.
    best = q.argmax(-1, keepdim=True)  # [B, A+1, 1]
    values = target(batch).gather(-1, best).squeeze(-1)  # [B, A+1]
    return n_step_returns(batch.rewards, batch.discounts, values[:, 1:], batch.mask, c.n)


def loss(
    agent: QNetwork, target: QNetwork, batch: Batch, weights: Tensor, denominator: float, c: Config
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss; targets [B, A]; errors [B, A] in units of the values' scale."""
    q = agent(batch)  # [B, A+1, V]
    q_taken = action_values(q[:, :-1], batch.actions)  # [B, A]
    returns = targets(target, q, batch, c)  # [B, A]
    scale = agent.head.value.scale
    error = weights.unsqueeze(-1) * squared_error(q_taken, returns) / scale**2
    td = ((returns - q_taken) / scale).detach()
    return sum_over_decisions(error, batch.loss_mask) / denominator, returns, td


def priorities(td: Tensor, mask: Tensor, c: Config) -> Tensor:
    """[B], eta max + (1 - eta) mean of |td| over what is learnt from, and the floor.

    The maximum alone would draw rows with one bad step for ever; the mean alone hides it among good ones.
    """
    size = td.abs().masked_fill(~mask, 0.0)
    mean = size.sum(1) / mask.sum(1)
    return c.eta * size.amax(1) + (1 - c.eta) * mean + c.priority_floor


def update(
    learner: Learner, replay: Replay, rng: np.random.Generator, c: Config, remaining: float
) -> dict[str, Tensor]:
    """One gradient step on rows from the replay; sums over decisions of what is logged.

    `remaining` is the share of training that is still to come.
    """
    agent, target = learner.module, learner.target
    assert isinstance(agent, QNetwork)
    like = next(agent.parameters())
    drawn = replay.sample(rng, c.batch_size, c.importance_exponent)
    # Burn-in: rows come with those before them, whose decisions are in `mask` and not in `loss_mask`.
    batch = pack_steps(
        [replay.read(i, c.burn_in) for i in drawn.rows], gamma=discount_of(c.gamma), dtype=like.dtype
    )
    batch = batch.to(like.device)
    weights = torch.as_tensor(drawn.weights).to(like)  # [B]
    denominator = c.batch_size * replay.steps / len(replay)  # decisions of an average batch
    total, returns, td = loss(agent, target, batch, weights, denominator, c)
    learner.descend(total, lr=scheduled(c.optimizer, remaining))
    polyak_(target, agent, c.polyak)
    learnt = returns[batch.loss_mask]  # [decisions]
    # Pop-Art. Both networks are shown the same targets and so stay in the same units: Polyak averaging mixes
    # their weights, which would mean nothing if a weight of 1 were 5 units in one and 7 in the other.
    for network in (agent, target):
        network.head.value.update_scale_(learnt, c.scale_rate)
    replay.reprioritise(drawn.rows, priorities(td, batch.loss_mask, c).double().cpu().numpy())
    return {
        "td": sum_over_decisions(td**2, batch.loss_mask),
        "target": learnt.sum(),
        "decisions": batch.loss_mask.sum(),
    }


@torch.no_grad()
def staleness(agent: QNetwork, replay: Replay, rows: np.ndarray, back: int, c: Config) -> float | None:
    """How much Q depends on how old the stored memory is: mean |Q - Q_fresh|, in units of values' scale.

    Q is read from the memory stored `back` rows before each row, Q_fresh from the beginning of the episode
    (as far as the replay holds it). The mean is over actions and decisions of those `rows` for which the two
    read something different; None if there are no such rows. Section 3 of the paper has Delta Q over max Q,
    at single decisions.
    """
    like = next(agent.parameters())
    pairs = [(replay.read(i, back), replay.read(i, None)) for i in rows]
    pairs = [(near, far) for near, far in pairs if near.age > far.age]
    if not pairs:
        return None
    q = []
    for episodes in zip(*pairs, strict=True):
        batch = pack_steps(episodes, gamma=discount_of(c.gamma), dtype=like.dtype).to(like.device)
        q.append(agent(batch)[:, :-1][batch.loss_mask])
    return float((q[0] - q[1]).abs().mean() / agent.head.value.scale)


def train(c: Config, env: LaneEnv, agent: QNetwork, run: TrainingRun, seed: int) -> QNetwork:
    """Improve `agent` in place by acting in `env` and replaying what happened."""
    lanes = StepLanes(
        env, c.lanes, generator(seed, 0), gamma=discount_of(c.gamma), device=str(run.world.device)
    )
    replay = Replay(c.capacity, c.lanes, exponent=c.priority_exponent, pauses=env.autoresets)
    experience = Experience(lanes, replay)
    learner = run.learner(agent, c.optimizer, target=slow_copy(agent), experience=experience)
    total = max(1, round(c.steps / (c.lanes * c.rollout)))
    for step in run.steps(total, learner):
        remaining = 1 - step / total
        epsilon = annealed(c.epsilon, c.epsilon_end, remaining)
        experience.collect(EpsilonGreedy(agent, spread(epsilon, c.epsilon_alpha, c.lanes)), c.rollout)
        rng, sums = generator(seed, 1, step), {}
        for _ in range(c.updates if replay.steps >= min(c.warmup, c.capacity) else 0):
            part = update(learner, replay, rng, c, remaining)
            sums = added(sums, part)
        if run.due(step):
            metrics = {"steps": (step + 1) * c.lanes * c.rollout, "epsilon": epsilon}
            metrics |= episode_metrics(lanes) | (run.world.means(sums) if sums else {})
            rows = replay.sample(rng, c.batch_size).rows
            for name, back in (("staleness", 0), ("staleness_trained", c.burn_in)):
                stale = staleness(agent, replay, rows, back, c)
                metrics |= {} if stale is None else {name: stale}
            run.log(step, metrics)
    return agent
