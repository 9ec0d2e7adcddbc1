"""Proximal policy optimisation with memory. Schulman et al. 2017, arXiv:1707.06347, algorithm 1.

    A_k   = G_k - V_k                          G: Monte Carlo, n-step or GAE (losses/estimators.py)    eq. 11
    L_pi  = -min(rho_k A_k, clamp(rho_k, 1 - clip, 1 + clip) A_k)                                       eq. 7
    L_V   = (G_k - V_k)^2 / scale^2
    L     = L_pi + value_weight L_V - entropy_weight H(pi(.|h_k))                                       eq. 9

with rho_k = pi(a_k|h_k) / pi_old(a_k|h_k).

Rows are episodes, or segments that begin where acting stood: the stored memory is read first, so that rho is
1 before the first update. Minibatches are made of whole rows, because a memory cannot be read from the middle
of one. The agent decides what V sees, and whether V shares the actor's memory (models/agents/views.py).

Differs from the paper: advantages are standardised over each minibatch; values are in units of the returns
(Pop-Art); observations that are vectors are standardised by all that were seen before this iteration; the
learning rate stays, so that a short run learns at its rate to the end (in the paper's Atari runs, table 5, it
falls: `schedule` linear). As in the paper, and unlike in OpenAI's baselines, the error of V is not clipped.
`visit_discount` can weight decision k by gamma^k: then the first gradient is that of the discounted return
from the start, which matters if one policy has to serve early and late histories (agents without memory).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.order import row_groups
from turnwise.data.steps import observations_of, pack_steps
from turnwise.envs.protocol import LaneEnv
from turnwise.losses.estimators import estimated_returns, standardised
from turnwise.losses.names import Estimator
from turnwise.losses.policy import clipped_surrogate_loss
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions
from turnwise.losses.value import explained_variance, squared_error
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.rollout.episodes.lanes import StepLanes, episode_metrics
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, SHARE, check, check_choice
from turnwise.run.learner import Learner
from turnwise.run.metrics import EPISODES, Metric, added
from turnwise.run.optim import annealed, scheduled
from turnwise.run.seeds import generator
from turnwise.run.settings import Adam, discount_of, lanes_of
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of PPO."""

    steps: int = 500_000
    """Steps of the environment, counted over all lanes."""
    lanes: int | None = None
    """Episodes under way at a time. More of them make gradients less noisy and memories less alike, and leave
    fewer updates. none: 64, and in proportion fewer (8 at least) where steps are fewer than by default."""
    rollout: int = 64
    """Steps in each lane between updates. Gradients through memory reach back this many steps; the memory
    itself reaches further."""
    epochs: int = 4
    """Passes over what was collected. More of them learn faster from each step, until ratios are clipped."""
    minibatches: int = 4
    """Gradient steps per pass."""
    optimizer: Adam = Adam(lr=1e-3, schedule="constant", grad_clip=0.5)
    """Settings of the optimizer."""
    gamma: float | None = None
    """Discount per step; none: the environment's own, 0.99 if it has none."""
    estimator: Estimator = "gae"
    """Formula of the returns."""
    lam: float = 0.95
    """Lambda of gae: 0 looks one step ahead and trusts V, 1 looks to the end and is noisier."""
    n: int = 5
    """Rewards in an n-step return, before the value stands in."""
    clip: float = 0.2
    """How far the ratio may leave 1 before its gradient stops: smaller is slower and safer."""
    entropy_weight: float = 0.01
    """Weight of the bonus on the policy's entropy at first. More of it explores longer."""
    entropy_end: float = 0.0
    """Weight of the entropy bonus at the end; it changes linearly over training."""
    value_weight: float = 0.5
    """Weight of the critic's loss. It has no effect if actor and critic have separate trunks."""
    visit_discount: float = 1.0
    """Decision k is weighted by this number to the power k. At 1 early and late decisions count alike (the
    custom); at gamma the gradient is that of the discounted return, which agents without memory need."""

    def __post_init__(self) -> None:
        check(
            self,
            steps=ONE_OR_MORE,
            lanes=ONE_OR_MORE,
            rollout=ONE_OR_MORE,
            epochs=POSITIVE,
            minibatches=ONE_OR_MORE,
            gamma=SHARE,
            lam=SHARE,
            n=ONE_OR_MORE,
            clip=POSITIVE,
            entropy_weight=NOT_NEGATIVE,
            entropy_end=NOT_NEGATIVE,
            value_weight=NOT_NEGATIVE,
            visit_discount=SHARE,
        )
        check_choice(self, estimator=get_args(Estimator))


METRICS: dict[str, Metric] = EPISODES | {
    "steps": Metric("environment steps", "steps"),
    "policy_loss": Metric("clipped surrogate", loss=True),
    "value_loss": Metric("squared error of V", "squared standard deviations of the return", loss=True),
    "explained_variance": Metric("share of the returns' variance that V explains"),
    "entropy": Metric("entropy of the policy", "nats"),
    "kl": Metric("KL(old policy, policy)", "nats"),
    "clipped": Metric("share of clipped ratios"),
}


@dataclass(frozen=True)
class Targets:
    """What the losses of a minibatch compare with, computed once, before the first of its updates."""

    old_logp: Tensor
    """[B, A], log-probabilities of the actions when they were taken."""
    values: Tensor
    """[B, A], V of the decisions, in the units of rewards."""
    advantages: Tensor
    """[B, A], standardised over the minibatch."""
    returns: Tensor
    """[B, A], in the units of rewards."""
    weights: Tensor
    """[B, A], `visit_discount` to the power of the decision's place in its episode."""


@torch.no_grad()
def make_targets(agent: ActorCritic, batch: Batch, c: Config) -> Targets:
    """Values of the agent as it acted; returns and advantages by the estimator."""
    values = agent(batch).values  # [B, A+1]; the final state's bootstraps rows that were cut
    returns = estimated_returns(
        c.estimator, batch.rewards, batch.discounts, values, batch.mask, n=c.n, lam=c.lam
    )
    if batch.behavior_logp is None or batch.ages is None:
        raise ValueError("expected rows that `StepLanes` collected, with log-probabilities and ages")
    return Targets(
        batch.behavior_logp,
        values[:, :-1],
        standardised(returns - values[:, :-1], batch.loss_mask),
        returns,
        c.visit_discount ** batch.ages.to(returns.dtype),
    )


def loss(
    agent: ActorCritic, batch: Batch, targets: Targets, denominator: float, c: Config, entropy_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The three terms together, a number; and sums over decisions of what is logged."""
    out = agent(batch)  # policy [B, A, P], values [B, A+1]
    logp = agent.head.logp(out.policy, batch.actions)  # [B, A]
    surrogate = targets.weights * clipped_surrogate_loss(logp, targets.old_logp, targets.advantages, c.clip)
    entropy = agent.head.entropy(out.policy)
    # In standard deviations of the return, so that value_weight and lr mean the same whatever the task pays.
    error = squared_error(out.values[:, :-1], targets.returns) / agent.critic.value.scale**2
    objective = surrogate + c.value_weight * error - entropy_weight * targets.weights * entropy
    log_ratio = (logp - targets.old_logp).detach()
    terms = {
        "policy_loss": surrogate,
        "value_loss": error,
        "entropy": entropy,
        "kl": log_ratio.exp() - 1 - log_ratio,  # k3: actions are the old policy's, so this is KL(pi_old, pi)
        "clipped": ((log_ratio.exp() - 1).abs() > c.clip).to(log_ratio.dtype),
    }
    total = sum_over_decisions(objective, batch.loss_mask) / denominator
    return total, sums_over_decisions(terms, batch.loss_mask)


def update(
    learner: Learner,
    agent: ActorCritic,
    rows: Sequence[Episode],
    c: Config,
    remaining: float,
    run: TrainingRun,
) -> dict[str, Tensor]:
    """`epochs` passes over the rows; `remaining` is the share of training that is still to come."""
    dtype = next(agent.parameters()).dtype

    def pack(chosen: Sequence[Episode]) -> Batch:
        return pack_steps(chosen, gamma=discount_of(c.gamma), dtype=dtype).to(run.world.device)

    order = torch.randperm(len(rows)).tolist()
    groups = row_groups([len(e) for e in rows], c.minibatches, order)
    batches = [pack([rows[i] for i in group]) for group in groups]
    targets = [make_targets(agent, batch, c) for batch in batches]
    pairs = list(zip(targets, batches, strict=True))
    returns = torch.cat([t.returns[b.loss_mask] for t, b in pairs])  # [decisions]
    explained = explained_variance(torch.cat([t.values[b.loss_mask] for t, b in pairs]), returns)
    # Pop-Art: the units of V follow the returns, and V itself stays as it is. Targets above are in the units
    # of rewards, so it does not matter that they were made before.
    agent.critic.value.update_scale_(returns)
    denominator = len(returns) / len(batches)  # of an average minibatch: all decisions weigh alike
    sums: dict[str, Tensor] = {}
    entropy_weight = annealed(c.entropy_weight, c.entropy_end, remaining)
    for _ in range(c.epochs):
        for i in torch.randperm(len(batches)).tolist():
            total, part = loss(agent, batches[i], targets[i], denominator, c, entropy_weight)
            learner.descend(total, lr=scheduled(c.optimizer, remaining))
            sums = added(sums, part)
    # One number for the update: times the decisions, it is a sum whose mean it is.
    return sums | {"explained_variance": explained * sums["decisions"]}


def train(c: Config, env: LaneEnv, agent: ActorCritic, run: TrainingRun, seed: int) -> ActorCritic:
    """Improve `agent` in place by its own acting in `env`."""
    n = lanes_of(c.lanes, c.steps / Config.steps)
    lanes = StepLanes(env, n, generator(seed, 0), gamma=discount_of(c.gamma), device=str(run.world.device))
    learner = run.learner(agent, c.optimizer, experience=lanes)
    total = max(1, round(c.steps / (n * c.rollout)))
    for step in run.steps(total, learner):
        rows = lanes.collect(agent, c.rollout)
        sums = update(learner, agent, rows, c, 1 - step / total, run)
        # Only now: while acting and learning the same observation has to be the same number.
        agent.update_standardisers_(observations_of(rows).to(run.world.device))
        if run.due(step):
            counts = {"steps": (step + 1) * n * c.rollout}
            run.log(step, {**counts, **run.world.means(sums), **episode_metrics(lanes)})
    return agent
