"""Reward models: a number for each reply that explains what people said of them.

    pairs      -log sigmoid(r_w - r_l - m) + centring (r_w + r_l)^2      Bradley-Terry, margins where given
    rankings   -sum_j log(exp r_j / sum_{i >= j} exp r_i)                Plackett-Luce, the best first
    likes      -log sigmoid(+-r)                                         the log-odds of a like
    scores     (score - r)^2                                             regression

Bradley & Terry 1952; Plackett 1975; margins as in Touvron et al. 2023, arXiv:2307.09288, eq. 2; centring as
in Eisenstein et al. 2023, arXiv:2312.09244. The reward is read at the reply's stop token. A tie is half of
each direction; ranks that are equal in a longer ranking are read in the order given.

Members of an ensemble learn from the same batches, each by its own loss, and differ in how they began: heads
(and adapters, and trunks) are drawn apart. Their disagreement is the standard deviation, over members, of
what they are asked: the difference between the best and the last reply, or the reward of a single one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from turnwise.data.batch import pack_tokens
from turnwise.data.comparisons import Comparison, FeedbackRows, JudgedReply
from turnwise.data.feedback import Like, Score
from turnwise.data.order import BatchOrder, chunks
from turnwise.data.tokens import Tokens
from turnwise.losses.preference import (
    all_tied_loss,
    bradley_terry_loss,
    bradley_terry_tie_loss,
    centring_loss,
    like_loss,
    plackett_luce_loss,
)
from turnwise.losses.value import squared_error
from turnwise.models.lm.reward_model import AnyRewardModel
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, check
from turnwise.run.metrics import Metric
from turnwise.run.optim import adamw, descend
from turnwise.run.settings import AdamW
from turnwise.run.training import Learner, TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of reward modelling."""

    epochs: float = 2.0
    """passes over the feedback"""
    batch_size: int = 32
    """pairs, rankings, likes or scores per step"""
    optimizer: AdamW = AdamW(lr=5e-4, warmup=20, weight_decay=0.01)
    """Settings of the optimizer."""
    centring: float = 0.01
    """weight of the pull of pairs' rewards to 0"""

    def __post_init__(self) -> None:
        check(self, epochs=POSITIVE, batch_size=ONE_OR_MORE, centring=NOT_NEGATIVE)


METRICS: dict[str, Metric] = {
    "loss": Metric("reward loss", loss=True),
    "accuracy": Metric("accuracy"),
    "margin": Metric("margin of rewards", "reward"),
    "reward_mean": Metric("mean reward", "reward"),
    "disagreement": Metric("disagreement of the members", "reward"),
}


def rewards_of(model: AnyRewardModel, rows: Sequence[Tokens], device: torch.device) -> Tensor:
    """[E, n], read at the last token of each row."""
    b = pack_tokens(rows, gamma=1.0).to(device)
    return model(b.inputs, b.decisions[:, -1])


def of_compared(
    model: AnyRewardModel, items: Sequence[Comparison], c: Config, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses [E, P] of items with equally many replies, and what is logged of each [P]."""
    n = len(items[0].rows)
    r = rewards_of(model, [row for item in items for row in item.rows], device)
    r = r.view(len(r), len(items), n)
    w, l = r[..., 0], r[..., -1]
    equal = torch.tensor([item.tie for item in items], device=device)
    if n > 2:
        every = torch.ones(len(items), n, dtype=torch.bool, device=device)
        per_item = torch.where(equal, all_tied_loss(r), plackett_luce_loss(r, every))
    else:
        margin = torch.tensor([item.margin or 0.0 for item in items], dtype=r.dtype, device=device)
        per_item = torch.where(equal, bradley_terry_tie_loss(w, l), bradley_terry_loss(w, l, margin))
    mean = r.detach().mean(0)
    right = (mean[:, 0] > mean[:, -1]).to(r.dtype)
    told = {
        "accuracy": right.masked_fill(equal, 0.5),  # of a tie, whatever is said
        "margin": mean[:, 0] - mean[:, -1],
        "reward_mean": mean.mean(1),
        **_disagreement(w - l),
    }
    if n == 2:
        per_item = per_item + c.centring * centring_loss(w, l)
    return per_item, told


def of_single(
    model: AnyRewardModel,
    items: Sequence[JudgedReply[Like]] | Sequence[JudgedReply[Score]],
    device: torch.device,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses [E, P] of single replies, and what is logged of each [P]."""
    r = rewards_of(model, [item.row for item in items], device)
    mean = r.detach().mean(0)
    told = {"reward_mean": mean, **_disagreement(r)}
    first = items[0]
    if isinstance(first.item, Like):
        good = torch.tensor([x.item.liked for x in items], device=device)  # pyright: ignore
        return like_loss(r, good), told | {"accuracy": ((mean > 0) == good).to(r.dtype)}
    worth = torch.tensor([x.item.score for x in items], dtype=r.dtype, device=device)  # pyright: ignore
    one_decision = squared_error(r.unsqueeze(-1), worth.unsqueeze(-1))
    return one_decision.squeeze(-1), told


def loss(
    model: AnyRewardModel, items: Sequence[FeedbackRows], c: Config, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over items, summed over members; and sums over items."""
    total, sums = torch.zeros((), device=device), {}
    pairs = [x for x in items if isinstance(x, Comparison)]
    groups: list[tuple[Tensor, dict[str, Tensor]]] = []
    for n in sorted({len(x.rows) for x in pairs}):
        groups.append(of_compared(model, [x for x in pairs if len(x.rows) == n], c, device))
    if not pairs:
        groups.append(of_single(model, items, device))  # pyright: ignore[reportArgumentType]
    for per_item, told in groups:
        total = total + per_item.sum()
        for name, x in (told | {"loss": per_item.detach().mean(0)}).items():
            sums[name] = sums.get(name, torch.zeros(())) + x.sum().cpu()
    sums["decisions"] = torch.tensor(len(items))
    return total / len(items), sums


def update(
    model: AnyRewardModel,
    learner: Learner,
    items: Sequence[FeedbackRows],
    c: Config,
    lr: float,
    device: torch.device,
) -> dict[str, Tensor]:
    """One gradient step; sums over the items."""
    model.train()  # nothing was sampled from a reward model: dropout may help it
    objective, sums = loss(model, items, c, device)
    descend(model, learner.optimizer, objective, c.optimizer, lr=lr)
    return sums


def train(
    c: Config,
    items: Sequence[FeedbackRows],
    heldout: Sequence[FeedbackRows],
    model: AnyRewardModel,
    run: TrainingRun,
    seed: int,
) -> AnyRewardModel:
    """Fit `model`, in place."""
    run.world.place(model)
    learner = Learner(model, adamw(model, c.optimizer))
    order = BatchOrder([item.size for item in items], c.batch_size, seed)
    total = order.steps(c.epochs)
    device = run.world.device

    def unseen() -> Iterator[dict[str, Tensor]]:
        model.eval()
        return (loss(model, part, c, device)[1] for part in chunks(heldout, 2 * c.batch_size))

    for step, chosen, lr in run.passes(items, order, total, learner, c.optimizer):
        sums = update(model, learner, chosen, c, lr, device)
        run.report(step, sums, unseen)
    return model


def _disagreement(r: Tensor) -> dict[str, Tensor]:
    """[P], deviation over the members [E, P]; one alone has none."""
    return {"disagreement": r.detach().std(0, correction=0)} if len(r) > 1 else {}
