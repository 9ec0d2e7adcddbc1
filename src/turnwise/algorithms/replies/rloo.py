"""REINFORCE with leave-one-out baselines: each reply against the mean of its siblings.

    R_i = r_i - beta sum_k (log pi(a_k) - log pi_ref(a_k))             the KL is part of the reward
    A_i = R_i - mean of the other G-1 replies' R
    L   = -min(rho_i, most) A_i sum_k log pi(a_k | s_k)                 the reply is one action

Ahmadian et al. 2024, arXiv:2402.14740, eq. 8 (Kool et al. 2019). Unbiased: the baseline does not depend on
the reply. rho_i is the reply's probability now over that when it was sampled, truncated at `most` (Ionides
2008), 1 at the first update after sampling; beyond it the truncation is a bias, below it none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from turnwise.data.batch import Batch, pack_tokens
from turnwise.losses.groups import leave_one_out
from turnwise.losses.kl import estimated_kl, k1, k3, truncated_ratio
from turnwise.losses.names import KlEstimator
from turnwise.losses.policy import policy_gradient_loss
from turnwise.losses.reduce import sum_over_decisions
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import score_replies
from turnwise.rollout.one_turn import Judged, KlControl, OneTurn
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, TWO_OR_MORE, check, check_choice
from turnwise.run.errors import SettingError
from turnwise.run.optim import adamw, descend, warmup_linear
from turnwise.run.settings import AdamW
from turnwise.run.training import Learner, Run


@dataclass(frozen=True)
class Config:
    """Numbers of RLOO."""

    steps: int = 200
    """updates of the experience: each samples anew"""
    prompts_per_step: int = 16
    """prompts a step"""
    group: int = 8
    """replies to each, 2 or more"""
    epochs: int = 1
    """passes over what was sampled"""
    minibatches: int = 1
    """gradient steps a pass, whole groups in each"""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=5)
    """Settings of the optimizer."""
    most_ratio: float = 2.0
    """where importance ratios of replies are truncated"""
    beta: float = 0.02
    """weight of the KL to the reference in the reward, reward per nat"""
    kl: KlEstimator = "k1"
    """estimator of the KL in the reward; k1 alone has its gradient there, k2 and k3 are never negative"""
    kl_target: float | None = None
    """nats a reply that beta is moved to reach; none: beta is fixed"""
    entropy_weight: float = 0.0
    """of the bonus on the entropy, per token"""

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


@dataclass(frozen=True)
class Part:
    """Whole groups, packed, with what was true of them before the first update."""

    batch: Batch
    advantages: Tensor
    """[B]"""
    ref_logp: Tensor
    """[B, A]"""

    @property
    def kl(self) -> float:
        """k1 summed over the tokens, nats: what its replies say of the KL of the policy that spoke."""
        assert self.batch.behavior_logp is not None
        return float(k1(self.batch.behavior_logp, self.ref_logp)[self.batch.mask].sum())


def experience(
    reference: Reference, judged: Judged, c: Config, beta: float, device: torch.device
) -> list[Part]:
    """Replies in minibatches, each with its advantage: reward less KL, against its siblings."""
    rows = judged.rows()
    rewards = torch.as_tensor(judged.rewards, dtype=torch.float32, device=device)
    size = -(-c.prompts_per_step // c.minibatches) * c.group
    parts = []
    for start in range(0, len(rows), size):
        batch = pack_tokens(rows[start : start + size], gamma=1.0).to(device)
        assert batch.behavior_logp is not None
        ref_logp = reference.logp(batch, group=c.group)
        kl = estimated_kl(c.kl, batch.behavior_logp, ref_logp).masked_fill(~batch.mask, 0.0).sum(1)
        worth = rewards[start : start + size] - beta * kl
        parts.append(Part(batch, leave_one_out(worth.view(-1, c.group)).flatten(), ref_logp))
    return parts


def loss(policy: LmPolicy, part: Part, denominator: float, c: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """The policy's loss and entropy, summed over tokens; and their sums."""
    batch, mask = part.batch, part.batch.loss_mask
    assert batch.behavior_logp is not None
    out = score_replies(policy.lm, batch, group=c.group)
    now, then = (x.masked_fill(~mask, 0.0).sum(1) for x in (out.logp.detach(), batch.behavior_logp))
    ratio = truncated_ratio(now, then, c.most_ratio)
    weight = ratio * part.advantages
    pg = policy_gradient_loss(out.logp, weight.unsqueeze(1).expand_as(out.logp))
    sums = {
        "policy_loss": pg,
        "kl_token": k3(out.logp, part.ref_logp),
        "kl_k1": k1(out.logp, part.ref_logp),
        "entropy": out.entropy,
        "clip_ratio": (ratio >= c.most_ratio).to(pg.dtype).unsqueeze(1).expand_as(pg),
    }
    sums = {name: sum_over_decisions(x.detach(), mask) for name, x in sums.items()}
    sums["decisions"] = mask.sum()
    return sum_over_decisions(pg - c.entropy_weight * out.entropy, mask) / denominator, sums


def update(
    policy: LmPolicy, learner: Learner, parts: Sequence[Part], c: Config, lr: float
) -> dict[str, Tensor]:
    """`epochs` passes over the groups; sums over tokens of all of them."""
    denominator = sum(int(p.batch.mask.sum()) for p in parts) / len(parts)
    total: dict[str, Tensor] = {}
    for _ in range(c.epochs):
        for part in parts:
            objective, sums = loss(policy, part, denominator, c)
            descend(policy, learner.optimizer, objective, c.optimizer, lr=lr)
            total = {name: total.get(name, torch.zeros(())) + x.cpu() for name, x in sums.items()}
    return total


def train(c: Config, talk: OneTurn, policy: LmPolicy, run: Run, seed: int) -> LmPolicy:
    """Improve `policy` in place by its own replies."""
    run.world.place(policy)
    reference, kl = Reference(policy.lm), KlControl(c.beta, c.kl_target)
    learner = Learner(policy, adamw(policy, c.optimizer), experience=kl)
    for step in run.steps(c.steps, learner):
        judged = talk.sample(policy, step, c.prompts_per_step, c.group, seed)
        parts = experience(reference, judged, c, kl.beta, run.world.device)
        sums = update(policy, learner, parts, c, warmup_linear(c.optimizer, step, c.steps))
        per_reply = sum(p.kl for p in parts) / len(judged.replies)
        kl.saw_(per_reply)
        if run.due(step, c.steps):
            run.log(step, {**run.world.means(sums), "kl": per_reply, "beta": kl.beta, **judged.told()})
    return policy
