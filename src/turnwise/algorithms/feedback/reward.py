"""Reward models: a number for each reply that explains what people said of it.

    pairs      -log sigmoid(r_w - r_l - m) + centring (r_w + r_l)^2      Bradley-Terry, m the margin if given
    rankings   -sum_j log(exp r_j / sum_{i >= j} exp r_i)                Plackett-Luce, the best first
    likes      -log sigmoid(+-r)                                         r is the log-odds of a like
    scores     (score - r)^2                                             regression

Bradley & Terry 1952; Plackett 1975; margins as in Touvron et al. 2023, arXiv:2307.09288, eq. 2; centring as
in Eisenstein et al. 2023, arXiv:2312.09244, eq. 4. The reward is read at the reply's stop token. The loss of
a tie is half of the loss in each direction; equal ranks in a longer ranking are read in the order given.

Members of an ensemble learn from the same batches, each by its own loss. They differ in how they began: their
heads (and adapters, and trunks) have different first weights. Their disagreement is a standard deviation over
the members: that of the difference between the best and the last reply, or of the reward of a single one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from turnwise.data.batch import pack_tokens
from turnwise.data.comparisons import Comparison, FeedbackRows, JudgedReply, weights_of
from turnwise.data.feedback import Like, Score
from turnwise.data.order import BatchOrder
from turnwise.data.tokens import Tokens
from turnwise.losses.preference import (
    all_tied_loss,
    bradley_terry_loss,
    bradley_terry_tie_loss,
    centring_loss,
    like_loss,
    plackett_luce_loss,
)
from turnwise.losses.reduce import sums_over_items
from turnwise.losses.value import squared_error
from turnwise.models.lm.reward_model import AnyRewardModel
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import Metric, added
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of reward modelling."""

    epochs: float = 2.0
    """Passes over the feedback."""
    batch_size: int = 32
    """Pairs, rankings, likes or scores per step."""
    optimizer: AdamW = AdamW(lr=5e-4, warmup=0.05, weight_decay=0.01)
    """Settings of the optimizer."""
    centring: float = 0.01
    """Weight of the term that pulls the rewards of a pair towards 0. It acts on pairs alone."""

    def __post_init__(self) -> None:
        check(self, epochs=POSITIVE, batch_size=ONE_OR_MORE, centring=NOT_NEGATIVE)


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy"),
    "loss": Metric("reward loss", loss=True),
    "margin": Metric("margin of rewards", "reward"),
    "reward_mean": Metric("mean reward", "reward"),
    "disagreement": Metric("disagreement of the members", "reward"),
}


def rewards(model: nn.Module, rows: Sequence[Tokens]) -> Tensor:
    """[E, B], each member's reward, read at the last token of each row."""
    batch = pack_tokens(rows, gamma=1.0).to(next(model.parameters()).device)
    return model(batch.inputs, batch.decisions)


def comparison_losses(
    model: nn.Module, items: Sequence[Comparison], c: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses [E, P] of items with equally many replies n; and what is logged of each item [P]."""
    n = len(items[0].rows)
    r = rewards(model, [row for item in items for row in item.rows])
    r = r.view(len(r), len(items), n)  # [E, P n] -> [E, P, n]
    best, last = r[..., 0], r[..., -1]
    ties = torch.tensor([item.tie for item in items], device=r.device)
    if n > 2:
        every = torch.ones(len(items), n, dtype=torch.bool, device=r.device)
        per_item = torch.where(ties, all_tied_loss(r), plackett_luce_loss(r, every))
    else:
        margin = torch.tensor([item.margin or 0.0 for item in items], dtype=r.dtype, device=r.device)
        per_item = torch.where(
            ties, bradley_terry_tie_loss(best, last), bradley_terry_loss(best, last, margin)
        )
        # Comparisons leave the level of rewards open. A reward that is used by itself wants one.
        per_item = per_item + c.centring * centring_loss(best, last)
    mean = r.detach().mean(0)  # [P, n]
    right = (mean[:, 0] > mean[:, -1]).to(r.dtype)
    return per_item, {
        "accuracy": right.masked_fill(ties, 0.5),  # no answer to a tie is right or wrong
        "margin": mean[:, 0] - mean[:, -1],
        "reward_mean": mean.mean(1),
        **_disagreement(best - last),
    }


def single_reply_losses(
    model: nn.Module, items: Sequence[JudgedReply[Like]] | Sequence[JudgedReply[Score]]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses [E, P] of replies that were liked, disliked or scored; and what is logged of each reply [P]."""
    r = rewards(model, [x.row for x in items])  # [E, P]
    mean = r.detach().mean(0)
    terms = {"reward_mean": mean, **_disagreement(r)}
    if isinstance(items[0].item, Like):
        liked = torch.tensor([x.item.liked for x in items], device=r.device)  # pyright: ignore
        return like_loss(r, liked), terms | {"accuracy": ((mean > 0) == liked).to(r.dtype)}
    scores = torch.tensor([x.item.score for x in items], dtype=r.dtype, device=r.device)  # pyright: ignore
    # Losses of values are on decisions: [E, P] is read as [E, P, 1], one decision a reply.
    return squared_error(r.unsqueeze(-1), scores.unsqueeze(-1)).squeeze(-1), terms


def loss(model: nn.Module, items: Sequence[FeedbackRows], c: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over items, summed over members; and sums over items, of their means over members."""
    comparisons = [x for x in items if isinstance(x, Comparison)]
    groups: list[tuple[Tensor, dict[str, Tensor], Tensor]] = []
    # A tensor holds items with equally many replies, so that each n is read by itself.
    for n in sorted({len(x.rows) for x in comparisons}):
        alike = [x for x in comparisons if len(x.rows) == n]
        found = comparison_losses(model, alike, c)
        groups.append((*found, weights_of(alike, found[0])))
    if not comparisons:
        found = single_reply_losses(model, items)  # pyright: ignore[reportArgumentType]
        groups.append((*found, weights_of(items, found[0])))
    total, sums = torch.zeros((), device=groups[0][0].device), {}
    for per_item, terms, weights in groups:
        # Summed over members, so that each takes the step that it would take alone.
        total = total + (weights * per_item).sum()
        sums = added(sums, sums_over_items(terms | {"loss": per_item.mean(0)}, weights))
    return total / len(items), sums


def update(
    model: AnyRewardModel, learner: Learner, parts: Sequence[Sequence[FeedbackRows]], c: Config, lr: float
) -> dict[str, Tensor]:
    """One gradient step on all of the items; sums over them."""
    model.train()  # with dropout, if the trunk has any: nothing is sampled from a reward model
    return learner.learn_means(parts, lambda items: loss(learner.wrapped, items, c), lr=lr)


def train(
    c: Config,
    items: Sequence[FeedbackRows],
    heldout: Sequence[FeedbackRows],
    model: AnyRewardModel,
    run: TrainingRun,
    seed: int,
) -> AnyRewardModel:
    """Fit `model`, in place."""
    learner = run.learner(model, c.optimizer)
    order = BatchOrder([item.size for item in items], c.batch_size, seed)

    def unseen() -> Iterator[dict[str, Tensor]]:
        model.eval()
        parts = run.through.chunks(heldout, [x.size for x in heldout], 2 * c.batch_size)
        return (loss(learner.wrapped, part, c)[1] for part in parts)

    for step, parts, lr in run.passes(items, order, c.epochs, learner):
        sums = update(model, learner, parts, c, lr)
        run.report(step, sums, unseen)
    return model


def _disagreement(r: Tensor) -> dict[str, Tensor]:
    """Standard deviation [P] over the members [E, P]; one member alone has none."""
    return {"disagreement": r.detach().std(0, correction=0)} if len(r) > 1 else {}
