"""Online DPO: the policy answers, a reward judges which of its own replies is better, DPO learns from that.

    sample `group` replies to each prompt; chosen = the best by the reward, rejected = the worst
    L = -log sigmoid(beta (h_chosen - h_rejected)),   h = sum_k (log pi - log pi_ref)

Guo et al. 2024, arXiv:2402.04792, algorithm 1, with a reward model in the place of the annotator, and the
best and the worst of a group (the paper samples two). Replies of equal reward teach nothing and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from turnwise.data.batch import Batch, pack_tokens, row_parts
from turnwise.losses.preference import dpo_loss
from turnwise.losses.reduce import sums_over_items
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import Scorer, Scores, Spread
from turnwise.rollout.one_turn import Judged, OneTurn
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, TWO_OR_MORE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import REPLIES, Metric, scaled
from turnwise.run.optim import warmed_up
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of online DPO."""

    steps: int = 200
    """Steps of training. Each samples new replies and takes one gradient step."""
    prompts_per_step: int = 64
    """Prompts in a step."""
    group: int = 2
    """Replies to each prompt, 2 or more; the best and the worst of them are compared."""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=0.05)
    """Settings of the optimizer."""
    beta: float = 0.1
    """Units of implicit reward per nat. A smaller one lets the policy go further from the reference."""

    @property
    def rows(self) -> int:
        """Replies that a gradient step reads, at most."""
        return 2 * self.prompts_per_step

    def __post_init__(self) -> None:
        check(self, steps=ONE_OR_MORE, prompts_per_step=ONE_OR_MORE, group=TWO_OR_MORE, beta=NOT_NEGATIVE)


METRICS: dict[str, Metric] = REPLIES | {
    "loss": Metric("preference loss", loss=True),
    "rewards/margins": Metric("margin of implicit rewards", "implicit reward"),
    "rewards/accuracies": Metric("accuracy of implicit rewards"),
    "entropy": Metric("entropy of the policy", "nats per token"),
}


def best_and_worst(judged: Judged, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the best and the worst reply of each prompt whose replies differ in reward."""
    rewards = judged.rewards.reshape(-1, group)  # [P, G]
    start = np.arange(len(rewards)) * group
    best, worst = start + rewards.argmax(1), start + rewards.argmin(1)
    differ = rewards.max(1) > rewards.min(1)
    return best[differ], worst[differ]


def loss(
    policy: Scores, reference: Reference, pairs: Batch, count: float, c: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over `count` pairs, of which these are a part; and sums over these. Rows 2p and 2p + 1 are the
    chosen and the rejected reply of p."""
    out = policy.score(pairs, 2)
    h = (out.logp - reference.logp(pairs, group=2)).sum(1).view(-1, 2)  # [P, 2], log-ratios of whole replies
    per_pair = dpo_loss(h[:, 0], h[:, 1], c.beta)  # [P]
    entropies = out.entropy.sum(1) / pairs.mask.sum(1)  # [2 P], nats a token
    terms = {
        "loss": per_pair,
        "rewards/margins": c.beta * (h[:, 0] - h[:, 1]),
        "rewards/accuracies": (h[:, 0] > h[:, 1]).to(h.dtype),
        "entropy": entropies.view(-1, 2).mean(1),
    }
    return per_pair.sum() / count, sums_over_items(terms)


def update(
    policy: Scores, learner: Learner, reference: Reference, judged: Judged, c: Config, lr: float
) -> dict[str, Tensor]:
    """One gradient step on the best and the worst replies; sums over pairs, empty if there are none."""
    best, worst = best_and_worst(judged, c.group)
    if not len(best):
        return {}
    world, rows = learner.world, judged.rows()
    mine, counts = world.own(np.stack([best, worst], 1).tolist())  # best and worst, of this process's prompts
    pairs = pack_tokens([rows[i] for pair in mine for i in pair], gamma=1.0).to(policy.device)
    parts = row_parts(pairs, learner.through.at_once, group=2)

    def share(part: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        mean, sums = loss(policy, reference, part, len(best) / world.size, c)
        return counts * mean, scaled(sums, counts)

    return learner.learn(parts, share, lr=lr)


def train(c: Config, talk: OneTurn, policy: LmPolicy, run: TrainingRun, seed: int) -> LmPolicy:
    """Improve `policy` in place by comparing its own replies."""
    reference = Reference(policy.lm, run.world.place, run.world.splits)  # before the policy is spread
    learner = run.learner(Scorer(policy, run.world.splits), c.optimizer, speaks=policy)
    spread = Spread(policy, learner.wrapped)
    for step, judged in talk.steps(
        learner, run, c.steps, prompts=c.prompts_per_step, group=c.group, seed=seed
    ):
        sums = update(spread, learner, reference, judged, c, warmed_up(c.optimizer, step, c.steps))
        if run.due(step):
            means = run.world.means(sums) if sums else {}
            kl = judged.kl_to(
                reference, run.world.device, c.group
            )  # of all replies, not of those learnt from
            run.log(step, {**means, "kl": kl, **judged.metrics()})
    return policy
