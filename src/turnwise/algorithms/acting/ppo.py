"""Proximal policy optimisation with memory. Schulman et al. 2017, arXiv:1707.06347, algorithm 1.

    A_k   = G_k - V_k                          G: Monte Carlo, n-step or GAE (losses/estimators.py)
    L_pi  = -min(rho_k A_k, clamp(rho_k, 1 - clip, 1 + clip) A_k),  rho_k = pi(a_k|h_k) / pi_old(a_k|h_k)
    L_V   = (G_k - V_k)^2 / scale^2
    L     = L_pi + value_weight L_V - entropy_weight H(pi(.|h_k))

Rows are episodes, or segments that begin where acting stood: the stored memory is read first, so that rho is
1 before the first update. Minibatches are of whole rows. What V sees, and whether it shares the actor's
memory, is the agent's affair (models/agents/critics.py). Differs from the paper: advantages are standardised
over the batch, values are in units of the returns (Pop-Art) and not clipped, observations that are vectors
are standardised by all that were seen before this iteration, the learning rate falls linearly, and
`visit_discount` can weight decision k by gamma^k: then the gradient is exactly that of the discounted return
from the start, which matters where one policy has to serve early and late histories (agents without memory).
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
from turnwise.losses.reduce import sum_over_decisions
from turnwise.losses.value import squared_error
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.rollout.episodes import StepLanes, told
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, SHARE, check, check_choice
from turnwise.run.optim import adam, descend, linear
from turnwise.run.seeds import generator
from turnwise.run.settings import Adam
from turnwise.run.training import Learner, Run


@dataclass(frozen=True)
class Config:
    """Numbers of PPO."""

    steps: int = 500_000
    """steps of the environment, over all lanes"""
    lanes: int = 64
    """episodes under way at a time"""
    rollout: int = 64
    """steps in each lane between updates"""
    epochs: int = 4
    """passes over what was collected"""
    minibatches: int = 4
    """gradient steps per pass"""
    optimizer: Adam = Adam(lr=1e-3, grad_clip=0.5)
    """Settings of the optimizer."""
    gamma: float = 0.99
    """discount per step"""
    estimator: Estimator = "gae"
    """formula of the returns"""
    lam: float = 0.95
    """lambda of gae: 0 one step, 1 all of them"""
    n: int = 5
    """steps of n-step"""
    clip: float = 0.2
    """how far the ratio may leave 1 before its gradient stops"""
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


@dataclass(frozen=True)
class Targets:
    """What was true of a batch before the first update."""

    old_logp: Tensor
    """[B, A]"""
    advantages: Tensor
    """[B, A], standardised"""
    returns: Tensor
    """[B, A]"""
    weights: Tensor
    """[B, A]"""


@torch.no_grad()
def targets(agent: ActorCritic, batch: Batch, c: Config) -> Targets:
    """Values by the agent as it acted, returns and advantages by the estimator."""
    values = agent(batch).values
    returns = estimated_returns(
        c.estimator, batch.rewards, batch.discounts, values, batch.mask, n=c.n, lam=c.lam
    )
    if batch.behavior_logp is None or batch.ages is None:
        raise ValueError("rows of one's own acting have log-probabilities and ages")
    return Targets(
        batch.behavior_logp,
        standardised(returns - values[:, :-1], batch.loss_mask),
        returns,
        c.visit_discount ** batch.ages.to(returns.dtype),
    )


def loss(
    agent: ActorCritic, batch: Batch, t: Targets, denominator: float, c: Config, entropy_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The three terms together; and their sums over decisions."""
    out = agent(batch)
    logp = agent.head.logp(out.policy, batch.actions)
    surrogate = t.weights * clipped_surrogate_loss(logp, t.old_logp, t.advantages, c.clip)
    entropy = agent.head.entropy(out.policy)
    error = squared_error(out.values[:, :-1], t.returns) / agent.critic.value.scale**2
    objective = surrogate + c.value_weight * error - entropy_weight * t.weights * entropy
    with torch.no_grad():
        shift = logp - t.old_logp
        sums = {
            "policy_loss": surrogate.detach(),
            "value_loss": error.detach(),
            "entropy": entropy.detach(),
            "kl": shift.exp() - 1 - shift,
            "clipped": ((shift.exp() - 1).abs() > c.clip).to(shift.dtype),
        }
        sums = {name: sum_over_decisions(x, batch.loss_mask) for name, x in sums.items()}
        sums["decisions"] = batch.loss_mask.sum()
    return sum_over_decisions(objective, batch.loss_mask) / denominator, sums


def update(
    learner: Learner, agent: ActorCritic, rows: Sequence[Episode], c: Config, left: float, run: Run
) -> dict[str, Tensor]:
    """`epochs` passes over the rows; `left` is the share of training that is still to come."""
    dtype = next(agent.parameters()).dtype

    def pack(chosen: Sequence[Episode]) -> Batch:
        return pack_steps(chosen, gamma=c.gamma, dtype=dtype).to(run.world.device)

    order = torch.randperm(len(rows)).tolist()
    groups = row_groups([len(e) for e in rows], c.minibatches, order)
    batches = [pack([rows[i] for i in group]) for group in groups]
    told = [targets(agent, batch, c) for batch in batches]
    seen = torch.cat([t.returns[b.loss_mask] for t, b in zip(told, batches, strict=True)])
    agent.critic.value.rescale_(seen)
    denominator = len(seen) / len(batches)
    sums: dict[str, Tensor] = {}
    entropy_weight = c.entropy_end + (c.entropy_weight - c.entropy_end) * left
    for _ in range(c.epochs):
        for i in torch.randperm(len(batches)).tolist():
            total, part = loss(agent, batches[i], told[i], denominator, c, entropy_weight)
            descend(agent, learner.optimizer, total, c.optimizer, lr=linear(c.optimizer, left))
            sums = {name: sums.get(name, torch.zeros(())) + value for name, value in part.items()}
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
