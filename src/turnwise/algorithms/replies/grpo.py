"""Group relative policy optimisation: several replies to a prompt, each compared with the others.

    A_i = (r_i - mean_j r_j) / std_j r_j                    for every token of reply i of a group of G
    L   = -min(rho A, clip(rho, 1 - eps, 1 + eps) A) + beta k3(pi, pi_ref)
                                                            per token, rho = pi / pi_behaviour

Shao et al. 2024, arXiv:2402.03300, eq. 3 and 4 (the paper's loss, a mean within each reply), with the
corrections of Liu et al. 2025, arXiv:2503.20783, section 3.1. Dividing by the deviation weighs prompts by how
little their replies differ; dividing by the length of a reply favours short good and long bad ones. Both are
biases. Here both are off by default (`scale`, `length`), and the unbiased form is (G-1)/G of RLOO's gradient.

Differs from both: rho is against the log-probability that was recorded when sampling, which is that of the
policy that acted, so there is no second forward pass. The KL is also logged if its weight is 0, then at
logged steps only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from turnwise.data.batch import Batch, row_parts
from turnwise.losses.groups import group_centred, group_standardised
from turnwise.losses.kl import estimated_kl, k1, k3, weighted_k3
from turnwise.losses.policy import clipped_surrogate_loss
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
    """Numbers of GRPO."""

    steps: int = 200
    """Steps of training. Each samples new replies."""
    prompts_per_step: int = 16
    """Prompts in a step."""
    group: int = 8
    """Replies to each prompt, 2 or more."""
    epochs: int = 1
    """Passes over the replies of a step."""
    minibatches: int = 1
    """Gradient steps in a pass, each on whole groups."""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=0.05)
    """Settings of the optimizer."""
    clip: float = 0.2
    """How far the ratio of a token may fall below 1 before its gradient stops."""
    clip_high: float = 0.2
    """How far the ratio may rise above 1. A larger value lets rare tokens become frequent."""
    scale: Literal["none", "deviation"] = "none"
    """Divide advantages by the deviation of their group: the paper does, and it is a bias."""
    length: Literal["none", "reply"] = "none"
    """Divide the loss of each reply by its length: the paper does, and it is a bias."""
    beta: float = 0.02
    """Weight of the KL to the reference in the loss, in units of reward per nat. More of it keeps the policy
    nearer to where it began."""
    kl: Literal["k1", "k2", "k3", "weighted-k3"] = "k3"
    """Estimator of the KL in the loss, where its gradient matters: that of k1 is 0 on average; k2 and
    weighted-k3 (k3 times the ratio) have the KL's own; k3 (the paper's) has that of the KL the other way
    round."""
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
            clip=POSITIVE,
            clip_high=POSITIVE,
            beta=NOT_NEGATIVE,
            kl_target=POSITIVE,
            entropy_weight=NOT_NEGATIVE,
        )
        check_choice(
            self, scale=("none", "deviation"), length=("none", "reply"), kl=("k1", "k2", "k3", "weighted-k3")
        )
        if self.minibatches > self.prompts_per_step:
            most = f"at most the {self.prompts_per_step} prompts of a step"
            raise SettingError("minibatches", self.minibatches, most)
        if self.kl_target is not None and not self.beta:
            raise SettingError("beta", self.beta, "a number above 0 with kl_target, which multiplies it")


METRICS: dict[str, Metric] = REPLIES | {
    "policy_loss": Metric("clipped surrogate", "per token", loss=True),
    "kl_token": Metric("KL to the reference by k3", "nats per token"),
    "kl_k1": Metric("KL to the reference by k1", "nats per token"),
    "entropy": Metric("entropy of the policy", "nats per token"),
    "clip_ratio": Metric("share of clipped ratios"),
    "beta": Metric("weight of the KL", "reward per nat"),
}


@dataclass(frozen=True)
class Minibatch:
    """Whole groups, packed, with what their loss needs and no update changes."""

    batch: Batch
    advantages: Tensor
    """[B], one for each reply."""
    ref_logp: Tensor | None
    """[B, A], of the reference; None if the KL is neither in the loss nor logged."""
    length: float | None = None
    """Tokens of an average reply of the whole minibatch, where this is a part of one, of a process's; None:
    its own."""


def advantages(rewards: Tensor, c: Config) -> Tensor:
    """[B], each reply's reward [B] compared with those of its group."""
    grouped = rewards.view(-1, c.group)  # [P, G]
    compared = group_standardised(grouped) if c.scale == "deviation" else group_centred(grouped)
    return compared.flatten()


def experience(
    reference: Reference | None, judged: Judged, c: Config, device: torch.device
) -> list[Minibatch]:
    """Replies in minibatches, each with its advantage."""
    parts = judged.parts(c.minibatches, c.group)
    return [
        Minibatch(
            batch,
            advantages(batch.rewards.sum(1), c),
            None if reference is None else reference.logp(batch, group=c.group),
            sum(r.length for r in judged.replies[part]) / len(judged.replies[part]),
        )
        for batch, part in zip(judged.minibatches(c.minibatches, c.group, device), parts, strict=True)
    ]


def divergence(logp: Tensor, ref_logp: Tensor, behavior_logp: Tensor, c: Config) -> Tensor:
    """[B, A], the estimate of the KL that is part of the loss, with its gradient."""
    if c.kl == "weighted-k3":
        return weighted_k3(logp, ref_logp, behavior_logp)
    return estimated_kl(c.kl, logp, ref_logp)


def loss(
    policy: Scores, m: Minibatch, denominator: float, c: Config, beta: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Surrogate, KL and entropy bonus, a number; and sums over tokens of what is logged.

    The KL is part of both if the minibatch has log-probabilities of the reference.
    """
    old_logp, mask = m.batch.behavior_logp, m.batch.loss_mask
    assert old_logp is not None
    out = policy.score(m.batch, c.group)
    weights = m.advantages.unsqueeze(1).expand_as(out.logp)  # [B, A], alike for all tokens of a reply
    surrogate = clipped_surrogate_loss(out.logp, old_logp, weights, c.clip, c.clip_high)
    objective = surrogate - c.entropy_weight * out.entropy
    if m.ref_logp is not None:
        objective = objective + beta * divergence(out.logp, m.ref_logp, old_logp, c)
    if c.length == "reply":
        # A mean within each reply and then over replies; the second factor undoes the denominator below.
        length = mask.sum() / len(mask) if m.length is None else m.length
        # A reply of which nothing is learnt has no tokens here, and is masked below.
        objective = objective / mask.sum(1, keepdim=True).clamp(min=1) * length
    ratio = (out.logp.detach() - old_logp).exp()
    terms = {
        "policy_loss": surrogate,
        "entropy": out.entropy,
        "clip_ratio": ((ratio < 1 - c.clip) | (ratio > 1 + c.clip_high)).to(ratio.dtype),
    }
    if m.ref_logp is not None:
        terms |= {"kl_token": k3(out.logp, m.ref_logp), "kl_k1": k1(out.logp, m.ref_logp)}
    return sum_over_decisions(objective, mask) / denominator, sums_over_decisions(terms, mask)


def update(
    policy: Scores, learner: Learner, minibatches: Sequence[Minibatch], c: Config, beta: float, lr: float
) -> dict[str, Tensor]:
    """`epochs` passes over the groups; sums over tokens of all of them."""
    tokens = learner.world.total(torch.stack([m.batch.loss_mask.sum() for m in minibatches]).sum())
    denominator = float(tokens) / len(minibatches) / learner.world.size
    total: dict[str, Tensor] = {}
    for _ in range(c.epochs):
        for minibatch in minibatches:
            parts = row_parts(minibatch, learner.through.at_once, c.group)
            sums = learner.learn(parts, lambda m: loss(policy, m, denominator, c, beta), lr=lr)
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
        due = run.due(step)
        lr = warmed_up(c.optimizer, step, c.steps)
        needed = reference if c.beta or due else None  # no forward pass for nothing
        minibatches = experience(needed, judged, c, run.world.device)
        sums = update(spread, learner, minibatches, c, beta.value, lr)
        if needed is not None:
            kl = float(run.world.total(sums["kl_k1"])) / len(judged.replies) / c.epochs
            beta.update_(kl)
            if due:
                run.log(step, {**run.world.means(sums), "kl": kl, "beta": beta.value, **judged.metrics()})
    return policy
