"""Rejection sampling: the best of n replies to a prompt is cloned, again and again.

    sample n replies to each prompt; L = -sum_k log pi(a_k) of the best one

Also called RAFT or expert iteration (Dong et al. 2023, arXiv:2304.06767, algorithm 1). The best of n is a
policy too, without any training. Its KL from the policy that it samples is at most log n - (n-1)/n nats
(Beirami et al. 2024, arXiv:2401.01879, theorem 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from turnwise.data.batch import Batch, pack_tokens, row_parts
from turnwise.losses.kl import k1
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import Scorer, Scores, Spread
from turnwise.rollout.one_turn import Judged, OneTurn
from turnwise.run.checks import ONE_OR_MORE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import REPLIES, Metric
from turnwise.run.optim import warmed_up
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of rejection sampling."""

    steps: int = 200
    """Steps of training. Each samples new replies."""
    prompts_per_step: int = 16
    """Prompts in a step."""
    group: int = 8
    """Replies to each prompt; the best of them is cloned. More of them are a stronger and dearer teacher."""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=0.05)
    """Settings of the optimizer."""

    @property
    def rows(self) -> int:
        """Replies that a gradient step reads, at most."""
        return self.prompts_per_step

    def __post_init__(self) -> None:
        check(self, steps=ONE_OR_MORE, prompts_per_step=ONE_OR_MORE, group=ONE_OR_MORE)


METRICS: dict[str, Metric] = REPLIES | {
    "nll": Metric("negative log-likelihood of the best replies", "nats per token", loss=True),
    "kl_k1": Metric("log-ratio of the best replies to the reference", "nats per token"),
    "entropy": Metric("entropy of the policy", "nats per token"),
}


def best_of(judged: Judged, group: int) -> np.ndarray:
    """Places of the best reply of each group."""
    rewards = judged.rewards.reshape(-1, group)  # [P, G]
    return np.arange(len(rewards)) * group + rewards.argmax(1)


def loss(
    policy: Scores, reference: Reference, batch: Batch, denominator: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative log-likelihood per token; and sums over tokens of what is logged."""
    out, mask = policy.score(batch), batch.loss_mask
    terms = {"nll": -out.logp, "kl_k1": k1(out.logp, reference.logp(batch)), "entropy": out.entropy}
    return sum_over_decisions(-out.logp, mask) / denominator, sums_over_decisions(terms, mask)


def update(
    policy: Scores, learner: Learner, reference: Reference, judged: Judged, c: Config, lr: float
) -> dict[str, Tensor]:
    """One gradient step on the best replies; sums over their tokens."""
    rows = judged.rows()
    best = [rows[i] for i in best_of(judged, c.group)]
    batch = pack_tokens(judged.own(best, 1), gamma=1.0).to(policy.device)
    tokens = sum(int(row.action.sum()) for row in best) / learner.world.size
    parts = row_parts(batch, learner.through.at_once)
    return learner.learn(parts, lambda part: loss(policy, reference, part, tokens), lr=lr)


def train(c: Config, talk: OneTurn, policy: LmPolicy, run: TrainingRun, seed: int) -> LmPolicy:
    """Improve `policy` in place by cloning the best of its own replies."""
    reference = Reference(policy.lm, run.world.place, run.world.splits)  # before the policy is spread
    learner = run.learner(Scorer(policy, run.world.splits), c.optimizer, speaks=policy)
    spread = Spread(policy, learner.wrapped)
    for step, judged in talk.steps(
        learner, run, c.steps, prompts=c.prompts_per_step, group=c.group, seed=seed
    ):
        sums = update(spread, learner, reference, judged, c, warmed_up(c.optimizer, step, c.steps))
        if run.due(step):
            kl = judged.kl_to(reference, run.world.device, c.group)  # of all replies, not of the best ones
            run.log(step, {**run.world.means(sums), "kl": kl, **judged.metrics()})
    return policy
