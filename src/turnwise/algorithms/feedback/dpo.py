"""Direct preference optimisation: a policy from comparisons alone, no reward model and no sampling.

    h_i = sum_k (log pi(a_k) - log pi_ref(a_k))        of reply i: beta h is its implicit reward
    L   = -log sigmoid(beta (h_chosen - h_rejected))

Rafailov et al. 2023, arXiv:2305.18290, eq. 7. The other losses change the formula and not the story:
    ipo           (h_w - h_l - 1 / (2 beta))^2, with h per token     Azar et al. 2023, arXiv:2310.12036
    conservative  labels are wrong with probability `noise`          Mitchell 2023 (cDPO), a smoothed target
    robust        the same noise, unbiased                           Chowdhury et al. 2024, arXiv:2403.00409
    ranking       Plackett-Luce over n replies, pairs being n = 2    Rafailov et al. 2023, appendix A.3

Differs from the papers: `ipo` with ratios per token is length-normalised, as TRL has it; a tie is half of
each direction. The replies of an item share their prompt, which is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from turnwise.data.batch import pack_tokens
from turnwise.data.comparisons import Comparison
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
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import score_replies
from turnwise.run.checks import BELOW_HALF, NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, check, check_choice
from turnwise.run.errors import SettingError
from turnwise.run.metrics import Metric
from turnwise.run.optim import adamw, descend
from turnwise.run.settings import AdamW
from turnwise.run.training import Learner, TrainingRun

Formula = Literal["dpo", "ipo", "conservative", "robust", "ranking"]


@dataclass(frozen=True)
class Config:
    """Numbers of DPO."""

    epochs: float = 1.0
    """passes over the comparisons"""
    batch_size: int = 32
    """comparisons per step"""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=20)
    """Settings of the optimizer."""
    beta: float = 0.1
    """units of implicit reward per nat: small lets the policy go far"""
    formula: Formula = "dpo"
    """of the loss"""
    noise: float = 0.1
    """probability that a label is wrong, for conservative and robust"""

    def __post_init__(self) -> None:
        check(self, epochs=POSITIVE, batch_size=ONE_OR_MORE, beta=NOT_NEGATIVE, noise=BELOW_HALF)
        check_choice(self, formula=get_args(Formula))
        if self.formula == "ipo" and not self.beta:
            raise SettingError("beta", self.beta, "a number above 0 for formula ipo: its gap is 1 / (2 beta)")
        if self.noise != Config.noise and self.formula not in ("conservative", "robust"):
            alone = f"formula conservative or robust, which alone take it; found {self.formula}"
            raise SettingError("noise", self.noise, alone)


METRICS: dict[str, Metric] = {
    "loss": Metric("preference loss", loss=True),
    "rewards/chosen": Metric("implicit reward of chosen replies", "implicit reward"),
    "rewards/rejected": Metric("implicit reward of rejected replies", "implicit reward"),
    "rewards/margins": Metric("margin of implicit rewards", "implicit reward"),
    "rewards/accuracies": Metric("accuracy of implicit rewards"),
    "logps/chosen": Metric("log-probability of chosen replies", "nats"),
    "logps/rejected": Metric("log-probability of rejected replies", "nats"),
}


def formula(h: Tensor, c: Config) -> Tensor:
    """[P] losses of log-ratios [P, n], the best reply first."""
    if h.shape[1] > 2 and c.formula != "ranking":
        raise ValueError(f"{c.formula} of {h.shape[1]} replies; expected pairs, or the formula ranking")
    if c.formula == "ranking":
        return ranking_dpo_loss(h, torch.ones_like(h, dtype=torch.bool), c.beta)
    w, l = h[:, 0], h[:, 1]
    if c.formula == "ipo":
        return ipo_loss(w, l, c.beta)
    if c.formula == "conservative":
        return conservative_dpo_loss(w, l, c.beta, c.noise)
    if c.formula == "robust":
        return robust_dpo_loss(w, l, c.beta, c.noise)
    return dpo_loss(w, l, c.beta)


def scored(
    policy: LmPolicy, reference: Reference, items: Sequence[Comparison], c: Config, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses [P] of items that have equally many replies, and what is logged of each."""
    n = len(items[0].rows)
    h, logps = (
        x.view(-1, n)
        for x in log_ratios(policy, reference, [row for item in items for row in item.rows], c, device, n)
    )
    per_item = formula(h, c)
    ties = torch.tensor([item.tie for item in items], device=device)
    if bool(ties.any()):
        even = all_tied_loss(c.beta * h) if n > 2 else (per_item + formula(h.flip(1), c)) / 2
        per_item = torch.where(ties, even, per_item)
    h, logps = h.detach(), logps.detach()
    return per_item, {
        "loss": per_item.detach(),
        "rewards/chosen": c.beta * h[:, 0],
        "rewards/rejected": c.beta * h[:, -1],
        "rewards/margins": c.beta * (h[:, 0] - h[:, -1]),
        "rewards/accuracies": (h[:, 0] > h[:, -1]).to(h.dtype).masked_fill(ties, 0.5),
        "logps/chosen": logps[:, 0],
        "logps/rejected": logps[:, -1],
    }


def log_ratios(
    policy: LmPolicy,
    reference: Reference,
    rows: Sequence[Tokens],
    c: Config,
    device: torch.device,
    group: int = 1,
) -> tuple[Tensor, Tensor]:
    """h [B] of each reply, per token for ipo; and its log-probability."""
    b = pack_tokens(rows, gamma=1.0).to(device)
    ref_logp = reference.logp(b, group=group)
    logp = score_replies(policy.lm, b, group=group).logp
    h = (logp - ref_logp).sum(1)
    return h / b.mask.sum(1) if c.formula == "ipo" else h, logp.sum(1)


def implicit_rewards(
    policy: LmPolicy, reference: Reference, rows: Sequence[Tokens], c: Config, device: torch.device
) -> Tensor:
    """beta h [B]: by what it prefers one reply to another."""
    parts = chunks(rows, c.batch_size)
    return c.beta * torch.cat([log_ratios(policy, reference, part, c, device)[0] for part in parts])


def loss(
    policy: LmPolicy, reference: Reference, items: Sequence[Comparison], c: Config, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the comparisons; and sums over them. Items of n replies are read together, for each n."""
    total, sums = torch.zeros((), device=device), {}
    for n in sorted({len(item.rows) for item in items}):
        alike = [item for item in items if len(item.rows) == n]
        per_item, told = scored(policy, reference, alike, c, device)
        total = total + per_item.sum()
        sums = {name: sums.get(name, torch.zeros(())) + x.sum().cpu() for name, x in told.items()}
    sums["decisions"] = torch.tensor(len(items))
    return total / len(items), sums


def update(
    policy: LmPolicy,
    learner: Learner,
    reference: Reference,
    items: Sequence[Comparison],
    c: Config,
    lr: float,
    device: torch.device,
) -> dict[str, Tensor]:
    """One gradient step; sums over the items."""
    objective, sums = loss(policy, reference, items, c, device)
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
    reference = Reference(policy.lm)
    learner = Learner(policy, adamw(policy, c.optimizer))
    order = BatchOrder([item.size for item in items], c.batch_size, seed)
    total = order.steps(c.epochs)
    device = run.world.device

    def unseen() -> Iterator[dict[str, Tensor]]:
        return (loss(policy, reference, part, c, device)[1] for part in chunks(heldout, c.batch_size))

    for step, chosen, lr in run.passes(items, order, total, learner, c.optimizer):
        sums = update(policy, learner, reference, chosen, c, lr, device)
        run.report(step, sums, unseen)
    return policy
