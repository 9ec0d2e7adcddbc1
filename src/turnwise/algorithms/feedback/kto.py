"""Kahneman-Tversky optimisation: a policy from likes and dislikes of single replies.

    h  = sum_k (log pi(a_k) - log pi_ref(a_k))                          log-ratio of a reply
    z  = max(0, mean of h over mismatched prompts and replies)          no gradient: how far the policy went
    L  = w_liked (1 - sigmoid(beta (h - z)))  of a liked reply,  w_disliked (1 - sigmoid(beta (z - h)))  else

Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7 and 8. A prompt is mismatched with the reply of the next row
in the batch; a batch of one row has none, and z is 0. Both sides should count alike: choose the weights so
that w_liked n_liked / (w_disliked n_disliked) is between 1 and 4/3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from turnwise.data.batch import pack_tokens
from turnwise.data.comparisons import JudgedReply, mismatched, weights_of
from turnwise.data.feedback import Like
from turnwise.data.order import BatchOrder, chunks
from turnwise.data.tokens import Tokens
from turnwise.losses.preference import kto_loss
from turnwise.losses.reduce import sums_over_items
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import Scorer, Scores, Spread
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, check
from turnwise.run.distributed import ALONE, World
from turnwise.run.learner import Learner
from turnwise.run.metrics import Metric
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of KTO."""

    epochs: float = 1.0
    """Passes over the replies."""
    batch_size: int = 64
    """Replies per step."""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=0.05)
    """Settings of the optimizer."""
    beta: float = 0.1
    """Units of implicit reward per nat. A smaller one lets the policy go further from the reference."""
    liked_weight: float = 1.0
    """Weight of liked replies."""
    disliked_weight: float = 1.0
    """Weight of disliked replies."""

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
    "rewards/accuracies": Metric("accuracy of implicit rewards"),
    "kl": Metric("KL to the reference", "nats"),
    "loss": Metric("preference loss", loss=True),
    "rewards/liked": Metric("liked replies", "implicit reward", panel="implicit rewards"),
    "rewards/disliked": Metric("disliked replies", "implicit reward", panel="implicit rewards"),
    "liked": Metric("share of liked replies"),
}


def log_ratios(policy: Scores, reference: Reference, rows: Sequence[Tokens]) -> Tensor:
    """h [B] of each reply."""
    batch = pack_tokens(rows, gamma=1.0).to(policy.device)
    return policy.logp(batch).sum(1) - reference.of_replies(rows, batch)


def implicit_rewards(policy: LmPolicy, reference: Reference, rows: Sequence[Tokens], c: Config) -> Tensor:
    """beta h [B]. The policy prefers the reply whose implicit reward is higher."""
    parts = chunks(rows, c.batch_size)
    return c.beta * torch.cat([log_ratios(policy, reference, part) for part in parts])


@torch.no_grad()
def drift(
    policy: Scores,
    reference: Reference,
    items: Sequence[JudgedReply[Like]],
    at_once: int | None = None,
    world: World = ALONE,
) -> Tensor:
    """z: how far the policy went at large, on replies that have nothing to do with their prompts.

    The paper takes no gradient of it: it is a point of comparison and not a goal. On several processes
    `items` are this one's of a batch. Their neighbours are with the others; each reads a share of the pairs.
    """
    found = world.gather(lambda: ([x.row for x in items if x.weight], at_once or 0))
    shares, at_once = [rows for rows, _ in found], max(n for _, n in found)  # all read equally often
    batch = [share[i] for i in range(max(map(len, shares))) for share in shares if i < len(share)]
    others = mismatched(batch, policy.context)
    if not others:
        return torch.zeros((), device=policy.device)
    own = others[world.rank :: world.size]
    most = -(-len(others) // world.size)
    read = [*own, *[others[0]] * (most - len(own))]  # all processes read equally many
    parts = chunks(read, at_once or most)
    found = torch.cat([log_ratios(policy, reference, part) for part in parts])[: len(own)]
    mean = (world.total(found.sum()) / len(others)).to(found.dtype)
    return mean.clamp(min=0.0)  # an estimate may be negative, a KL cannot


def loss(
    policy: Scores,
    reference: Reference,
    items: Sequence[JudgedReply[Like]],
    c: Config,
    z: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the replies; and sums over them. `z`: that of the batch which they are a part of, if any."""
    rows = [x.row for x in items]
    z = drift(policy, reference, items) if z is None else z
    h = log_ratios(policy, reference, rows)
    liked = torch.tensor([x.item.liked for x in items], device=h.device)
    per_item = kto_loss(h, liked, z, c.beta, c.liked_weight, c.disliked_weight)
    rewards = c.beta * h.detach()
    terms = {
        "loss": per_item,
        "rewards/liked": rewards * liked,
        "rewards/disliked": rewards * ~liked,
        "liked": liked.to(h.dtype),
        "rewards/accuracies": ((h.detach() > z) == liked).to(h.dtype),
        "kl": z.expand(len(items)),
    }
    weights = weights_of(items, per_item)
    return (weights * per_item).mean(), sums_over_items(terms, weights)


def means_of_sides(means: Mapping[str, float]) -> dict[str, float]:
    """The same means, but `rewards/liked` over liked replies alone and `rewards/disliked` over the others.

    A side without replies has no mean and is left out.
    """
    found = dict(means)
    for prefix in ("", "heldout/"):
        liked = found.get(f"{prefix}liked")
        if liked is None:
            continue
        for side, share in ((f"{prefix}rewards/liked", liked), (f"{prefix}rewards/disliked", 1 - liked)):
            over_all = found.pop(side)
            if share > 0:
                found[side] = over_all / share
    return found


def update(
    policy: Scores,
    learner: Learner,
    reference: Reference,
    parts: Sequence[Sequence[JudgedReply[Like]]],
    c: Config,
    lr: float,
) -> dict[str, Tensor]:
    """One gradient step on all of the items; sums over them."""
    with learner.through.precision(policy.device):
        items = [x for part in parts for x in part]
        z = drift(policy, reference, items, len(parts[0]), learner.world)
    return learner.learn_means(parts, lambda items: loss(policy, reference, items, c, z), lr=lr)


def train(
    c: Config,
    items: Sequence[JudgedReply[Like]],
    heldout: Sequence[JudgedReply[Like]],
    policy: LmPolicy,
    run: TrainingRun,
    seed: int,
) -> LmPolicy:
    """Move `policy`, in place, towards what was liked."""
    reference = Reference(policy.lm, run.world.place, run.world.splits)  # before the policy is spread
    learner = run.learner(Scorer(policy, run.world.splits), c.optimizer)
    spread = Spread(policy, learner.wrapped)
    order = BatchOrder([x.size for x in items], c.batch_size, seed)
    # Both replies of a pair stand side by side: a prompt would be mismatched with a reply to itself, and z
    # would be too high.
    heldout = [heldout[i] for i in np.random.default_rng(seed).permutation(len(heldout))]
    every = [*items, *heldout]
    parts = run.through.chunks(every, [x.size for x in every], c.batch_size)
    with learner.through.precision(policy.device):
        reference.remember([x.row for x in part] for part in parts)

    def unseen() -> Iterator[dict[str, Tensor]]:
        parts = run.through.chunks(heldout, [x.size for x in heldout], c.batch_size)
        return (loss(spread, reference, part, c)[1] for part in parts)

    for step, parts, lr in run.passes(items, order, c.epochs, learner):
        sums = update(spread, learner, reference, parts, c, lr)
        run.report(step, sums, unseen, finish=means_of_sides)
    return policy
