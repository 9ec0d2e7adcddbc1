"""Implicit Q-learning per turn: a critic of whole utterances that picks among what a cloned policy proposes.

    L_Q = sum_i (r_k + d_k V(s_{k+1}) - Q_i(s_k, u_k))^2                 Q read where utterance u_k ends
    L_V = |tau - 1(u < 0)| u^2,  u = min_i Qbar_i(s_k, u_k) - V(s_k)    V read before it begins
    act: sample n utterances of the clone, say one of them with probability softmax(beta min_i Q_i)

IQL: Kostrikov et al. 2021, arXiv:2110.06169, eq. 5 and 6, on the turns of a conversation. Choosing by Q among
samples of a language model: CHAI, Verma et al. 2022, arXiv:2204.08426. Every formula is the one that the
algorithm per token uses; only the packer differs.

Differs from CHAI: the backup has no maximum over samples (the expectile takes its place), the trunk learns,
and targets begin as logged returns and become one-step targets over the first part of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from turnwise.data.batch import Batch, pack_turns
from turnwise.data.order import CRITIC_STEPS, BatchOrder, batch_size_for
from turnwise.data.rows import lengths, turn_counts
from turnwise.data.tokens import Tokens
from turnwise.losses.reduce import sum_over_decisions
from turnwise.losses.returns import lambda_returns
from turnwise.losses.value import expectile_loss, squared_error
from turnwise.models.lm.critics import Estimand, TurnCritic
from turnwise.models.target import polyak_, slow_copy
from turnwise.rollout.agent import Acting
from turnwise.run.checks import INSIDE, NOT_NEGATIVE, ONE_OR_MORE, PART, POSITIVE, SHARE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import MOVING_TARGET, SQUARED_STD, STD, Metric
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of implicit Q-learning per turn."""

    epochs: float = 4.0
    """Passes over the conversations."""
    batch_size: int | None = None
    """Conversations (or segments of long ones) per step, over all processes; none: 32, and down to 4 where
    they are few, for at least 500 steps."""
    optimizer: AdamW = AdamW(lr=1e-3, warmup=0.04)
    """Settings of the optimizer."""
    gamma: float = 1.0
    """Discount per turn. Use 1 if agents are scored by undiscounted returns."""
    tau: float = 0.95
    """Expectile of V: 0.5 values what the logged agent did, near 1 the best of it."""
    polyak: float = 0.05
    """Share of the weights that the slow copy takes on at each step."""
    anneal: float = 0.5
    """Share of training over which lambda falls from 1 (targets are logged returns) to 0 (one step)."""
    beta: float = 28.0
    """When acting: inverse temperature of the choice among proposals, per standard deviation of the
    return."""
    proposals: int = 8
    """When acting: utterances that the cloned policy proposes at each turn."""

    def __post_init__(self) -> None:
        check(
            self,
            epochs=POSITIVE,
            batch_size=ONE_OR_MORE,
            gamma=SHARE,
            tau=INSIDE,
            polyak=PART,
            anneal=SHARE,
            beta=NOT_NEGATIVE,
            proposals=ONE_OR_MORE,
        )


METRICS: dict[str, Metric] = {
    "td": Metric("TD loss", SQUARED_STD, loss=True, about=MOVING_TARGET),
    "expectile": Metric("expectile loss", SQUARED_STD, loss=True, about=MOVING_TARGET),
    "q": Metric("mean Q", STD, panel="Q and V"),
    "v": Metric("mean V", STD, panel="Q and V"),
}


def new_critic(c: Config, trunk: nn.Module, tokens: Tensor, initial: float) -> TurnCritic:
    """Two Q heads and a V head of whole utterances on `trunk`, as wide as `tokens` [V, D]."""
    return TurnCritic(trunk, tokens.shape[1], initial=initial)


def estimand(c: Config) -> Estimand:
    """Q and V predict what a better agent than the logged one would earn, unless `tau` is 0.5."""
    return Estimand(c.gamma, improved=c.tau != 0.5)


def acting(c: Config) -> Acting:
    """How many utterances of the clone are proposed, and how sharply the critic chooses among them."""
    return Acting(beta=c.beta, proposals=c.proposals)


def loss(
    critic: nn.Module, target: nn.Module, batch: Batch, denominator: float, c: Config, lam: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Both terms together; and their sums over turns. `lam` is the lambda of Q's target."""
    values = critic(batch.inputs, batch.decisions, batch.ends)  # q [E, B, A] at `ends`, v [B, A+1]
    with torch.no_grad():  # targets: neither is moved towards what is fitted to it
        slow = target(batch.inputs, batch.decisions, batch.ends).q.amin(0)  # [B, A]
        q_targets = lambda_returns(batch.rewards, batch.discounts, values.v[:, 1:], batch.loss_mask, lam)
    sums = {
        "td": sum_over_decisions(squared_error(values.q, q_targets), batch.loss_mask),
        "expectile": sum_over_decisions(expectile_loss(values.v[:, :-1], slow, c.tau), batch.loss_mask),
        "q": sum_over_decisions(values.q, batch.loss_mask) / values.q.shape[0],
        "v": sum_over_decisions(values.v[:, :-1], batch.loss_mask),
        "decisions": batch.loss_mask.sum(),
    }
    return (sums["td"] + sums["expectile"]) / denominator, sums


def update(
    learner: Learner, batches: Sequence[Batch], denominator: float, c: Config, lr: float, lam: float
) -> dict[str, Tensor]:
    """One gradient step on all of the batches, then the slow copy follows; sums over decisions."""

    def part(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return loss(learner.wrapped, learner.target, batch, denominator, c, lam)

    sums = learner.learn(batches, part, lr=lr)
    polyak_(learner.target, learner.module, c.polyak)
    return sums


def train(
    c: Config,
    rows: Sequence[Tokens],
    heldout: Sequence[Tokens],
    critic: TurnCritic,
    run: TrainingRun,
    seed: int,
) -> TurnCritic:
    """Fit `critic` in place."""
    target = slow_copy(critic)
    learner = run.learner(critic, c.optimizer, target=target)
    dtype = torch.promote_types(next(critic.parameters()).dtype, torch.float32)  # numbers, not weights
    order = BatchOrder(lengths(rows), c.batch_size or batch_size_for(len(rows), c.epochs, CRITIC_STEPS), seed)
    denominator = int(turn_counts(rows).sum()) / order.batches_per_epoch / run.world.size

    def pack(chosen: Sequence[Tokens]) -> Batch:
        return pack_turns(chosen, gamma=c.gamma, dtype=dtype).to(run.world.device)

    def unseen(lam: float) -> Iterator[dict[str, Tensor]]:
        parts = run.through.chunks(heldout, lengths(heldout), order.batch_size)
        return (loss(learner.wrapped, target, pack(part), 1.0, c, lam)[1] for part in parts)

    for step, parts, lr in run.passes(rows, order, c.epochs, learner):
        # 1 at the first step, 0 from the share `anneal` of training on.
        lam = max(0.0, 1 - step / (c.anneal * run.total)) if c.anneal else 0.0
        sums = update(learner, [pack(part) for part in parts], denominator, c, lr, lam)
        # With the same lambda: the two TD losses are one quantity, on different conversations.
        run.report(step, sums, partial(unseen, lam))
    return critic
