"""Advantage actor-critic with memory. Mnih et al. 2016, arXiv:1602.01783, algorithm S3, in one process.

    A_k   = G_k - V_k                          G: n-step, GAE or Monte Carlo (losses/estimators.py)
    L_pi  = -log pi(a_k|h_k) A_k / scale
    L_V   = (G_k - V_k)^2 / scale^2
    L     = L_pi + value_weight L_V - entropy_weight H(pi(.|h_k))

A short rollout in every lane, one gradient step on it, and the rollout is forgotten: nothing is off-policy,
so that no ratio and no clip is needed. With `n` of at least `rollout` each return runs to the end of its
row and the value stands in there, as in the paper. Rows are segments that begin where acting stood:
gradients through memory are cut at a rollout's edge, memories are not. Differs from the paper: lanes in
step with each other for its asynchronous threads, Adam for RMSProp, values in units of the returns
(Pop-Art) and advantages divided by the same scale, which moves slowly and leaves their expectation's sign
and proportions alone (standardising over a batch does not), and `visit_discount` can weight decision k by
gamma^k: then the gradient is that of the discounted return from the start.
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
from turnwise.losses.reduce import sum_over_decisions
from turnwise.losses.value import squared_error
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.rollout.episodes import StepLanes, told
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, SHARE, check, check_choice
from turnwise.run.optim import adam, descend, linear
from turnwise.run.seeds import generator
from turnwise.run.settings import Adam
from turnwise.run.training import Learner, Run


@dataclass(frozen=True)
class Config:
    """Numbers of A2C."""

    steps: int = 500_000
    """steps of the environment, over all lanes"""
    lanes: int = 64
    """episodes under way at a time"""
    rollout: int = 16
    """steps in each lane between updates; gradients of memory reach as far back"""
    optimizer: Adam = Adam(lr=2e-3, grad_clip=0.5)
    """Settings of the optimizer."""
    gamma: float = 0.99
    """discount per step"""
    estimator: Estimator = "n-step"
    """formula of the returns"""
    lam: float = 0.95
    """lambda of gae: 0 one step, 1 all of them"""
    n: int = 16
    """steps of n-step; of at least `rollout`: to the end of each row"""
    entropy_weight: float = 0.01
    """of the bonus on the policy's entropy, at first"""
    entropy_end: float = 0.0
    """of the bonus, at the end; it falls linearly"""
    value_weight: float = 0.5
    """of the critic's loss; no matter where trunks are separate"""
    visit_discount: float = 1.0
    """weight of decision k is this to the power of k: gamma gives the discounted return's own gradient"""

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


def loss(
    agent: ActorCritic, batch: Batch, c: Config, entropy_weight: float
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The three terms as a sum over decisions; the returns [B, A]; and what is logged, as sums."""
    if batch.ages is None:
        raise ValueError("rows of one's own acting have ages")
    out = agent(batch)
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
    logged = {"policy_loss": policy, "value_loss": error, "entropy": entropy}
    sums = {name: sum_over_decisions(x.detach(), batch.loss_mask) for name, x in logged.items()}
    sums["decisions"] = batch.loss_mask.sum()
    return sum_over_decisions(objective, batch.loss_mask), returns, sums


def update(
    learner: Learner, agent: ActorCritic, rows: Sequence[Episode], c: Config, left: float, run: Run
) -> dict[str, Tensor]:
    """One gradient step on one rollout; `left` is the share of training that is still to come."""
    dtype = next(agent.parameters()).dtype
    batch = pack_steps(rows, gamma=c.gamma, dtype=dtype).to(run.world.device)
    entropy_weight = c.entropy_end + (c.entropy_weight - c.entropy_end) * left
    total, returns, sums = loss(agent, batch, c, entropy_weight)
    descend(
        agent,
        learner.optimizer,
        total / (c.lanes * c.rollout),
        c.optimizer,
        lr=linear(c.optimizer, left),
    )
    agent.critic.value.rescale_(returns[batch.loss_mask])
    return sums


def train(c: Config, env: LaneEnv, agent: ActorCritic, run: Run, seed: int) -> ActorCritic:
    """Improve `agent` in place by its own acting in `env`."""
    run.world.place(agent)
    lanes = StepLanes(env, c.lanes, generator(seed, 0), gamma=c.gamma, device=str(run.world.device))
    learner = Learner(agent, adam(agent, c.optimizer), experience=lanes)
    total = max(1, round(c.steps / (c.lanes * c.rollout)))
    for step in run.steps(total, learner):
        rows = lanes.collect(agent, c.rollout)
        sums = update(learner, agent, rows, c, 1 - step / total, run)
        agent.see_(observations_of(rows).to(run.world.device))
        if run.due(step, total):
            run.log(step, {"steps": (step + 1) * c.lanes * c.rollout, **run.world.means(sums), **told(lanes)})
    return agent
