"""A partner from logs: the words of the other side cloned, when it ends the talk, and what that earned.

    L = (1/N) [ -sum_k ln p(w_k | h_k)  +  sum_turns ( w_E -ln p(end | h)  +  w_R (r(h) - r)^2 / sigma^2 ) ]

k counts the tokens that the partner chose and N those of an average batch; h is everything before, as the
partner has it. Behind the last token of each of its turns stand whether the conversation ended there, and
what the agent's words before the turn earned: both may depend on what the partner said.

The first term is behaviour cloning (Pomerleau 1991) with the roles turned round, as user models are learnt
for dialogue (Schatzmann et al. 2006; Asri et al. 2016, arXiv:1607.00070).

Differs from these: a language model writes the words; silence is a turn without words; and the end and the
reward are learnt beside them on the same features, without which nobody could learn from talks with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from turnwise.data.order import BatchOrder, batch_size_for
from turnwise.data.rows import decision_counts, lengths
from turnwise.data.tokens import Tokens
from turnwise.losses.reduce import sum_over_decisions
from turnwise.losses.value import ending_loss, squared_error
from turnwise.models.lm.partner import Minibatch, PartnerModel, minibatch
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import Metric
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of a partner from logs."""

    epochs: float = 4.0
    """Passes over the conversations."""
    batch_size: int | None = None
    """Conversations (or segments of long ones) per step, over all processes; none: 32, and down to 4 where
    they are few, for at least 1,000 steps."""
    optimizer: AdamW = AdamW(lr=2e-3, warmup=0.04, weight_decay=0.01)
    """Settings of the optimizer. Its learning rate suits models of 0.1 to 3 million parameters."""
    end_weight: float = 1.0
    """Weight of telling whether the conversation is over, per turn of the partner."""
    reward_weight: float = 1.0
    """Weight of the squared error of the reward, in squared standard deviations, per turn of the partner."""

    def __post_init__(self) -> None:
        check(
            self,
            epochs=POSITIVE,
            batch_size=ONE_OR_MORE,
            end_weight=NOT_NEGATIVE,
            reward_weight=NOT_NEGATIVE,
        )


METRICS: dict[str, Metric] = {
    "loss": Metric("loss on the partner's words", "nats per token", loss=True),
    "end_loss": Metric("loss on the end of the talk", "nats per token of the partner", loss=True),
    "reward_loss": Metric("squared error of the reward", "squared deviations per token", loss=True),
}


def loss(
    model: nn.Module, x: Minibatch, scale: Tensor, denominator: float, c: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """The three terms by the denominator; and their sums. `scale`: mean and deviation of the rewards."""
    b = x.batch
    told = model(b)
    turns = x.stops & b.loss_mask
    over = b.mask & (b.discounts == 0)
    words = sum_over_decisions(-told.logp, b.loss_mask)
    end = sum_over_decisions(ending_loss(told.end, over), turns)
    reward = sum_over_decisions(squared_error(told.reward, (b.rewards - scale[0]) / scale[1]), turns)
    sums = {"loss": words, "end_loss": end, "reward_loss": reward, "decisions": b.loss_mask.sum()}
    return (words + c.end_weight * end + c.reward_weight * reward) / denominator, sums


def update(
    learner: Learner,
    parts: Sequence[Minibatch],
    scale: Tensor,
    denominator: float,
    c: Config,
    lr: float,
) -> dict[str, Tensor]:
    """One gradient step on all parts; sums over decisions."""
    return learner.learn(parts, lambda x: loss(learner.wrapped, x, scale, denominator, c), lr=lr)


def train(
    c: Config,
    rows: Sequence[Tokens],
    heldout: Sequence[Tokens],
    model: PartnerModel,
    run: TrainingRun,
    seed: int,
) -> PartnerModel:
    """Fit `model` to conversations that were turned round (`data/other_side.py`), in place."""
    learner = run.learner(model, c.optimizer)
    dtype = torch.promote_types(next(model.parameters()).dtype, torch.float32)  # numbers, not weights
    order = BatchOrder(lengths(rows), c.batch_size or batch_size_for(len(rows), c.epochs), seed)
    denominator = int(decision_counts(rows).sum()) / order.batches_per_epoch / run.world.size
    scale = model.scale.detach().to(dtype)

    def pack(chosen: Sequence[Tokens]) -> Minibatch:
        x = minibatch(chosen, dtype)
        return Minibatch(x.batch.to(run.world.device), x.stops.to(run.world.device))

    def unseen() -> Iterator[dict[str, Tensor]]:
        parts = run.through.chunks(heldout, lengths(heldout), order.batch_size)
        return (loss(learner.wrapped, pack(part), scale.to(run.world.device), 1.0, c)[1] for part in parts)

    for step, parts, lr in run.passes(rows, order, c.epochs, learner):
        packed = [pack(part) for part in parts]
        sums = update(learner, packed, scale.to(run.world.device), denominator, c, lr)
        run.report(step, sums, unseen)
    return model
