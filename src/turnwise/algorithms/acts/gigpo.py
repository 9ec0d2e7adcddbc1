"""Group-in-group policy optimisation per act: an act beside those that others chose at an equal state.

    Vhat(h_k) = mean return-to-go of the other conversations at an equal state; where there is none,
                mean return of the other conversations - what this one has earned before k
    A_k       = delta_k + d_k lambda A_{k+1},   delta_k = r_k + d_k Vhat(h_{k+1}) - Vhat(h_k)
    L         = 1/N sum_k -min(rho_k A_k, clamp(rho_k, 1 - clip, 1 + clip) A_k)  -  w_H H(pi(. | h_k))

There is no critic. What stands for a state is given: the acts and answers so far, or a belief.

Feng et al. 2025, arXiv:2505.10978 (GiGPO), and with lambda below 1 GAGPO (2026, arXiv:2605.13217). Differs
from both: the mean is of *other* conversations, so that with lambda 1 the gradient is that of the return
whatever stands for a state, where a mean that the conversation's own return is part of is no baseline; a
state that nobody else came to falls back on whole returns instead of 0; the two advantages are not added;
nothing is divided by a group's own deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from turnwise.data.acts.pack import pack_acts
from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.order import row_groups
from turnwise.losses.groups import anchored_baselines
from turnwise.losses.policy import action_logp, clipped_surrogate_loss, entropy
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions
from turnwise.losses.returns import discounted_returns, lambda_returns
from turnwise.models.agents.act_actor import NEVER, ActActor
from turnwise.models.agents.act_critic import ActClone
from turnwise.rollout.acts.partners import Partner
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, SHARE, TWO_OR_MORE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import Metric, added
from turnwise.run.optim import annealed, scheduled
from turnwise.run.settings import Adam
from turnwise.run.training import TrainingRun

Anchors = Callable[[Episode], Sequence[Hashable]]
"""what stands for the state of each turn of a conversation; equal states are equal values"""


@dataclass(frozen=True)
class Config:
    """Numbers of GiGPO per act."""

    talks: int = 20_000
    """Conversations that are held in all."""
    batch: int = 400
    """Conversations between updates, which are compared with each other."""
    epochs: int = 4
    """Passes over what was talked."""
    minibatches: int = 4
    """Gradient steps per pass."""
    optimizer: Adam = Adam(lr=3e-3, schedule="linear", grad_clip=0.5)
    """Settings of the optimizer."""
    gamma: float = 1.0
    """Discount per turn. Use 1 if agents are scored by undiscounted returns."""
    lam: float = 1.0
    """Lambda of GAE: 1 compares what conversations went on to earn, 0 looks one turn ahead and trusts the
    mean of the others there."""
    clip: float = 0.2
    """How far the ratio may leave 1 before its gradient stops: smaller is slower and safer."""
    entropy_weight: float = 0.01
    """Weight of the bonus on the policy's entropy at first. More of it explores longer."""
    entropy_end: float = 0.0
    """Weight of the entropy bonus at the end; it changes linearly over training."""

    def __post_init__(self) -> None:
        check(
            self,
            talks=ONE_OR_MORE,
            batch=TWO_OR_MORE,
            epochs=ONE_OR_MORE,
            minibatches=ONE_OR_MORE,
            gamma=SHARE,
            lam=SHARE,
            clip=POSITIVE,
            entropy_weight=NOT_NEGATIVE,
            entropy_end=NOT_NEGATIVE,
        )


METRICS: dict[str, Metric] = {
    "talks": Metric("conversations so far", "conversations"),
    "episode_return": Metric("return of a conversation", "return"),
    "episode_length": Metric("length of a conversation", "turns of the agent"),
    "left_out": Metric("conversations so far that nothing was learnt from", "conversations"),
    "shared": Metric("share of turns with another conversation at an equal state"),
    "policy_loss": Metric("clipped surrogate", loss=True),
    "entropy": Metric("entropy of the policy", "nats per act"),
    "kl": Metric("KL(old policy, policy)", "nats per act"),
    "clipped": Metric("share of clipped ratios"),
}


def history(e: Episode) -> list[Hashable]:
    """The acts and answers before each turn, and nothing less: states are equal if these are."""
    return [(e.observations[: k + 1].tobytes(), e.actions[:k].tobytes()) for k in range(len(e))]


def make_advantages(rows: Sequence[Episode], anchors: Anchors, c: Config) -> tuple[list[np.ndarray], float]:
    """Of each turn of each conversation; and the share of turns with another conversation at an equal
    state."""
    batch = pack_acts(rows, gamma=c.gamma, dtype=torch.float64)
    mask = batch.mask
    owners = (
        torch.arange(len(rows)).unsqueeze(1).expand(mask.shape)[mask]
    )  # [n], by conversation, then by turn
    places: dict[Hashable, int] = {}
    names = torch.tensor([places.setdefault(x, len(places)) for e in rows for x in anchors(e)])
    to_go = discounted_returns(batch.rewards, batch.discounts, mask)  # [B, A]
    found, shared = anchored_baselines(to_go[mask], names, owners)
    whole = to_go[:, 0]
    others = (whole.sum() - whole) / (len(rows) - 1)  # [B]
    before = batch.rewards.cumsum(1) - batch.rewards  # [B, A], what was earned before
    alone = (others.unsqueeze(1) - before)[mask]
    values = torch.zeros(len(rows), mask.shape[1] + 1, dtype=torch.float64)
    values[:, :-1] = values[:, :-1].masked_scatter(mask, torch.where(shared, found, alone))
    returns = lambda_returns(batch.rewards, batch.discounts, values[:, 1:], mask, c.lam)
    each = [a[m].numpy() for a, m in zip(returns - values[:, :-1], mask, strict=True)]
    return each, float(shared.double().mean())


def scaled(advantages: Sequence[np.ndarray]) -> list[np.ndarray]:
    """In standard deviations of all: one number, and no mean is taken off."""
    spread = float(np.concatenate(advantages).std())
    return [a / (spread if spread > 0 else 1.0) for a in advantages]


@dataclass(frozen=True)
class Minibatch:
    """Conversations, packed, with what their loss needs and no update changes."""

    batch: Batch
    advantages: Tensor
    """[B, A]"""


def loss(
    agent: ActActor, m: Minibatch, denominator: float, c: Config, entropy_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """All terms together, a number; and sums over decisions of what is logged."""
    batch = m.batch
    logits = agent.policy(batch).masked_fill(~agent.allowed, NEVER)[:, :-1]
    logp, old_logp = action_logp(logits, batch.actions), batch.behavior_logp
    assert old_logp is not None
    surrogate = clipped_surrogate_loss(logp, old_logp, m.advantages, c.clip)
    spread = entropy(logits)
    log_ratio = (logp - old_logp).detach()
    terms = {
        "policy_loss": surrogate,
        "entropy": spread,
        "kl": log_ratio.exp() - 1 - log_ratio,  # k3: acts are the old policy's, so this is KL(pi_old, pi)
        "clipped": ((log_ratio.exp() - 1).abs() > c.clip).to(log_ratio.dtype),
    }
    total = sum_over_decisions(surrogate - entropy_weight * spread, batch.loss_mask) / denominator
    return total, sums_over_decisions(terms, batch.loss_mask)


def update(
    learner: Learner,
    agent: ActActor,
    rows: Sequence[Episode],
    advantages: Sequence[np.ndarray],
    c: Config,
    remaining: float,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """`epochs` passes over the talks of an iteration; `remaining` is the share of training still to come."""
    minibatches = []
    for group in row_groups([len(e) for e in rows], c.minibatches, rng.permutation(len(rows)).tolist()):
        batch = pack_acts([rows[i] for i in group], gamma=c.gamma)
        own = torch.zeros_like(batch.rewards)
        for b, i in enumerate(group):
            own[b, : len(rows[i])] = torch.from_numpy(advantages[i])
        minibatches.append(Minibatch(batch, own))
    denominator = len(rows) / len(minibatches)  # talks and not turns, as the policy decides when a talk ends
    entropy_weight = annealed(c.entropy_weight, c.entropy_end, remaining)
    sums: dict[str, Tensor] = {}
    for _ in range(c.epochs):
        for i in rng.permutation(len(minibatches)).tolist():
            total, part = loss(agent, minibatches[i], denominator, c, entropy_weight)
            learner.descend(total, lr=scheduled(c.optimizer, remaining))
            sums = added(sums, part)
    return sums


def train(
    c: Config,
    partner: Partner,
    agent: ActActor,
    begun: ActClone,
    run: TrainingRun,
    seed: int,
    anchors: Anchors = history,
) -> ActActor:
    """Improve the policy of `agent` in place by talking with `partner`; its V learns nothing."""
    learner = run.learner(agent.policy, c.optimizer)
    total = max(1, round(c.talks / c.batch))
    for step in run.steps(total, learner):
        rows, left_out = partner.talks(agent.policy, c.batch, (seed, step))
        run.count(left_out=left_out)
        if len(rows) < 2:
            continue
        advantages, shared = make_advantages(rows, anchors, c)
        rng = np.random.default_rng((seed, step, 1))
        sums = update(learner, agent, rows, scaled(advantages), c, 1 - step / total, rng)
        if run.due(step):
            means = {
                "talks": (step + 1) * c.batch,
                "episode_return": float(np.mean([e.rewards.sum() for e in rows])),
                "episode_length": float(np.mean([len(e) for e in rows])),
                "shared": shared,
            }
            run.log(step, {**means, **run.world.means(sums)})
    return agent
