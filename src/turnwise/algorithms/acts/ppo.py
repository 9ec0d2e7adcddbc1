"""PPO per act: a policy of acts improved by its own talk, with a live partner or with a learnt one.

    A_k = G_k - V(h_k),  G by GAE over turns                                                          eq. 11
    L   = -min(rho_k A_k, clamp(rho_k, 1 - clip, 1 + clip) A_k)                                        eq. 7
          + (V(h_k) - G_k)^2 / scale^2 - entropy_weight H(pi(.|h_k)) + kl_weight KL(pi || pi_0)

Schulman et al. 2017, arXiv:1707.06347, algorithm 1, where an action is an act and a step is a turn. h_k is
the talk so far as acts and answers. An iteration holds whole talks: losses are summed over the turns of a
talk and averaged over talks, so that a policy that decides when to stop gains nothing by that alone. pi_0 is
the policy that it began with, as a rule a clone of logs.

Differs from `algorithms/acting/ppo.py`, where episodes go on from one iteration to the next and memories are
carried: a talk is short, and is read whole. Policy and V have memories of their own, so that both can be
taken from what logs have taught (a clone, a critic). Advantages are standardised over an iteration and not
over a minibatch. Optimizer, schedule and step count begin anew whatever the weights come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from turnwise.data.acts.pack import pack_acts
from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.order import row_groups
from turnwise.losses.kl import exact_kl
from turnwise.losses.policy import action_logp, clipped_surrogate_loss, entropy
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions
from turnwise.losses.returns import lambda_returns
from turnwise.losses.value import explained_variance, squared_error
from turnwise.models.agents.act_actor import ActActor
from turnwise.models.agents.act_critic import ActClone
from turnwise.rollout.acts.partners import Partner
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, SHARE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import Metric, added
from turnwise.run.optim import annealed, scheduled
from turnwise.run.settings import Adam
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of PPO per act."""

    talks: int = 20_000
    """Conversations that are held in all."""
    batch: int = 200
    """Conversations between updates."""
    epochs: int = 4
    """Passes over what was talked."""
    minibatches: int = 4
    """Gradient steps per pass."""
    optimizer: Adam = Adam(lr=3e-3, schedule="linear", grad_clip=0.5)
    """Settings of the optimizer."""
    gamma: float = 1.0
    """Discount per turn. Use 1 if agents are scored by undiscounted returns."""
    lam: float = 0.95
    """Lambda of GAE: 0 looks one turn ahead and trusts V, 1 looks to the end and is noisier."""
    clip: float = 0.2
    """How far the ratio may leave 1 before its gradient stops: smaller is slower and safer."""
    entropy_weight: float = 0.01
    """Weight of the bonus on the policy's entropy at first. More of it explores longer."""
    entropy_end: float = 0.0
    """Weight of the entropy bonus at the end; it changes linearly over training."""
    kl_weight: float = 0.0
    """Weight of the distance from the policy that it began with, in standard deviations of the return per
    nat. A partner that was learnt is wrong somewhere, and a policy that stays near the logs finds less of
    that."""

    def __post_init__(self) -> None:
        check(
            self,
            talks=ONE_OR_MORE,
            batch=ONE_OR_MORE,
            epochs=ONE_OR_MORE,
            minibatches=ONE_OR_MORE,
            gamma=SHARE,
            lam=SHARE,
            clip=POSITIVE,
            entropy_weight=NOT_NEGATIVE,
            entropy_end=NOT_NEGATIVE,
            kl_weight=NOT_NEGATIVE,
        )


METRICS: dict[str, Metric] = {
    "talks": Metric("conversations so far", "conversations"),
    "episode_return": Metric("return of a conversation", "return"),
    "episode_length": Metric("length of a conversation", "turns of the agent"),
    "left_out": Metric("conversations so far that nothing was learnt from", "conversations"),
    "policy_loss": Metric("clipped surrogate", loss=True),
    "value_loss": Metric("squared error of V", "squared standard deviations of the return", loss=True),
    "explained_variance": Metric("share of the returns' variance that V explains"),
    "entropy": Metric("entropy of the policy", "nats per act"),
    "kl": Metric("KL(old policy, policy)", "nats per act"),
    "kl_begun": Metric("KL(policy, the policy that it began with)", "nats per act"),
    "clipped": Metric("share of clipped ratios"),
}


@dataclass(frozen=True)
class Targets:
    """What the losses of a minibatch compare with, computed once, before the first of its updates."""

    old_logp: Tensor
    """[B, A], log-probabilities of the acts when they were chosen."""
    values: Tensor
    """[B, A], V of the decisions."""
    advantages: Tensor
    """[B, A], standardised over the iteration."""
    returns: Tensor
    """[B, A]"""
    begun: Tensor
    """[B, A, V], logits of the policy that it began with."""


@torch.no_grad()
def make_targets(agent: ActActor, begun: ActClone, batches: Sequence[Batch], c: Config) -> list[Targets]:
    """Of all minibatches of an iteration."""
    values = [agent(b).values for b in batches]  # [B, A+1]; the final state's bootstraps talks that were cut
    returns = [
        lambda_returns(b.rewards, b.discounts, v[:, 1:], b.mask, c.lam)
        for b, v in zip(batches, values, strict=True)
    ]
    raw = [g - v[:, :-1] for g, v in zip(returns, values, strict=True)]
    counted = torch.cat([a[b.loss_mask] for a, b in zip(raw, batches, strict=True)])
    spread = counted.std(correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    found = []
    for b, v, g, a in zip(batches, values, returns, raw, strict=True):
        if b.behavior_logp is None:
            raise ValueError("expected talks with the log-probabilities of their acts")
        logits = begun(b)[:, :-1]
        found.append(Targets(b.behavior_logp, v[:, :-1], (a - counted.mean()) / spread, g, logits))
    return found


def loss(
    agent: nn.Module, batch: Batch, targets: Targets, denominator: float, c: Config, entropy_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """All terms together, a number; and sums over decisions of what is logged."""
    out = agent(batch)
    logits = out.logits[:, :-1]
    logp = action_logp(logits, batch.actions)
    surrogate = clipped_surrogate_loss(logp, targets.old_logp, targets.advantages, c.clip)
    scale: Tensor = agent.scale  # pyright: ignore[reportAssignmentType]
    error = squared_error(out.values[:, :-1], targets.returns) / scale**2
    spread = entropy(logits)
    away = exact_kl(logits, targets.begun)
    objective = surrogate + error - entropy_weight * spread + c.kl_weight * away
    log_ratio = (logp - targets.old_logp).detach()
    terms = {
        "policy_loss": surrogate,
        "value_loss": error,
        "entropy": spread,
        "kl": log_ratio.exp() - 1 - log_ratio,  # k3: acts are the old policy's, so this is KL(pi_old, pi)
        "kl_begun": away,
        "clipped": ((log_ratio.exp() - 1).abs() > c.clip).to(log_ratio.dtype),
    }
    total = sum_over_decisions(objective, batch.loss_mask) / denominator
    return total, sums_over_decisions(terms, batch.loss_mask)


def update(
    learner: Learner,
    agent: ActActor,
    begun: ActClone,
    rows: Sequence[Episode],
    c: Config,
    remaining: float,
    run: TrainingRun,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """`epochs` passes over the talks of an iteration; `remaining` is the share of training still to come."""
    groups = row_groups([len(e) for e in rows], c.minibatches, rng.permutation(len(rows)).tolist())
    batches = [pack_acts([rows[i] for i in g], gamma=c.gamma).to(run.world.device) for g in groups]
    agent.begin_(torch.tensor([float(e.rewards.sum()) for e in rows]))
    targets = make_targets(agent, begun, batches, c)
    pairs = list(zip(batches, targets, strict=True))
    returns = torch.cat([t.returns[b.loss_mask] for b, t in pairs])
    explained = explained_variance(torch.cat([t.values[b.loss_mask] for b, t in pairs]), returns)
    # Talks, of an average minibatch, and not their turns: where the policy itself decides when a talk ends, a
    # mean over turns is another gradient than that of the return.
    denominator = len(rows) / len(batches)
    entropy_weight = annealed(c.entropy_weight, c.entropy_end, remaining)
    sums: dict[str, Tensor] = {}
    for _ in range(c.epochs):
        for i in rng.permutation(len(batches)).tolist():
            total, part = loss(learner.wrapped, batches[i], targets[i], denominator, c, entropy_weight)
            learner.descend(total, lr=scheduled(c.optimizer, remaining))
            sums = added(sums, part)
    # One number for the iteration: times the decisions, it is a sum whose mean it is.
    return sums | {"explained_variance": explained * sums["decisions"]}


def train(
    c: Config, partner: Partner, agent: ActActor, begun: ActClone, run: TrainingRun, seed: int
) -> ActActor:
    """Improve `agent` in place by talking with `partner`; `begun` is its policy as it is now, and stays."""
    learner = run.learner(agent, c.optimizer)
    total = max(1, round(c.talks / c.batch))
    for step in run.steps(total, learner):
        rows, left_out = partner.talks(agent.policy, c.batch, (seed, step))
        run.count(left_out=left_out)
        if not rows:
            continue
        rng = np.random.default_rng((seed, step, 1))
        sums = update(learner, agent, begun, rows, c, 1 - step / total, run, rng)
        if run.due(step):
            means = {
                "talks": (step + 1) * c.batch,
                "episode_return": float(np.mean([e.rewards.sum() for e in rows])),
                "episode_length": float(np.mean([len(e) for e in rows])),
            }
            run.log(step, {**means, **run.world.means(sums)})
    return agent
