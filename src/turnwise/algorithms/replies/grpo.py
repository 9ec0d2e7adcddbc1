"""Group relative policy optimisation: several replies to a prompt, each judged beside the others.

    A_i = (r_i - mean_j r_j) / std_j r_j                       for every token of reply i of a group of G
    L   = -min(rho A, clip(rho, 1 - eps, 1 + eps) A) + beta k3(pi, pi_ref)   a token, rho = pi / pi_behaviour

Shao et al. 2024, arXiv:2402.03300, eq. 3 and 4 (the paper's loss, a mean within each reply), and the mends
of Liu et al. 2025, arXiv:2503.20783, section 3.1: dividing by the deviation weighs prompts by how little
their replies differ, dividing by the reply's length favours short good and long bad ones. Both are biases;
here they are off by default (`scale`, `length`) and the unbiased form is (G-1)/G of RLOO's gradient.

Differs from both: rho is against the log-probability recorded when sampling, which is the behaviour policy's
own (no second forward pass); the KL is logged even where its weight is 0, then at logged steps alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from turnwise.data.batch import Batch, pack_tokens
from turnwise.losses.groups import group_centred, group_standardised
from turnwise.losses.kl import estimated_kl, k1, k3, weighted_k3
from turnwise.losses.policy import clipped_surrogate_loss
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
    """Numbers of GRPO."""

    steps: int = 200
    """updates of the experience: each samples anew"""
    prompts_per_step: int = 16
    """prompts a step"""
    group: int = 8
    """replies to each"""
    epochs: int = 1
    """passes over what was sampled"""
    minibatches: int = 1
    """gradient steps a pass, whole groups in each"""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=5)
    """Settings of the optimizer."""
    clip: float = 0.2
    """how far the ratio may fall below 1 before its gradient stops"""
    clip_high: float = 0.2
    """how far it may rise"""
    scale: Literal["none", "deviation"] = "none"
    """divide advantages by the deviation of their group: the paper's, a bias"""
    length: Literal["none", "reply"] = "none"
    """divide each reply's loss by its length: the paper's, a bias"""
    beta: float = 0.02
    """weight of the KL to the reference in the loss, reward per nat"""
    kl: Literal["k1", "k2", "k3", "weighted-k3"] = "k3"
    """estimator of the KL in the loss; its gradient counts: that of k1 is 0 on average, k2 and weighted-k3
    (k3 times the ratio) have the KL's own, k3 (the paper's) that of the KL the other way round"""
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


def advantages(rewards: np.ndarray, c: Config) -> Tensor:
    """[P G] -> [P, G], each reply beside its group."""
    grouped = torch.as_tensor(rewards.reshape(-1, c.group), dtype=torch.float32)
    return group_standardised(grouped) if c.scale == "deviation" else group_centred(grouped)


def divergence(logp: Tensor, ref_logp: Tensor, behavior_logp: Tensor, c: Config) -> Tensor:
    """[B, A], the KL's estimate that the loss has."""
    if c.kl == "weighted-k3":
        return weighted_k3(logp, ref_logp, behavior_logp)
    return estimated_kl(c.kl, logp, ref_logp)


def loss(
    policy: LmPolicy,
    batch: Batch,
    advantage: Tensor,
    ref_logp: Tensor | None,
    denominator: float,
    c: Config,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Surrogate, KL and entropy, summed over tokens; and their sums (of KL where the reference is given)."""
    assert batch.behavior_logp is not None
    out = score_replies(policy.lm, batch, group=c.group)
    mask = batch.loss_mask
    A = advantage.unsqueeze(1).expand_as(out.logp)
    surrogate = clipped_surrogate_loss(out.logp, batch.behavior_logp, A, c.clip, c.clip_high)
    objective = surrogate - c.entropy_weight * out.entropy
    if ref_logp is not None:
        objective = objective + beta * divergence(out.logp, ref_logp, batch.behavior_logp, c)
    if c.length == "reply":
        lengths = mask.sum(1, keepdim=True)
        objective = objective / lengths * (mask.sum() / len(mask))
    with torch.no_grad():
        ratio = (out.logp - batch.behavior_logp).exp()
        sums = {
            "policy_loss": surrogate,
            "entropy": out.entropy,
            "clip_ratio": ((ratio < 1 - c.clip) | (ratio > 1 + c.clip_high)).to(ratio.dtype),
        }
        if ref_logp is not None:
            sums |= {"kl_token": k3(out.logp, ref_logp), "kl_k1": k1(out.logp, ref_logp)}
        sums = {name: sum_over_decisions(x.detach(), mask) for name, x in sums.items()}
        sums["decisions"] = mask.sum()
    return sum_over_decisions(objective, mask) / denominator, sums


def update(
    policy: LmPolicy,
    learner: Learner,
    reference: Reference | None,
    judged: Judged,
    c: Config,
    beta: float,
    lr: float,
    device: torch.device,
) -> dict[str, Tensor]:
    """`epochs` passes over the groups; sums over tokens of all of them."""
    advantage, rows = advantages(judged.rewards, c).flatten().to(device), judged.rows()
    size = -(-c.prompts_per_step // c.minibatches) * c.group
    parts = []
    for start in range(0, len(rows), size):
        batch = pack_tokens(rows[start : start + size], gamma=1.0).to(device)
        ref_logp = None if reference is None else reference.logp(batch, group=c.group)
        parts.append((batch, advantage[start : start + size], ref_logp))
    denominator = sum(int(b.mask.sum()) for b, _, _ in parts) / len(parts)
    total: dict[str, Tensor] = {}
    for _ in range(c.epochs):
        for batch, weights, ref_logp in parts:
            objective, sums = loss(policy, batch, weights, ref_logp, denominator, c, beta)
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
        due = run.due(step, c.steps)
        lr = warmup_linear(c.optimizer, step, c.steps)
        near = reference if c.beta or due else None
        sums = update(policy, learner, near, judged, c, kl.beta, lr, run.world.device)
        if near is not None:
            per_reply = float(sums["kl_k1"]) / len(judged.replies) / c.epochs
            kl.saw_(per_reply)
            if due:
                run.log(step, {**run.world.means(sums), "kl": per_reply, "beta": kl.beta, **judged.told()})
    return policy
