"""Advantage-weighted regression (AWR): clone the logs again, each word by how good a critic says that it was.

    A_k = (min_i Q_i(s_k, a_k) - V(s_k)) / sigma       sigma: standard deviation of the return
    w_k = min(exp(beta A_k), most_weight)
    L   = -sum_k w_k log pi(a_k | s_k) / (decisions of an average batch)

k counts the agent's tokens. Under a critic of tokens each has an advantage of its own; under one of turns all
tokens of an utterance have that of the utterance. Without the bound and with all the logs in the world, the
minimiser is pi(a | s) = pi_logs(a | s) exp(beta A(s, a)) / Z(s), which is what a critic of tokens makes of
the clone's log-probabilities when it guides them. Here the policy has learnt it, and needs no critic when it
speaks.

Peng et al. 2019, arXiv:1910.00177, eq. 7 (the minimiser) and 8 (the loss); extraction by a learnt Q and V is
that of implicit Q-learning, Kostrikov et al. 2021, arXiv:2110.06169, eq. 7.

Differs from both: the critic is there before and does not learn, the policy begins as the clone, and `beta`
multiplies (AWR divides by its temperature).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from turnwise.data.batch import Batch, pack_tokens, pack_turns, turn_of_tokens
from turnwise.data.order import CRITIC_STEPS, BatchOrder, batch_size_for
from turnwise.data.rows import decision_counts, lengths
from turnwise.data.tokens import Tokens
from turnwise.losses.policy import advantage_weights
from turnwise.losses.reduce import sum_over_decisions
from turnwise.models.lm.critics import TokenCritic, TurnCritic
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.replies import Scorer
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import STD, Metric
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of advantage-weighted regression."""

    epochs: float = 3.0
    """Passes over the conversations."""
    batch_size: int | None = None
    """Conversations (or segments of long ones) per step, over all processes; none: 32, and down to 4 where
    they are few, for at least 500 steps."""
    optimizer: AdamW = AdamW(lr=1e-3, warmup=0.04, weight_decay=0.01)
    """Settings of the optimizer. Its learning rate suits models of 0.1 to 3 million parameters."""
    beta: float = 14.0
    """Nats that an advantage of one standard deviation of the return adds to the logarithm of a weight.
    Larger values stray further from the logged agent, and learn from fewer words."""
    most_weight: float = 20.0
    """Largest weight of a word."""

    def __post_init__(self) -> None:
        check(
            self,
            epochs=POSITIVE,
            batch_size=ONE_OR_MORE,
            beta=NOT_NEGATIVE,
            most_weight=POSITIVE,
        )


METRICS: dict[str, Metric] = {
    "loss": Metric("weighted cloning loss", "nats per token", loss=True),
    "nll": Metric("cloning loss", "nats per token"),
    "advantage": Metric("mean advantage", STD),
    "weight": Metric("mean weight", panel="weights and their squares"),
    "squared_weight": Metric("mean squared weight", panel="weights and their squares"),
    "bounded": Metric("share of weights at the bound"),
}


@dataclass(frozen=True)
class Weighed:
    """Rows, packed, with what the critic says of each of the agent's tokens."""

    batch: Batch
    """A decision per token."""
    advantages: Tensor
    """[B, A], in the unit of the critic; of its utterance if the critic is one of turns."""


@torch.no_grad()
def weighed(
    rows: Sequence[Tokens], critic: TokenCritic | TurnCritic, dtype: torch.dtype, device: torch.device
) -> Weighed:
    """Read rows with the critic: min_i Q_i - V of each token, or of the utterance that it is part of."""
    batch = pack_tokens(rows, gamma=1.0, dtype=dtype).to(device)
    if isinstance(critic, TokenCritic):
        h = critic.features(batch.inputs, batch.decisions[:, :-1])  # [B, A, D]
        return Weighed(batch, critic.q_min_of(h, batch.actions) - critic.v(h).squeeze(-1))
    turns = pack_turns(rows, gamma=1.0, dtype=dtype).to(device)
    values = critic(turns.inputs, turns.decisions, turns.ends)  # q [E, B, K], v [B, K+1]
    of_turns = values.q.amin(0) - values.v[:, :-1]
    return Weighed(batch, of_turns.gather(1, turn_of_tokens(rows).to(device)))  # [B, K] -> [B, A]


def loss(scorer: nn.Module, m: Weighed, denominator: float, c: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative log-likelihood in nats of the agent's tokens, each by its weight; and the sums over tokens."""
    mask = m.batch.loss_mask
    logp = scorer(m.batch, logp_alone=True)  # [B, A]
    weights = advantage_weights(m.advantages, c.beta, c.most_weight)
    total = sum_over_decisions(-weights * logp, mask)
    sums = {
        "loss": total,
        "nll": sum_over_decisions(-logp, mask),
        "advantage": sum_over_decisions(m.advantages, mask),
        "weight": sum_over_decisions(weights, mask),
        "squared_weight": sum_over_decisions(weights**2, mask),
        "bounded": sum_over_decisions((weights >= c.most_weight).to(weights.dtype), mask),
        "decisions": mask.sum(),
    }
    return total / denominator, sums


def update(
    learner: Learner, parts: Sequence[Weighed], denominator: float, c: Config, lr: float
) -> dict[str, Tensor]:
    """One gradient step on all of the parts; sums over tokens."""
    return learner.learn(parts, lambda m: loss(learner.wrapped, m, denominator, c), lr=lr)


def train(
    c: Config,
    rows: Sequence[Tokens],
    heldout: Sequence[Tokens],
    policy: LmPolicy,
    critic: TokenCritic | TurnCritic,
    run: TrainingRun,
    seed: int,
) -> LmPolicy:
    """Clone the better words of the logs into `policy`, in place; `critic` speaks in deviations of the
    return, and stays what it is."""
    scorer = Scorer(policy)
    learner = run.learner(scorer, c.optimizer)
    critic.requires_grad_(False).eval().to(run.world.device)
    dtype = torch.promote_types(next(policy.parameters()).dtype, torch.float32)  # numbers, not weights
    order = BatchOrder(lengths(rows), c.batch_size or batch_size_for(len(rows), c.epochs, CRITIC_STEPS), seed)
    denominator = int(decision_counts(rows).sum()) / order.batches_per_epoch / run.world.size

    def weigh(chosen: Sequence[Tokens]) -> Weighed:
        return weighed(chosen, critic, dtype, run.world.device)

    def unseen() -> Iterator[dict[str, Tensor]]:
        parts = run.through.chunks(heldout, lengths(heldout), order.batch_size)
        return (loss(learner.wrapped, weigh(part), 1.0, c)[1] for part in parts)

    for step, parts, lr in run.passes(rows, order, c.epochs, learner):
        sums = update(learner, [weigh(part) for part in parts], denominator, c, lr)
        run.report(step, sums, unseen)
    return policy
