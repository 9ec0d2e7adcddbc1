"""Kahneman-Tversky optimisation: a policy from likes and dislikes of single replies.

    h  = sum_k (log pi(a_k) - log pi_ref(a_k))
    z  = max(0, mean of h over mismatched prompts and replies), without gradient: how far the policy went
    L  = w_liked (1 - sigmoid(beta (h - z)))  of a liked reply,  w_disliked (1 - sigmoid(beta (z - h)))  else

Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7 and 8. A mismatched reply is that of the batch's next
row; in a batch of one z is 0.
Weights should make both sides count alike: w_liked n_liked / (w_disliked n_disliked) between 1 and 4/3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from turnwise.data.batch import pack_tokens
from turnwise.data.comparisons import JudgedReply, mismatched
from turnwise.data.feedback import Like
from turnwise.data.order import BatchOrder, chunks
from turnwise.data.tokens import Tokens
from turnwise.losses.preference import kto_loss
from turnwise.models.lm.parts import context_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import score_replies
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, check
from turnwise.run.metrics import Metric
from turnwise.run.optim import adamw, descend
from turnwise.run.settings import AdamW
from turnwise.run.training import Learner, TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of KTO."""

    epochs: float = 1.0
    """passes over the likes"""
    batch_size: int = 64
    """replies per step"""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=20)
    """Settings of the optimizer."""
    beta: float = 0.1
    """units of implicit reward per nat: small lets the policy go far"""
    liked_weight: float = 1.0
    """of liked replies"""
    disliked_weight: float = 1.0
    """of disliked replies"""

    def __post_init__(self) -> None:
        check(
            self,
            epochs=POSITIVE,
            batch_size=ONE_OR_MORE,
            beta=NOT_NEGATIVE,
            liked_weight=NOT_NEGATIVE,
            disliked_weight=NOT_NEGATIVE,
        )


METRICS: dict[str, Metric] = {
    "loss": Metric("preference loss", loss=True),
    "rewards/liked": Metric("implicit reward of liked replies", "implicit reward"),
    "rewards/disliked": Metric("implicit reward of disliked replies", "implicit reward"),
    "rewards/accuracies": Metric("accuracy of implicit rewards"),
    "liked": Metric("share of liked replies"),
    "kl": Metric("KL to the reference", "nats"),
}


def ratios(policy: LmPolicy, reference: Reference, rows: Sequence[Tokens], device: torch.device) -> Tensor:
    """[B], log-probability of each reply less the reference's."""
    b = pack_tokens(rows, gamma=1.0).to(device)
    return (score_replies(policy.lm, b).logp - reference.logp(b)).sum(1)


def loss(
    policy: LmPolicy,
    reference: Reference,
    items: Sequence[JudgedReply[Like]],
    c: Config,
    device: torch.device,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the replies; and sums over them."""
    rows = [item.row for item in items]
    others = mismatched(rows, context_of(policy.lm))
    with torch.no_grad():
        z = ratios(policy, reference, others, device).mean() if others else torch.zeros((), device=device)
        z = z.clamp(min=0.0)
    h = ratios(policy, reference, rows, device)
    good = torch.tensor([x.item.liked for x in items], device=device)
    per_item = kto_loss(h, good, z, c.beta, c.liked_weight, c.disliked_weight)
    sums = {
        "loss": per_item.detach(),
        "rewards/liked": c.beta * h.detach() * good,
        "rewards/disliked": c.beta * h.detach() * ~good,
        "liked": good.to(h.dtype),
        "rewards/accuracies": ((h.detach() > z) == good).to(h.dtype),
        "kl": z.expand(len(items)),
    }
    totals = {name: x.sum().cpu() for name, x in sums.items()}
    totals["decisions"] = torch.tensor(len(items))
    return per_item.mean(), totals


def implicit_rewards(
    policy: LmPolicy, reference: Reference, rows: Sequence[Tokens], c: Config, device: torch.device
) -> Tensor:
    """beta h [B]: by what it prefers one reply to another."""
    return c.beta * torch.cat(
        [ratios(policy, reference, part, device) for part in chunks(rows, c.batch_size)]
    )


def of_each_side(means: Mapping[str, float]) -> dict[str, float]:
    """Means over all replies, but of `rewards/liked` and `rewards/disliked` over the replies of their side.

    Of a side without replies nothing is told.
    """
    told = dict(means)
    for of in ("", "heldout/"):
        liked = told.get(f"{of}liked")
        if liked is None:
            continue
        for side, share in ((f"{of}rewards/liked", liked), (f"{of}rewards/disliked", 1 - liked)):
            total = told.pop(side)
            if share > 0:
                told[side] = total / share
    return told


def update(
    policy: LmPolicy,
    learner: Learner,
    reference: Reference,
    items: Sequence[JudgedReply[Like]],
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
    items: Sequence[JudgedReply[Like]],
    heldout: Sequence[JudgedReply[Like]],
    policy: LmPolicy,
    run: TrainingRun,
    seed: int,
) -> LmPolicy:
    """Move `policy`, in place, towards what was liked."""
    run.world.place(policy)
    reference = Reference(policy.lm)
    learner = Learner(policy, adamw(policy, c.optimizer))
    order = BatchOrder([len(item.row) for item in items], c.batch_size, seed)
    total = order.steps(c.epochs)
    # Both replies of a pair stand side by side, and z would be of replies to their own prompts.
    heldout = [heldout[i] for i in np.random.default_rng(seed).permutation(len(heldout))]
    device = run.world.device

    def unseen() -> Iterator[dict[str, Tensor]]:
        return (loss(policy, reference, part, c, device)[1] for part in chunks(heldout, c.batch_size))

    for step, chosen, lr in run.passes(items, order, total, learner, c.optimizer):
        sums = update(policy, learner, reference, chosen, c, lr, device)
        run.report(step, sums, unseen, of_each_side)
    return policy
