"""Behaviour cloning per act: what the logged agent would mean next.

    L = -sum_k log pi(a_k | h_k) / (acts of an average batch)
    act: drawn from pi

Pomerleau 1991, on acts instead of words: h_k is the talk so far as acts and answers, read by a memory. It is
the policy that the values of the other algorithms improve on, and what they must beat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from turnwise.data.acts.pack import pack_acts
from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.order import CRITIC_STEPS, MOST_TALKS, BatchOrder, batch_size_for, chunks
from turnwise.losses.policy import action_logp
from turnwise.losses.reduce import sum_over_decisions
from turnwise.models.agents.act_critic import ActClone, ActNetwork
from turnwise.models.agents.settings import MemorySpec
from turnwise.run.checks import ONE_OR_MORE, POSITIVE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import Metric
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of behaviour cloning per act."""

    epochs: float = 20.0
    """Passes over the conversations."""
    batch_size: int | None = None
    """Conversations per step; none: 128, and down to 4 where they are few, for at least 500 steps."""
    optimizer: AdamW = AdamW(lr=5e-3, warmup=0.04)
    """Settings of the optimizer."""

    def __post_init__(self) -> None:
        check(self, epochs=POSITIVE, batch_size=ONE_OR_MORE)


METRICS: dict[str, Metric] = {"clone": Metric("cloning loss", "nats per act", loss=True)}


def network(memory: MemorySpec, seen: int, acts: int) -> ActNetwork:
    """A policy alone."""
    return ActNetwork(memory, seen, acts, ensemble=0, v=False)


def loss(policy: nn.Module, batch: Batch, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative log-likelihood of the acts, in nats; and its sums over decisions."""
    nll = -action_logp(policy(batch)[:, :-1], batch.actions)
    # An act whose answer was never logged is an act all the same: `mask`, and not `loss_mask`.
    sums = {"clone": sum_over_decisions(nll, batch.mask), "decisions": batch.mask.sum()}
    return sums["clone"] / denominator, sums


def update(learner: Learner, batch: Batch, denominator: float, lr: float) -> dict[str, Tensor]:
    """One gradient step; sums over decisions."""
    total, sums = loss(learner.wrapped, batch, denominator)
    learner.descend(total, lr=lr)
    return sums


def train(
    c: Config,
    rows: Sequence[Episode],
    heldout: Sequence[Episode],
    policy: ActClone,
    run: TrainingRun,
    seed: int,
) -> ActClone:
    """Clone the agent of the logs into `policy`, in place."""
    learner = run.learner(policy, c.optimizer)
    size = c.batch_size or batch_size_for(len(rows), c.epochs, CRITIC_STEPS, MOST_TALKS)
    order = BatchOrder([len(e) for e in rows], size, seed)
    denominator = sum(len(e) for e in rows) / order.batches_per_epoch

    def pack(chosen: Sequence[Episode]) -> Batch:
        return pack_acts(chosen, gamma=1.0).to(run.world.device)

    def unseen() -> Iterator[dict[str, Tensor]]:
        return (loss(policy, pack(part), 1.0)[1] for part in chunks(heldout, size))

    for step, (chosen,), lr in run.passes(rows, order, c.epochs, learner):
        sums = update(learner, pack(chosen), denominator, lr)
        run.report(step, sums, unseen)
    return policy
