"""Advantage actor-critic with memory. Mnih et al. 2016, arXiv:1602.01783, algorithm S3, in one process.

    A_k   = G_k - V_k                          G: n-step, GAE or Monte Carlo (losses/estimators.py)
    L_pi  = -log pi(a_k|h_k) A_k / scale
    L_V   = (G_k - V_k)^2 / scale^2
    L     = L_pi + value_weight L_V - entropy_weight H(pi(.|h_k))

A short rollout in every lane, one gradient step on it, and the rollout is forgotten. Nothing is off-policy,
so no ratio and no clip is needed. If `n` is at least `rollout`, each return runs to the end of its row and
the value stands in there, as in the paper. Rows are segments that begin where acting stood: gradients through
memory are cut at a rollout's edge, memories are not.

Differs from the paper: lanes that step together take the place of asynchronous threads; Adam that of RMSProp;
values are in units of the returns (Pop-Art), and advantages are divided by the same scale. That scale moves
slowly, so it leaves signs and proportions of advantages alone, which standardising over a batch does not.
`visit_discount` can weight decision k by gamma^k: then the gradient is that of the discounted return from the
start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.steps import observations_of, pack_steps
from turnwise.envs.protocol import LaneEnv
from turnwise.losses.estimators import estimated_returns
from turnwise.losses.names import Estimator
from turnwise.losses.policy import policy_gradient_loss
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions
from turnwise.losses.value import explained_variance, squared_error
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.rollout.episodes.lanes import StepLanes, episode_metrics
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, SHARE, check, check_choice
from turnwise.run.learner import Learner
from turnwise.run.metrics import EPISODES, Metric
from turnwise.run.optim import annealed, scheduled
from turnwise.run.seeds import generator
from turnwise.run.settings import Adam, discount_of, lanes_of
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of A2C."""

    steps: int = 500_000
    """Steps of the environment, counted over all lanes."""
    lanes: int | None = None
    """Episodes under way at a time. More of them make gradients less noisy and memories less alike, and leave
    fewer updates. none: 64, and in proportion fewer (8 at least) where steps are fewer than by default."""
    rollout: int = 16
    """Steps in each lane between updates. Gradients through memory reach back this many steps; the memory
    itself reaches further."""
    optimizer: Adam = Adam(lr=2e-3, grad_clip=0.5)
    """Settings of the optimizer."""
    gamma: float | None = None
    """Discount per step; none: the environment's own, 0.99 if it has none."""
    estimator: Estimator = "n-step"
    """Formula of the returns."""
    lam: float = 0.95
    """Lambda of gae: 0 looks one step ahead and trusts V, 1 looks to the end and is noisier."""
    n: int = 16
    """Rewards in an n-step return, before the value stands in; `rollout` or more is to the end of rows."""
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
            gamma=SHARE,
            lam=SHARE,
            n=ONE_OR_MORE,
            entropy_weight=NOT_NEGATIVE,
            entropy_end=NOT_NEGATIVE,
            value_weight=NOT_NEGATIVE,
            visit_discount=SHARE,
        )
        check_choice(self, estimator=get_args(Estimator))


METRICS: dict[str, Metric] = EPISODES | {
    "steps": Metric("environment steps", "steps"),
    "policy_loss": Metric("policy-gradient loss", loss=True),
    "value_loss": Metric("squared error of V", "squared standard deviations of the return", loss=True),
    "explained_variance": Metric("share of the returns' variance that V explains"),
    "entropy": Metric("entropy of the policy", "nats"),
}


def loss(
    agent: ActorCritic, batch: Batch, c: Config, entropy_weight: float
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The three terms as a sum over decisions; the returns [B, A]; and sums of what is logged."""
    if batch.ages is None:
        raise ValueError("the batch has no ages; expected rows that `StepLanes` collected")
    out = agent(batch)  # policy [B, A, P], values [B, A+1]
    # Without gradient: as targets and baselines values are numbers. Only `error` below moves V.
    values, scale = out.values.detach(), agent.critic.value.scale
    returns = estimated_returns(
        c.estimator, batch.rewards, batch.discounts, values, batch.mask, n=c.n, lam=c.lam
    )
    weights = c.visit_discount ** batch.ages.to(returns.dtype)
    logp = agent.head.logp(out.policy, batch.actions)
    policy = weights * policy_gradient_loss(logp, (returns - values[:, :-1]) / scale)
    error = squared_error(out.values[:, :-1], returns) / scale**2
    entropy = agent.head.entropy(out.policy)
    objective = policy + c.value_weight * error - entropy_weight * weights * entropy
    terms = {"policy_loss": policy, "value_loss": error, "entropy": entropy}
    total, mask = sum_over_decisions(objective, batch.loss_mask), batch.loss_mask
    sums = sums_over_decisions(terms, mask)
    # One number for the batch: times the decisions, it is a sum whose mean it is.
    explained = explained_variance(values[:, :-1][mask], returns[mask])
    return total, returns, sums | {"explained_variance": explained * sums["decisions"]}


def update(
    learner: Learner,
    agent: ActorCritic,
    rows: Sequence[Episode],
    c: Config,
    remaining: float,
    run: TrainingRun,
) -> dict[str, Tensor]:
    """One gradient step on one rollout; `remaining` is the share of training that is still to come."""
    dtype = next(agent.parameters()).dtype
    batch = pack_steps(rows, gamma=discount_of(c.gamma), dtype=dtype).to(run.world.device)
    entropy_weight = annealed(c.entropy_weight, c.entropy_end, remaining)
    total, returns, sums = loss(agent, batch, c, entropy_weight)
    mean = total / (lanes_of(c.lanes, c.steps / Config.steps) * c.rollout)
    learner.descend(mean, lr=scheduled(c.optimizer, remaining))
    # Pop-Art, after the step: the loss above was in the units in which its values were computed.
    agent.critic.value.update_scale_(returns[batch.loss_mask])
    return sums


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
