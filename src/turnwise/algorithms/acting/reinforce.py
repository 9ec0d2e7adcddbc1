"""REINFORCE with memory and a baseline. Williams 1992, "Simple statistical gradient-following algorithms".

    G_k   = r_k + gamma G_{k+1}                Monte Carlo: no value stands in for anything
    L_pi  = -log pi(a_k|h_k) (G_k - V_k) / scale                      V is a baseline and nothing else
    L_V   = (G_k - V_k)^2 / scale^2
    L     = L_pi + value_weight L_V - entropy_weight H(pi(.|h_k))

Whole episodes, one in each lane, and one gradient step on them. A baseline leaves the expected gradient as it
is, whether it sees the observation alone or the hidden state (models/agents/views.py): this is the
estimator to doubt the others with. The sum over decisions is divided by the number of episodes, a constant,
and decision k has weight `visit_discount`^k: at gamma, the expected gradient of L_pi is that of -J / scale,
with J the discounted return.

Differs from the paper: episodes are cut after `longest` steps, and what lies beyond is lost; values are in
units of the returns (Pop-Art); Adam. If `value_weight` is 0 there is no baseline: V stays at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.steps import observations_of, pack_steps
from turnwise.envs.protocol import LaneEnv
from turnwise.losses.policy import policy_gradient_loss
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions
from turnwise.losses.returns import discounted_returns
from turnwise.losses.value import explained_variance, squared_error
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.rollout.episodes.lanes import StepLanes, episode_metrics
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, SHARE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import EPISODES, Metric
from turnwise.run.optim import annealed, scheduled
from turnwise.run.seeds import generator
from turnwise.run.settings import Adam, discount_of, lanes_of
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of REINFORCE."""

    episodes: int = 20_000
    """Episodes of training, counted over all lanes."""
    lanes: int | None = None
    """Episodes between updates. More of them make gradients less noisy, as nothing else here does, and leave
    fewer updates. none: 64, and in proportion fewer (8 at least) where episodes are fewer than by default."""
    longest: int = 200
    """Steps after which an episode is cut. What it would have earned later is lost."""
    optimizer: Adam = Adam(lr=2e-3, grad_clip=5.0)
    """Settings of the optimizer."""
    gamma: float | None = None
    """Discount per step; none: the environment's own, 0.99 if it has none."""
    entropy_weight: float = 0.01
    """Weight of the bonus on the policy's entropy at first. More of it explores longer."""
    entropy_end: float = 0.0
    """Weight of the entropy bonus at the end; it changes linearly over training."""
    value_weight: float = 0.5
    """Weight of the baseline's loss. It has no effect if the baseline has a trunk of its own, except that 0
    is no baseline."""
    visit_discount: float = 1.0
    """Decision k is weighted by this number to the power k. At 1 early and late decisions count alike (the
    custom); at gamma the gradient is that of the discounted return, which agents without memory need."""

    def __post_init__(self) -> None:
        check(
            self,
            episodes=ONE_OR_MORE,
            lanes=ONE_OR_MORE,
            longest=ONE_OR_MORE,
            gamma=SHARE,
            entropy_weight=NOT_NEGATIVE,
            entropy_end=NOT_NEGATIVE,
            value_weight=NOT_NEGATIVE,
            visit_discount=SHARE,
        )


METRICS: dict[str, Metric] = EPISODES | {
    "seen": Metric("episodes", "episodes"),
    "policy_loss": Metric("policy-gradient loss", loss=True),
    "value_loss": Metric(
        "squared error of the baseline", "squared standard deviations of the return", loss=True
    ),
    "explained_variance": Metric("share of the returns' variance that the baseline explains"),
    "entropy": Metric("entropy of the policy", "nats"),
}


def loss(
    agent: ActorCritic, batch: Batch, returns: Tensor, c: Config, entropy_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The three terms as a sum over decisions, from returns [B, A]; and sums of what is logged."""
    if batch.ages is None:
        raise ValueError("the batch has no ages; expected rows that `StepLanes` collected")
    out = agent(batch)  # policy [B, A, P], values [B, A+1]
    baseline, scale = out.values[:, :-1], agent.critic.value.scale
    weights = c.visit_discount ** batch.ages.to(returns.dtype)
    logp = agent.head.logp(out.policy, batch.actions)
    # The baseline is a number here: its gradient would teach it to make the policy's loss small.
    policy = weights * policy_gradient_loss(logp, (returns - baseline.detach()) / scale)
    error = squared_error(baseline, returns) / scale**2
    entropy = agent.head.entropy(out.policy)
    objective = policy + c.value_weight * error - entropy_weight * weights * entropy
    terms = {"policy_loss": policy, "value_loss": error, "entropy": entropy}
    total, mask = sum_over_decisions(objective, batch.loss_mask), batch.loss_mask
    sums = sums_over_decisions(terms, mask)
    # One number for the batch: times the decisions, it is a sum whose mean it is.
    explained = explained_variance(baseline.detach()[mask], returns[mask])
    return total, sums | {"explained_variance": explained * sums["decisions"]}


def update(
    learner: Learner,
    agent: ActorCritic,
    rows: Sequence[Episode],
    c: Config,
    remaining: float,
    run: TrainingRun,
) -> dict[str, Tensor]:
    """One gradient step on whole episodes; `remaining` is the share of training that is still to come."""
    dtype = next(agent.parameters()).dtype
    batch = pack_steps(rows, gamma=discount_of(c.gamma), dtype=dtype).to(run.world.device)
    returns = discounted_returns(batch.rewards, batch.discounts, batch.mask)
    # Pop-Art, before the loss: the first returns set the units, not an arbitrary 1.
    agent.critic.value.update_scale_(returns[batch.loss_mask])
    entropy_weight = annealed(c.entropy_weight, c.entropy_end, remaining)
    total, sums = loss(agent, batch, returns, c, entropy_weight)
    learner.descend(total / len(rows), lr=scheduled(c.optimizer, remaining))
    return sums


def train(c: Config, env: LaneEnv, agent: ActorCritic, run: TrainingRun, seed: int) -> ActorCritic:
    """Improve `agent` in place by its own acting in `env`."""
    n = lanes_of(c.lanes, c.episodes / Config.episodes)
    lanes = StepLanes(env, n, generator(seed, 0), gamma=discount_of(c.gamma), device=str(run.world.device))
    learner = run.learner(agent, c.optimizer, experience=lanes)
    total = max(1, round(c.episodes / n))
    for step in run.steps(total, learner):
        rows = lanes.episodes(agent, c.longest)
        sums = update(learner, agent, rows, c, 1 - step / total, run)
        # Only now: while acting and learning the same observation has to be the same number.
        agent.update_standardisers_(observations_of(rows).to(run.world.device))
        if run.due(step):
            counts = {"seen": (step + 1) * n}
            run.log(step, {**counts, **run.world.means(sums), **episode_metrics(lanes)})
    return agent
