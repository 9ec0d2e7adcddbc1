"""Behaviour cloning: maximise the likelihood of the agent's tokens, in all conversations or in the best ones.

    L = -sum_k log pi(a_k | s_k) / (decisions of an average batch)

Pomerleau 1991. The filtered variants (keep the top tenth by return, or those above a return) are the %BC
baseline of Chen et al. 2021 (Decision Transformer), arXiv:2106.01345.

Differs from plain language modelling: partners' tokens are read and not predicted. With `partner_weight` they
are, as an auxiliary loss: a trunk that predicts the partner has to keep track of what it knows about him. The
stop token is an action.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from turnwise.data.batch import Batch, pack_tokens
from turnwise.data.order import BatchOrder, batch_size_for
from turnwise.data.rows import decision_counts, lengths
from turnwise.data.tokens import Tokens
from turnwise.losses.reduce import sum_over_decisions
from turnwise.models.decisions import at_decisions
from turnwise.models.lm.encoder_decoder.trunk import is_encoder_decoder
from turnwise.models.lm.parts import features_at, trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.replies import actions_logp, token_logp
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, PART, POSITIVE, check
from turnwise.run.errors import SettingError
from turnwise.run.learner import Learner
from turnwise.run.metrics import Metric
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of behaviour cloning."""

    epochs: float = 3.0
    """Passes over the conversations that are kept."""
    batch_size: int | None = None
    """Conversations (or segments of long ones) per step, over all processes; none: 32, and down to 4 where
    they are few, for at least 1,000 steps."""
    optimizer: AdamW = AdamW(lr=2e-3, warmup=0.04, weight_decay=0.01)
    """Settings of the optimizer. Its learning rate suits models of 0.1 to 3 million parameters."""
    partner_weight: float = 0.0
    """Weight of predicting what partners say, per token, beside the agent's tokens."""
    keep_top: float = 1.0
    """Share of conversations to learn from, those with the highest returns."""
    min_return: float | None = None
    """Learn only from conversations whose return is above this."""

    def __post_init__(self) -> None:
        check(self, epochs=POSITIVE, batch_size=ONE_OR_MORE, partner_weight=NOT_NEGATIVE, keep_top=PART)


METRICS: dict[str, Metric] = {
    "loss": Metric("cloning loss", "nats per token", loss=True),
    "partner_loss": Metric("loss on partners' tokens", "nats per token of the agent", loss=True),
}


class Objective(nn.Module):
    """The policy's log-probabilities in one forward pass, so that DDP may wrap them: its own, and others'."""

    def __init__(self, policy: LmPolicy):
        super().__init__()
        self.policy = policy

    def forward(self, batch: Batch, partner: bool) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities of the actions [B, A], and of every next token [B, T-1] if `partner`."""
        lm = self.policy.lm
        if not partner:
            return actions_logp(lm, batch), None
        place = torch.arange(batch.inputs.shape[1], device=batch.inputs.device)
        last = batch.decisions[:, -1:]
        features = features_at(trunk_of(lm), batch.inputs, place.minimum(last))  # [B, T, D]
        real = place[:-1] < last
        found = token_logp(lm, features[:, :-1][real], batch.inputs[:, 1:][real])
        logp = found.new_zeros(real.shape).masked_scatter(real, found)  # [B, T-1], of token t+1 at place t
        # A decision at position t is about token t+1, so that its log-probability stands at place t.
        padded = nn.functional.pad(logp, (0, 1)).unsqueeze(-1)  # [B, T, 1]
        return at_decisions(padded, batch.decisions[:, :-1]).squeeze(-1), logp


def filters(c: Config) -> bool:
    """Whether returns decide which conversations are learnt from."""
    return c.keep_top < 1 or c.min_return is not None


def keep(returns: np.ndarray, c: Config) -> np.ndarray:
    """Which conversations to learn from, by their undiscounted returns: places, in the order of the logs.

    SettingError if `min_return` leaves none.
    """
    kept = np.ones(len(returns), bool)
    if c.keep_top < 1:
        best = np.argsort(-returns, kind="stable")[: max(1, round(c.keep_top * len(returns)))]
        kept[:] = False
        kept[best] = True
    if c.min_return is not None:
        kept &= returns > c.min_return
    if not kept.any():
        raise SettingError("min_return", c.min_return, "a lower bound: no conversation has a higher return")
    return np.flatnonzero(kept)


def loss(
    objective: nn.Module, batch: Batch, denominator: float, c: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative log-likelihood in nats of the agent's tokens and, by weight, of partners'; and its sums."""
    logp, all_logp = objective(batch, c.partner_weight > 0)
    nll = sum_over_decisions(-logp, batch.loss_mask)
    sums = {"loss": nll, "decisions": batch.loss_mask.sum()}
    if all_logp is None:
        return nll / denominator, sums
    partner = sum_over_decisions(-all_logp, partner_tokens(batch))
    return (nll + c.partner_weight * partner) / denominator, sums | {"partner_loss": partner}


def partner_tokens(batch: Batch) -> Tensor:
    """[B, T-1] True where the next token was read and not chosen by the agent (padding excluded)."""
    B, T = batch.inputs.shape
    final = batch.decisions[:, -1:]  # [B, 1], the last position of a row before its padding
    real = torch.arange(T - 1, device=batch.inputs.device) < final  # [B, T-1]
    chosen = torch.zeros(B, T, dtype=torch.bool, device=batch.inputs.device)
    rows = torch.arange(B, device=batch.inputs.device).unsqueeze(-1).expand_as(batch.mask)
    chosen[rows[batch.mask], batch.decisions[:, :-1][batch.mask]] = True
    return real & ~chosen[:, :-1]


def update(
    learner: Learner, batches: Sequence[Batch], denominator: float, c: Config, lr: float
) -> dict[str, Tensor]:
    """One gradient step on all of the batches; sums over decisions."""
    return learner.learn(batches, lambda batch: loss(learner.wrapped, batch, denominator, c), lr=lr)


def train(
    c: Config,
    rows: Sequence[Tokens],
    heldout: Sequence[Tokens],
    policy: LmPolicy,
    run: TrainingRun,
    seed: int,
) -> LmPolicy:
    """Clone the agent of the logs into `policy`, in place."""
    if c.partner_weight and is_encoder_decoder(policy.lm):
        expected = "0 for an encoder-decoder: its encoder reads what partners say, and predicts nothing"
        raise SettingError("partner_weight", c.partner_weight, expected)
    objective = Objective(policy)
    learner = run.learner(objective, c.optimizer)
    dtype = torch.promote_types(next(objective.parameters()).dtype, torch.float32)  # numbers, not weights
    order = BatchOrder(lengths(rows), c.batch_size or batch_size_for(len(rows), c.epochs), seed)
    denominator = int(decision_counts(rows).sum()) / order.batches_per_epoch / run.world.size

    def pack(chosen: Sequence[Tokens]) -> Batch:
        return pack_tokens(chosen, gamma=1.0, dtype=dtype).to(run.world.device)

    def unseen() -> Iterator[dict[str, Tensor]]:
        parts = run.through.chunks(heldout, lengths(heldout), order.batch_size)
        return (loss(learner.wrapped, pack(part), 1.0, c)[1] for part in parts)

    for step, parts, lr in run.passes(rows, order, c.epochs, learner):
        sums = update(learner, [pack(part) for part in parts], denominator, c, lr)
        run.report(step, sums, unseen)
    return policy
