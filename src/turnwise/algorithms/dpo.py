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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from turnwise.data.batch import pack_tokens
from turnwise.data.order import BatchOrder, chunks
from turnwise.data.preference_rows import Compared
from turnwise.losses.preference import (
    all_tied_loss,
    conservative_dpo_loss,
    dpo_loss,
    ipo_loss,
    ranking_dpo_loss,
    robust_dpo_loss,
)
from turnwise.models.lm_reference import Reference
from turnwise.models.lm_replies import score_replies
from turnwise.models.policies import LmPolicy
from turnwise.run.optim import adamw, descend, warmup_linear
from turnwise.run.training import Learner, Run

Formula = Literal["dpo", "ipo", "conservative", "robust", "ranking"]


@dataclass(frozen=True)
class Config:
    """Numbers of DPO."""

    epochs: float = 1.0
    """passes over the comparisons"""
    batch_size: int = 32
    """comparisons per step"""
    lr: float = 3e-4
    """peak learning rate of AdamW"""
    warmup: int = 20
    """steps of rising learning rate"""
    weight_decay: float = 0.0
    """decoupled, of AdamW"""
    grad_clip: float = 1.0
    """largest global gradient norm"""
    beta: float = 0.1
    """units of implicit reward per nat: small lets the policy go far"""
    formula: Formula = "dpo"
    """of the loss"""
    noise: float = 0.1
    """probability that a label is wrong, for conservative and robust"""


def formula(ratios: Tensor, lengths: Tensor, known: Tensor, c: Config) -> Tensor:
    """[P] losses of ratios [P, n], the best reply first; `known` [P, n] is False at padding."""
    if ratios.shape[1] > 2 and c.formula != "ranking":
        raise ValueError(f"{c.formula} of {ratios.shape[1]} replies; expected pairs, or the formula ranking")
    if c.formula == "ranking":
        return ranking_dpo_loss(ratios, known, c.beta)
    if c.formula == "ipo":
        means = ratios / lengths
        return ipo_loss(means[:, 0], means[:, 1], c.beta)
    w, l = ratios[:, 0], ratios[:, 1]
    if c.formula == "conservative":
        return conservative_dpo_loss(w, l, c.beta, c.noise)
    if c.formula == "robust":
        return robust_dpo_loss(w, l, c.beta, c.noise)
    return dpo_loss(w, l, c.beta)


def scored(
    policy: LmPolicy, reference: Reference, items: Sequence[Compared], c: Config, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses [P] of items that have equally many replies, and what is logged of each."""
    n = len(items[0].rows)
    b = pack_tokens([row for item in items for row in item.rows], gamma=1.0).to(device)
    asked = (b.inputs, b.decisions, b.actions, b.mask)
    ref_logp = reference.logp(*asked, group=n)
    logp = score_replies(policy.lm, *asked, group=n).logp
    ratios = (logp - ref_logp).sum(1).view(-1, n)
    lengths = b.mask.sum(1).view(-1, n)
    known = torch.ones_like(ratios, dtype=torch.bool)
    per_item = formula(ratios, lengths, known, c)
    ties = torch.tensor([item.tie for item in items], device=device)
    if bool(ties.any()):
        if n > 2:
            even = all_tied_loss(c.beta * ratios)
        else:
            even = (per_item + formula(ratios.flip(1), lengths.flip(1), known, c)) / 2
        per_item = torch.where(ties, even, per_item)
    h, logps = ratios.detach(), logp.detach().sum(1).view(-1, n)
    return per_item, {
        "loss": per_item.detach(),
        "rewards/chosen": c.beta * h[:, 0],
        "rewards/rejected": c.beta * h[:, -1],
        "rewards/margins": c.beta * (h[:, 0] - h[:, -1]),
        "rewards/accuracies": (h[:, 0] > h[:, -1]).to(h.dtype).masked_fill(ties, 0.5),
        "logps/chosen": logps[:, 0],
        "logps/rejected": logps[:, -1],
    }


def loss(
    policy: LmPolicy, reference: Reference, items: Sequence[Compared], c: Config, device: torch.device
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


def train(
    c: Config,
    items: Sequence[Compared],
    heldout: Sequence[Compared],
    policy: LmPolicy,
    run: Run,
    seed: int,
) -> LmPolicy:
    """Move `policy`, in place, towards what was preferred."""
    run.world.place(policy)
    reference = Reference(policy.lm)
    learner = Learner(policy, adamw(policy, c.lr, c.weight_decay))
    order = BatchOrder([item.size for item in items], c.batch_size, seed)
    total = max(1, round(c.epochs * order.batches_per_epoch))
    for step in run.steps(total, learner):
        policy.lm.eval()  # no dropout, as when held-out rows are read
        chosen = [items[i] for i in order.rows(step)]
        objective, sums = loss(policy, reference, chosen, c, run.world.device)
        lr = c.lr * warmup_linear(step, total, c.warmup)
        descend(policy, learner.optimizer, objective, lr=lr, grad_clip=c.grad_clip)
        if run.due(step, total):
            seen = run.heldout(
                step,
                total,
                lambda: chunks(heldout, c.batch_size),
                lambda part: loss(policy, reference, part, c, run.world.device)[1],
            )
            run.log(step, run.world.means(sums) | seen)
    return policy
