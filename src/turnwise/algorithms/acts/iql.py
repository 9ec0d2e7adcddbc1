"""Implicit Q-learning per act: values of what was meant, from logged talk alone.

    L_Q  = sum_i (G_k - Q_i(h_k, a_k))^2,  G_k = r_k + d_k V(h_{k+1})    V: online head, no gradient
    L_V  = |tau - 1(u < 0)| u^2,  u = min_i Qbar_i(h_k, a_k) - V(h_k)    Qbar: slow copies, memory too
    L_pi = -log pi(a_k | h_k)
    L    = L_Q + L_V + L_pi
    act: the best by min_i Q_i among acts with pi(a | h) >= support max pi;
         or drawn from pi exp(beta (min_i Q_i - V)) over these

IQL: Kostrikov et al. 2021, arXiv:2110.06169, eq. 5 and 6. h_k is the talk so far as acts and answers, read by
a memory; the act is one of a few dozen, so that Q of all of them is at hand where the agent chooses.

Differs from the paper:
- The policy is a clone of the logged agent, on a memory of its own, and is improved where it acts, as ILQL
  does it (Snell et al. 2022, arXiv:2206.11871), instead of by weighted regression (eq. 7). That acts of too
  little support are ruled out is discrete BCQ's rule (Fujimoto et al. 2019, arXiv:1910.01708, eq. 11).
- Q and V read a memory each (`ActCritic` says why), as in the paper, and unlike token-level ILQL.
- G_k begins as the logged return and becomes the one-step target over the first part of training (lambda
  falls from 1 to 0); through `discounts` it bootstraps after truncation and not after termination.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from turnwise.data.acts.pack import pack_acts
from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.order import CRITIC_STEPS, MOST_TALKS, BatchOrder, batch_size_for, chunks
from turnwise.losses.policy import action_logp
from turnwise.losses.reduce import sum_over_decisions
from turnwise.losses.returns import lambda_returns
from turnwise.losses.value import action_values, expectile_loss, squared_error
from turnwise.models.agents.act_critic import ActCritic, ActNetwork
from turnwise.models.agents.settings import MemorySpec
from turnwise.models.target import polyak_, slow_copy
from turnwise.run.checks import INSIDE, NOT_NEGATIVE, ONE_OR_MORE, PART, POSITIVE, SHARE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import MOVING_TARGET, SQUARED_STD, STD, Metric
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of implicit Q-learning per act."""

    epochs: float = 20.0
    """Passes over the conversations."""
    batch_size: int | None = None
    """Conversations per step; none: 128, and down to 4 where they are few, for at least 500 steps."""
    optimizer: AdamW = AdamW(lr=2e-3, warmup=0.04)
    """Settings of the optimizer."""
    gamma: float = 1.0
    """Discount per turn. Use 1 if agents are scored by undiscounted returns."""
    tau: float = 0.95
    """Expectile of V: 0.5 values what the logged agent did, near 1 the best of it."""
    polyak: float = 0.05
    """Share of the weights that the slow copy takes on at each step."""
    anneal: float = 0.5
    """Share of training over which lambda falls from 1 (targets are logged returns) to 0 (one step)."""
    beta: float | None = None
    """When acting: nats added to an act's log-probability by an advantage of one standard deviation of the
    return, and the act is drawn; none: the best act."""
    support: float = 0.1
    """When acting: an act is considered if the logged agent would choose it at least this often for each time
    that it would choose its likeliest one."""

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
            support=SHARE,
        )


METRICS: dict[str, Metric] = {
    "td": Metric("TD loss", SQUARED_STD, loss=True, about=MOVING_TARGET),
    "expectile": Metric("expectile loss", SQUARED_STD, loss=True, about=MOVING_TARGET),
    "clone": Metric("cloning loss", "nats per act", loss=True),
    "q": Metric("mean Q", STD, panel="Q and V"),
    "v": Metric("mean V", STD, panel="Q and V"),
}


def network(memory: MemorySpec, seen: int, acts: int) -> ActNetwork:
    """A clone, and beside it two heads of Q and one of V."""
    return ActNetwork(memory, seen, acts, ensemble=2, v=True)


def improved(c: Config) -> bool:
    """Whether values are those of a better policy than the logged one."""
    return c.tau != 0.5


def loss(
    critic: nn.Module, target: ActCritic, batch: Batch, denominator: float, c: Config, lam: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The three terms together; and their sums over decisions. `lam` is the lambda of G."""
    values = critic(batch)
    q_taken = action_values(values.q[:, :, :-1], batch.actions)  # [E, B, A]
    with torch.no_grad():  # targets: neither is moved towards what is fitted to it
        slow = action_values(target.q_of(batch)[:, :, :-1], batch.actions).amin(0)  # [B, A]
        q_targets = lambda_returns(batch.rewards, batch.discounts, values.v[:, 1:], batch.loss_mask, lam)
    v = values.v[:, :-1]  # [B, A]
    nll = -action_logp(values.logits[:, :-1], batch.actions)
    sums = {
        "td": sum_over_decisions(squared_error(q_taken, q_targets), batch.loss_mask),
        "expectile": sum_over_decisions(expectile_loss(v, slow, c.tau), batch.loss_mask),
        "clone": sum_over_decisions(nll, batch.loss_mask),
        "q": sum_over_decisions(q_taken, batch.loss_mask) / len(q_taken),
        "v": sum_over_decisions(v, batch.loss_mask),
        "decisions": batch.loss_mask.sum(),
    }
    return (sums["td"] + sums["expectile"] + sums["clone"]) / denominator, sums


def update(
    learner: Learner, batch: Batch, denominator: float, c: Config, lr: float, lam: float
) -> dict[str, Tensor]:
    """One gradient step, and the slow copy a little after it; sums over decisions."""
    total, sums = loss(learner.wrapped, learner.target, batch, denominator, c, lam)
    learner.descend(total, lr=lr)
    polyak_(learner.target, learner.module, c.polyak)
    return sums


def train(
    c: Config,
    rows: Sequence[Episode],
    heldout: Sequence[Episode],
    critic: ActCritic,
    run: TrainingRun,
    seed: int,
) -> ActCritic:
    """Fit `critic` (a clone, two Q heads and V) in place."""
    target = slow_copy(critic)
    learner = run.learner(critic, c.optimizer, target=target)
    size = c.batch_size or batch_size_for(len(rows), c.epochs, CRITIC_STEPS, MOST_TALKS)
    order = BatchOrder([len(e) for e in rows], size, seed)
    denominator = sum(len(e) for e in rows) / order.batches_per_epoch

    def pack(chosen: Sequence[Episode]) -> Batch:
        return pack_acts(chosen, gamma=c.gamma).to(run.world.device)

    def unseen(lam: float) -> Iterator[dict[str, Tensor]]:
        return (loss(critic, target, pack(part), 1.0, c, lam)[1] for part in chunks(heldout, size))

    for step, (chosen,), lr in run.passes(rows, order, c.epochs, learner):
        # 1 at the first step, 0 from the share `anneal` of training on.
        lam = max(0.0, 1 - step / (c.anneal * run.total)) if c.anneal else 0.0
        sums = update(learner, pack(chosen), denominator, c, lr, lam)
        # With the same lambda: the two TD losses are one quantity, on different conversations.
        run.report(step, sums, partial(unseen, lam))
    return critic
