"""Simple preference optimisation: no reference; a reply's reward is its mean log-probability per token.

    L = -log sigmoid(beta (m_chosen - m_rejected) - margin),    m = (1 / |y|) sum_k log pi(a_k)

Meng et al. 2024, arXiv:2405.14734, eq. 6. It is length-normalised. Only the learning rate and the number
of steps hold the policy near to where it began. The loss of a tie is half of the loss in each direction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from turnwise.data.comparisons import Comparison, weights_of
from turnwise.data.order import BatchOrder, chunks
from turnwise.data.tokens import Tokens
from turnwise.losses.preference import simpo_loss
from turnwise.losses.reduce import sums_over_items
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.replies import Scorer, Scores, Spread, mean_logp
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import Metric
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of SimPO."""

    epochs: float = 1.0
    """Passes over the pairs."""
    batch_size: int = 32
    """Pairs per step."""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=0.05)
    """Settings of the optimizer."""
    beta: float = 2.0
    """Units of implicit reward per nat of mean log-probability."""
    margin: float = 0.5
    """Gap by which the chosen reply is to win, in units of implicit reward (gamma in the paper)."""

    def __post_init__(self) -> None:
        check(self, epochs=POSITIVE, batch_size=ONE_OR_MORE, beta=NOT_NEGATIVE)


METRICS: dict[str, Metric] = {
    "rewards/accuracies": Metric("accuracy of implicit rewards"),
    "loss": Metric("preference loss", loss=True),
    "logps/chosen": Metric("chosen replies", "nats per token", panel="mean log-probabilities"),
    "logps/rejected": Metric("rejected replies", "nats per token", panel="mean log-probabilities"),
}


def loss(policy: Scores, items: Sequence[Comparison], c: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the pairs; and sums over them."""
    rows = [row for item in items for row in item.rows]  # chosen and rejected in turn
    chosen, rejected = mean_logp(policy, rows, group=2).view(-1, 2).unbind(1)  # [P] each
    per_item = simpo_loss(chosen, rejected, c.beta, c.margin)
    flipped = simpo_loss(rejected, chosen, c.beta, c.margin)
    ties = torch.tensor([item.tie for item in items], device=chosen.device)
    per_item = torch.where(ties, (per_item + flipped) / 2, per_item)
    terms = {
        "loss": per_item,
        "logps/chosen": chosen,
        "logps/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).to(chosen.dtype).masked_fill(ties, 0.5),
    }
    weights = weights_of(items, per_item)
    return (weights * per_item).mean(), sums_over_items(terms, weights)


def implicit_rewards(policy: LmPolicy, rows: Sequence[Tokens], c: Config) -> Tensor:
    """beta m [B]. The policy prefers the reply whose implicit reward is higher."""
    parts = chunks(rows, c.batch_size)
    return c.beta * torch.cat([mean_logp(policy, part) for part in parts])


def update(
    policy: Scores, learner: Learner, parts: Sequence[Sequence[Comparison]], c: Config, lr: float
) -> dict[str, Tensor]:
    """One gradient step on all of the items; sums over them."""
    return learner.learn_means(parts, lambda items: loss(policy, items, c), lr=lr)


def train(
    c: Config,
    items: Sequence[Comparison],
    heldout: Sequence[Comparison],
    policy: LmPolicy,
    run: TrainingRun,
    seed: int,
) -> LmPolicy:
    """Move `policy`, in place, towards what was preferred."""
    learner = run.learner(Scorer(policy, run.world.splits), c.optimizer)
    spread = Spread(policy, learner.wrapped)
    order = BatchOrder([item.size for item in items], c.batch_size, seed)

    def unseen() -> Iterator[dict[str, Tensor]]:
        parts = run.through.chunks(heldout, [x.size for x in heldout], c.batch_size)
        return (loss(spread, part, c)[1] for part in parts)

    for step, parts, lr in run.passes(items, order, c.epochs, learner):
        sums = update(spread, learner, parts, c, lr)
        run.report(step, sums, unseen)
    return policy
