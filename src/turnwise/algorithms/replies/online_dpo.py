"""Online DPO: the policy answers, a reward judges which of its own replies is better, DPO learns from that.

    sample `group` replies to each prompt; chosen = the best by the reward, rejected = the worst
    L = -log sigmoid(beta (h_chosen - h_rejected)),   h = sum_k (log pi - log pi_ref)

Guo et al. 2024, arXiv:2402.04792, algorithm 1, with a reward model in the annotator's place and the best and
worst of a group (two in the paper). Replies of equal reward teach nothing and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from turnwise.data.batch import pack_tokens
from turnwise.losses.preference import dpo_loss
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import score_replies
from turnwise.rollout.one_turn import Judged, OneTurn
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, TWO_OR_MORE, check
from turnwise.run.optim import adamw, descend, warmup_linear
from turnwise.run.settings import AdamW
from turnwise.run.training import Learner, Run


@dataclass(frozen=True)
class Config:
    """Numbers of online DPO."""

    steps: int = 200
    """updates"""
    prompts_per_step: int = 64
    """prompts a step"""
    group: int = 2
    """replies to each; the best and the worst are compared"""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=5)
    """Settings of the optimizer."""
    beta: float = 0.1
    """units of implicit reward per nat: small lets the policy go far"""

    def __post_init__(self) -> None:
        check(self, steps=ONE_OR_MORE, prompts_per_step=ONE_OR_MORE, group=TWO_OR_MORE, beta=NOT_NEGATIVE)


def best_and_worst(judged: Judged, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the best and the worst reply of each prompt whose replies differ in reward."""
    rewards = judged.rewards.reshape(-1, group)
    start = np.arange(len(rewards)) * group
    best, worst = start + rewards.argmax(1), start + rewards.argmin(1)
    differ = rewards.max(1) > rewards.min(1)
    return best[differ], worst[differ]


def loss(
    policy: LmPolicy, reference: Reference, judged: Judged, c: Config, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]] | None:
    """Mean over the prompts; and sums over them. None where no prompt's replies differ."""
    best, worst = best_and_worst(judged, c.group)
    if not len(best):
        return None
    pairs = np.stack([best, worst], 1).ravel()
    b = pack_tokens([judged.replies[i].tokens for i in pairs], gamma=1.0).to(device)
    out = score_replies(policy.lm, b, group=2)
    h = (out.logp - reference.logp(b, group=2)).sum(1).view(-1, 2)
    per_pair = dpo_loss(h[:, 0], h[:, 1], c.beta)
    spread = out.entropy.detach().sum(1) / b.mask.sum(1)
    sums = {
        "loss": per_pair.detach(),
        "rewards/margins": c.beta * (h[:, 0] - h[:, 1]).detach(),
        "rewards/accuracies": (h[:, 0] > h[:, 1]).to(h.dtype),
        "entropy": spread.view(-1, 2).mean(1),
    }
    totals = {name: x.sum().cpu() for name, x in sums.items()}
    totals["decisions"] = torch.tensor(len(best))
    return per_pair.mean(), totals


def train(c: Config, talk: OneTurn, policy: LmPolicy, run: Run, seed: int) -> LmPolicy:
    """Improve `policy` in place by comparing its own replies."""
    run.world.place(policy)
    reference = Reference(policy.lm)
    learner = Learner(policy, adamw(policy, c.optimizer))
    for step in run.steps(c.steps, learner):
        judged = talk.sample(policy, step, c.prompts_per_step, c.group, seed)
        found = loss(policy, reference, judged, c, run.world.device)
        if found is None:
            continue
        lr = warmup_linear(c.optimizer, step, c.steps)
        descend(policy, learner.optimizer, found[0], c.optimizer, lr=lr)
        if run.due(step, c.steps):
            kl = judged.kl_to(reference, run.world.device, c.group)
            run.log(step, {**run.world.means(found[1]), "kl": kl, **judged.told()})
    return policy
