"""Odds-ratio preference optimisation: cloning of what was chosen, and a push from what was rejected.

    L = -m_chosen - weight log sigmoid(log odds(m_chosen) - log odds(m_rejected)),  odds(m) = e^m / (1 - e^m)

with m = (1 / |y|) sum_k log pi(a_k). Hong et al. 2024, arXiv:2403.07691, eq. 6 and 7: one stage in place of
cloning and then preferring, with no reference. It is length-normalised. A tie is half of each direction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from turnwise.data.comparisons import Comparison
from turnwise.data.order import BatchOrder, chunks
from turnwise.data.tokens import Tokens
from turnwise.losses.preference import orpo_odds_loss
from turnwise.models.lm.policies import LmPolicy
from turnwise.rollout.replies import mean_logp
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, check
from turnwise.run.metrics import Metric
from turnwise.run.optim import adamw, descend
from turnwise.run.settings import AdamW
from turnwise.run.training import Learner, TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of ORPO."""

    epochs: float = 1.0
    """passes over the pairs"""
    batch_size: int = 32
    """pairs per step"""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=20)
    """Settings of the optimizer."""
    weight: float = 0.25
    """of the odds-ratio term beside the likelihood (lambda in the paper)"""

    def __post_init__(self) -> None:
        check(self, epochs=POSITIVE, batch_size=ONE_OR_MORE, weight=NOT_NEGATIVE)


METRICS: dict[str, Metric] = {
    "loss": Metric("preference loss", loss=True),
    "logps/chosen": Metric("mean log-probability of chosen replies", "nats per token"),
    "logps/rejected": Metric("mean log-probability of rejected replies", "nats per token"),
    "rewards/accuracies": Metric("accuracy of implicit rewards"),
}


def loss(
    policy: LmPolicy, items: Sequence[Comparison], c: Config, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the pairs; and sums over them."""
    means = mean_logp(policy.lm, [row for item in items for row in item.rows], device, group=2).view(-1, 2)
    w, l = means[:, 0], means[:, 1]
    per_item = -w + c.weight * orpo_odds_loss(w, l)
    ties = torch.tensor([item.tie for item in items], device=device)
    # Of ties alone: the other way round has no finite gradient where a chosen reply is certain.
    other = -l[ties] + c.weight * orpo_odds_loss(l[ties], w[ties])
    per_item = per_item.masked_scatter(ties, (per_item[ties] + other) / 2)
    sums = {
        "loss": per_item.detach(),
        "logps/chosen": w.detach(),
        "logps/rejected": l.detach(),
        "rewards/accuracies": (w > l).to(w.dtype).masked_fill(ties, 0.5),
    }
    totals = {name: x.sum().cpu() for name, x in sums.items()}
    totals["decisions"] = torch.tensor(len(items))
    return per_item.mean(), totals


def implicit_rewards(policy: LmPolicy, rows: Sequence[Tokens], c: Config, device: torch.device) -> Tensor:
    """m [B]: by what it prefers one reply to another."""
    parts = chunks(rows, c.batch_size)
    return torch.cat([mean_logp(policy.lm, part, device) for part in parts])


def update(
    policy: LmPolicy,
    learner: Learner,
    items: Sequence[Comparison],
    c: Config,
    lr: float,
    device: torch.device,
) -> dict[str, Tensor]:
    """One gradient step; sums over the items."""
    objective, sums = loss(policy, items, c, device)
    descend(policy, learner.optimizer, objective, c.optimizer, lr=lr)
    return sums


def train(
    c: Config,
    items: Sequence[Comparison],
    heldout: Sequence[Comparison],
    policy: LmPolicy,
    run: TrainingRun,
    seed: int,
) -> LmPolicy:
    """Move `policy`, in place, towards what was preferred."""
    run.world.place(policy)
    learner = Learner(policy, adamw(policy, c.optimizer))
    order = BatchOrder([item.size for item in items], c.batch_size, seed)
    total = order.steps(c.epochs)
    device = run.world.device

    def unseen() -> Iterator[dict[str, Tensor]]:
        return (loss(policy, part, c, device)[1] for part in chunks(heldout, c.batch_size))

    for step, chosen, lr in run.passes(items, order, total, learner, c.optimizer):
        sums = update(policy, learner, chosen, c, lr, device)
        run.report(step, sums, unseen)
    return policy
