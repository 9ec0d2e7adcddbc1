"""REINFORCE with leave-one-out baselines: each reply against the mean of its siblings.

    R_i = r_i - beta sum_k (log pi(a_k) - log pi_ref(a_k))             the KL is part of the reward
    A_i = R_i - mean of the other G-1 replies' R
    L   = -min(rho_i, most) A_i sum_k log pi(a_k | s_k)                 the reply is one action

Ahmadian et al. 2024, arXiv:2402.14740, eq. 8 (Kool et al. 2019). It is unbiased, because the baseline of a
reply does not depend on that reply. rho_i is the probability of the reply now over its probability when it
was sampled. It is 1 at the first update after sampling, and truncated at `most` (Ionides 2008): a bias for
replies that have become more than `most` times as likely, and none for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from turnwise.data.batch import Batch, row_parts
from turnwise.losses.groups import leave_one_out
from turnwise.losses.kl import estimated_kl, k1, k3, truncated_ratio
from turnwise.losses.names import KlEstimator
from turnwise.losses.policy import policy_gradient_loss
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import Scorer, Scores, Spread
from turnwise.rollout.one_turn import Judged, OneTurn
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, TWO_OR_MORE, check, check_choice
from turnwise.run.control import AdaptiveWeight
from turnwise.run.errors import SettingError
from turnwise.run.learner import Learner
from turnwise.run.metrics import REPLIES, Metric, added
from turnwise.run.optim import warmed_up
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of RLOO."""

    steps: int = 200
    """Steps of training. Each samples new replies."""
    prompts_per_step: int = 16
    """Prompts in a step."""
    group: int = 8
    """Replies to each prompt, 2 or more. More of them make the baseline better."""
    epochs: int = 1
    """Passes over the replies of a step."""
    minibatches: int = 1
    """Gradient steps in a pass, each on whole groups."""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=0.05)
    """Settings of the optimizer."""
    most_ratio: float = 2.0
    """Largest importance ratio of a reply; it has an effect from the second update of a step on."""
    beta: float = 0.02
    """Weight of the KL to the reference in the reward, in units of reward per nat. More of it keeps the
    policy nearer to where it began."""
    kl: KlEstimator = "k1"
    """Estimator of the KL in the reward. Only k1 has the KL's gradient there; k2 and k3 are never negative,
    but near the reference they pull almost nowhere."""
    kl_target: float | None = None
    """KL in nats per reply that beta is moved to reach; none keeps beta fixed."""
    entropy_weight: float = 0.0
    """Weight of a bonus on the entropy of each token."""

    @property
    def rows(self) -> int:
        """Replies that a gradient step reads, at most."""
        return -(-self.prompts_per_step * self.group // self.minibatches)

    def __post_init__(self) -> None:
        check(
            self,
            steps=ONE_OR_MORE,
            prompts_per_step=ONE_OR_MORE,
            group=TWO_OR_MORE,
            epochs=POSITIVE,
            minibatches=ONE_OR_MORE,
            most_ratio=POSITIVE,
            beta=NOT_NEGATIVE,
            kl_target=POSITIVE,
            entropy_weight=NOT_NEGATIVE,
        )
        check_choice(self, kl=get_args(KlEstimator))
        if self.minibatches > self.prompts_per_step:
            most = f"at most the {self.prompts_per_step} prompts of a step"
            raise SettingError("minibatches", self.minibatches, most)
        if self.kl_target is not None and not self.beta:
            raise SettingError("beta", self.beta, "a number above 0 with kl_target, which multiplies it")


METRICS: dict[str, Metric] = REPLIES | {
    "policy_loss": Metric("policy-gradient loss", "per token", loss=True),
    "kl_token": Metric("KL to the reference by k3", "nats per token"),
    "kl_k1": Metric("KL to the reference by k1", "nats per token"),
    "entropy": Metric("entropy of the policy", "nats per token"),
    "clip_ratio": Metric("share of tokens in replies with a truncated ratio"),
    "beta": Metric("weight of the KL", "reward per nat"),
}


@dataclass(frozen=True)
class Minibatch:
    """Whole groups, packed, with what their loss needs and no update changes."""

    batch: Batch
    old_logp: Tensor
    """[B, A], of the policy that sampled, as recorded then."""
    ref_logp: Tensor
    """[B, A], of the reference."""
    advantages: Tensor
    """[B], one for each reply."""


def experience(
    reference: Reference, judged: Judged, c: Config, beta: float, device: torch.device
) -> list[Minibatch]:
    """Replies in minibatches, each with its advantage: reward less KL, compared with its siblings."""
    found = []
    for batch in judged.minibatches(c.minibatches, c.group, device):
        old_logp, ref_logp = batch.behavior_logp, reference.logp(batch, group=c.group)  # [B, A]
        assert old_logp is not None
        # By the log-probabilities of sampling: the KL in the reward is a number and has no gradient of its
        # own.
        kl = estimated_kl(c.kl, old_logp, ref_logp).masked_fill(~batch.mask, 0.0).sum(1)  # [B]
        worth = batch.rewards.sum(1) - beta * kl  # [B]
        advantages = leave_one_out(worth.view(-1, c.group)).flatten()  # [P, G] -> [B]
        found.append(Minibatch(batch, old_logp, ref_logp, advantages))
    return found


def loss(policy: Scores, m: Minibatch, denominator: float, c: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the policy less its entropy bonus, a number; and sums over tokens of what is logged."""
    out, mask = policy.score(m.batch, c.group), m.batch.loss_mask
    # The reply is one action, so its ratio is of sums over tokens: a product of probabilities. It weights the
    # gradient and has none of its own.
    now, then = (x.masked_fill(~mask, 0.0).sum(1) for x in (out.logp.detach(), m.old_logp))  # [B]
    ratio = truncated_ratio(now, then, c.most_ratio)  # [B]
    weights = (
        (ratio * m.advantages).unsqueeze(1).expand_as(out.logp)
    )  # [B, A], alike for all tokens of a reply
    policy_loss = policy_gradient_loss(out.logp, weights)
    terms = {
        "policy_loss": policy_loss,
        "kl_token": k3(out.logp, m.ref_logp),
        "kl_k1": k1(out.logp, m.ref_logp),
        "entropy": out.entropy,
        "clip_ratio": (ratio >= c.most_ratio).to(ratio.dtype).unsqueeze(1).expand_as(out.logp),
    }
    total = sum_over_decisions(policy_loss - c.entropy_weight * out.entropy, mask) / denominator
    return total, sums_over_decisions(terms, mask)


def update(
    policy: Scores, learner: Learner, minibatches: Sequence[Minibatch], c: Config, lr: float
) -> dict[str, Tensor]:
    """`epochs` passes over the groups; sums over tokens of all of them."""
    tokens = learner.world.total(torch.stack([m.batch.loss_mask.sum() for m in minibatches]).sum())
    denominator = float(tokens) / len(minibatches) / learner.world.size
    total: dict[str, Tensor] = {}
    for _ in range(c.epochs):
        for minibatch in minibatches:
            parts = row_parts(minibatch, learner.through.at_once, c.group)
            sums = learner.learn(parts, lambda m: loss(policy, m, denominator, c), lr=lr)
            total = added(total, sums)
    return total


def train(c: Config, talk: OneTurn, policy: LmPolicy, run: TrainingRun, seed: int) -> LmPolicy:
    """Improve `policy` in place by its own replies."""
    beta = AdaptiveWeight(c.beta, c.kl_target)
    reference = Reference(policy.lm, run.world.place, run.world.splits)  # before the policy is spread
    learner = run.learner(Scorer(policy, run.world.splits), c.optimizer, experience=beta, speaks=policy)
    spread = Spread(policy, learner.wrapped)
    for step, judged in talk.steps(
        learner, run, c.steps, prompts=c.prompts_per_step, group=c.group, seed=seed
    ):
        minibatches = experience(reference, judged, c, beta.value, run.world.device)
        sums = update(spread, learner, minibatches, c, warmed_up(c.optimizer, step, c.steps))
        # Of the policy that sampled, and so unbiased; by k1, which is the log-ratio of the whole reply.
        kls = [sum_over_decisions(k1(m.old_logp, m.ref_logp), m.batch.loss_mask) for m in minibatches]
        kl = float(run.world.total(torch.stack(kls).sum())) / len(judged.replies)
        beta.update_(kl)
        if run.due(step):
            run.log(step, {**run.world.means(sums), "kl": kl, "beta": beta.value, **judged.metrics()})
    return policy
