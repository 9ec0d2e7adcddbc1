"""Direct preference optimisation: a policy from comparisons alone, no reward model and no sampling.

    h_i = sum_k (log pi(a_k) - log pi_ref(a_k))        log-ratio of reply i; its implicit reward is beta h_i
    L   = -log sigmoid(beta (h_chosen - h_rejected))

Rafailov et al. 2023, arXiv:2305.18290, eq. 7. The other formulas change the loss and not the story:
    ipo           (h_w - h_l - 1 / (2 beta))^2, with h per token     Azar et al. 2023, arXiv:2310.12036
    conservative  labels are wrong with probability `noise`          Mitchell 2023 (cDPO), a smoothed target
    robust        the same noise, unbiased                           Chowdhury et al. 2024, arXiv:2403.00409
    ranking       Plackett-Luce over n replies, pairs being n = 2    Rafailov et al. 2023, appendix A.3

Differs from the papers: `ipo` takes log-ratios per token and so is length-normalised, as TRL has it; the loss
of a tie is half of the loss in each direction. The replies of an item share their prompt, which is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from turnwise.data.batch import pack_tokens
from turnwise.data.comparisons import Comparison, weights_of
from turnwise.data.order import BatchOrder, chunks
from turnwise.data.tokens import Tokens
from turnwise.losses.preference import (
    all_tied_loss,
    conservative_dpo_loss,
    dpo_loss,
    ipo_loss,
    ranking_dpo_loss,
    robust_dpo_loss,
)
from turnwise.losses.reduce import sums_over_items
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import Scorer, Scores, Spread
from turnwise.run.checks import BELOW_HALF, NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, check, check_choice
from turnwise.run.errors import SettingError
from turnwise.run.learner import Learner
from turnwise.run.metrics import Metric, added
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun

Formula = Literal["dpo", "ipo", "conservative", "robust", "ranking"]


@dataclass(frozen=True)
class Config:
    """Numbers of DPO."""

    epochs: float = 1.0
    """Passes over the comparisons."""
    batch_size: int = 32
    """Comparisons per step."""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=0.05)
    """Settings of the optimizer."""
    beta: float = 0.1
    """Units of implicit reward per nat. A smaller one lets the policy go further from the reference."""
    formula: Formula = "dpo"
    """Formula of the loss. Rankings of more than two replies need `ranking`."""
    noise: float = 0.1
    """Probability that a label is wrong. Only `conservative` and `robust` take it."""

    def __post_init__(self) -> None:
        check(self, epochs=POSITIVE, batch_size=ONE_OR_MORE, beta=NOT_NEGATIVE, noise=BELOW_HALF)
        check_choice(self, formula=get_args(Formula))
        if self.formula == "ipo" and not self.beta:
            raise SettingError("beta", self.beta, "a number above 0 for formula ipo: its gap is 1 / (2 beta)")
        if self.noise != Config.noise and self.formula not in ("conservative", "robust"):
            alone = f"formula conservative or robust, which alone take it; found {self.formula}"
            raise SettingError("noise", self.noise, alone)


METRICS: dict[str, Metric] = {
    "rewards/accuracies": Metric("accuracy of implicit rewards"),
    "loss": Metric("preference loss", loss=True),
    "rewards/margins": Metric("margin of implicit rewards", "implicit reward"),
    "rewards/chosen": Metric("chosen replies", "implicit reward", panel="implicit rewards"),
    "rewards/rejected": Metric("rejected replies", "implicit reward", panel="implicit rewards"),
    "logps/chosen": Metric("chosen replies", "nats", panel="log-probabilities"),
    "logps/rejected": Metric("rejected replies", "nats", panel="log-probabilities"),
}


def formula_loss(log_ratios: Tensor, c: Config) -> Tensor:
    """Losses [P] of the log-ratios [P, n] of n replies each, the best reply first."""
    if log_ratios.shape[1] > 2 and c.formula != "ranking":
        raise ValueError(
            f"{c.formula} of {log_ratios.shape[1]} replies; expected pairs, or the formula ranking"
        )
    if c.formula == "ranking":
        return ranking_dpo_loss(log_ratios, torch.ones_like(log_ratios, dtype=torch.bool), c.beta)
    chosen, rejected = log_ratios[:, 0], log_ratios[:, 1]
    if c.formula == "ipo":
        return ipo_loss(chosen, rejected, c.beta)
    if c.formula == "conservative":
        return conservative_dpo_loss(chosen, rejected, c.beta, c.noise)
    if c.formula == "robust":
        return robust_dpo_loss(chosen, rejected, c.beta, c.noise)
    return dpo_loss(chosen, rejected, c.beta)


def log_ratios_and_logp(
    policy: Scores,
    reference: Reference,
    rows: Sequence[Tokens],
    c: Config,
    group: int = 1,
) -> tuple[Tensor, Tensor]:
    """h [B] of each reply, per token for ipo; and its log-probability [B]. Rows of a group share a prompt."""
    batch = pack_tokens(rows, gamma=1.0).to(policy.device)
    ref_logp = reference.of_replies(rows, batch, group=group)  # [B], without gradient
    logp = policy.logp(batch, group)  # [B, A], 0 where masked
    log_ratios = logp.sum(1) - ref_logp  # [B]
    return log_ratios / batch.mask.sum(1) if c.formula == "ipo" else log_ratios, logp.sum(1)


def implicit_rewards(policy: LmPolicy, reference: Reference, rows: Sequence[Tokens], c: Config) -> Tensor:
    """beta h [B]. The policy prefers the reply whose implicit reward is higher."""
    parts = chunks(rows, c.batch_size)
    return c.beta * torch.cat([log_ratios_and_logp(policy, reference, part, c)[0] for part in parts])


def losses_of(
    policy: Scores, reference: Reference, items: Sequence[Comparison], c: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses [P] of items with equally many replies n; and what is logged of each item [P]."""
    n = len(items[0].rows)
    rows = [row for item in items for row in item.rows]  # n rows after each other share a prompt
    both = log_ratios_and_logp(policy, reference, rows, c, group=n)
    log_ratios, logp = (x.view(-1, n) for x in both)  # [P n] -> [P, n]
    per_item = formula_loss(log_ratios, c)
    ties = torch.tensor([item.tie for item in items], device=logp.device)
    if bool(ties.any()):
        # Plackett-Luce in both directions would prefer the middle one of three replies, so that more than
        # two are compared in pairs.
        flipped = formula_loss(log_ratios.flip(1), c) if n == 2 else None
        even = all_tied_loss(c.beta * log_ratios) if flipped is None else (per_item + flipped) / 2
        per_item = torch.where(ties, even, per_item)
    h = log_ratios.detach()
    return per_item, {
        "loss": per_item,
        "rewards/chosen": c.beta * h[:, 0],
        "rewards/rejected": c.beta * h[:, -1],
        "rewards/margins": c.beta * (h[:, 0] - h[:, -1]),
        "rewards/accuracies": (h[:, 0] > h[:, -1]).to(h.dtype).masked_fill(ties, 0.5),
        "logps/chosen": logp[:, 0],
        "logps/rejected": logp[:, -1],
    }


def loss(
    policy: Scores, reference: Reference, items: Sequence[Comparison], c: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the comparisons; and sums over them."""
    total, sums = torch.zeros((), device=policy.device), {}
    # A tensor holds items with equally many replies, so that each n is read by itself.
    for n in sorted({len(item.rows) for item in items}):
        alike = [item for item in items if len(item.rows) == n]
        per_item, terms = losses_of(policy, reference, alike, c)
        weights = weights_of(alike, per_item)
        total = total + (weights * per_item).sum()
        sums = added(sums, sums_over_items(terms, weights))
    return total / len(items), sums


def update(
    policy: Scores,
    learner: Learner,
    reference: Reference,
    parts: Sequence[Sequence[Comparison]],
    c: Config,
    lr: float,
) -> dict[str, Tensor]:
    """One gradient step on all of the items; sums over them."""
    return learner.learn_means(parts, lambda items: loss(policy, reference, items, c), lr=lr)


def train(
    c: Config,
    items: Sequence[Comparison],
    heldout: Sequence[Comparison],
    policy: LmPolicy,
    run: TrainingRun,
    seed: int,
) -> LmPolicy:
    """Move `policy`, in place, towards what was preferred."""
    reference = Reference(policy.lm, run.world.place, run.world.splits)  # as the policy is before it learns
    learner = run.learner(Scorer(policy, run.world.splits), c.optimizer)
    spread = Spread(policy, learner.wrapped)
    order = BatchOrder([item.size for item in items], c.batch_size, seed)
    every = [*items, *heldout]
    for n in sorted({len(item.rows) for item in every}):
        alike = [item for item in every if len(item.rows) == n]
        parts = run.through.chunks(alike, [x.size for x in alike], c.batch_size)
        with learner.through.precision(policy.device):
            reference.remember(([row for item in part for row in item.rows] for part in parts), group=n)

    def unseen() -> Iterator[dict[str, Tensor]]:
        parts = run.through.chunks(heldout, [x.size for x in heldout], c.batch_size)
        return (loss(spread, reference, part, c)[1] for part in parts)

    for step, parts, lr in run.passes(items, order, c.epochs, learner):
        sums = update(spread, learner, reference, parts, c, lr)
        run.report(step, sums, unseen)
    return policy
