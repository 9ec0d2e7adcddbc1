"""REINFORCE on whole replies, with a baseline that depends on nothing in the reply.

    R_i = r_i - beta sum_k (log pi(a_k) - log pi_ref(a_k))
    L   = -(R_i - b) sum_k log pi(a_k | s_k)                            the reply is one action

Williams 1992. Baselines: none, the running mean of past rewards (an exponential average, made before the
step's own rewards), or the mean of the batch's other replies (leave-one-out over the batch). All are
unbiased: none depends on the reply that it is taken from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from turnwise.data.batch import Batch, pack_tokens
from turnwise.losses.groups import leave_one_out
from turnwise.losses.kl import estimated_kl, k1, k3
from turnwise.losses.names import KlEstimator
from turnwise.losses.policy import policy_gradient_loss
from turnwise.losses.reduce import sum_over_decisions
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import score_replies
from turnwise.rollout.one_turn import KlControl, OneTurn
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, SHARE, check, check_choice
from turnwise.run.errors import SettingError
from turnwise.run.optim import adamw, descend, warmup_linear
from turnwise.run.settings import AdamW
from turnwise.run.training import Learner, Run


@dataclass(frozen=True)
class Config:
    """Numbers of REINFORCE."""

    steps: int = 200
    """updates"""
    prompts_per_step: int = 128
    """prompts a step, one reply to each"""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=5)
    """Settings of the optimizer."""
    baseline: Literal["none", "running", "batch"] = "batch"
    """what rewards are compared with: 0, the mean of past ones, the mean of the step's other ones"""
    decay: float = 0.9
    """of the running mean, per step"""
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
            decay=SHARE,
            beta=NOT_NEGATIVE,
            kl_target=POSITIVE,
            entropy_weight=NOT_NEGATIVE,
        )
        check_choice(self, baseline=("none", "running", "batch"), kl=get_args(KlEstimator))
        if self.baseline == "batch" and self.prompts_per_step < 2:
            more = "2 or more for baseline batch, which compares replies of a step"
            raise SettingError("prompts_per_step", self.prompts_per_step, more)
        if self.kl_target is not None and not self.beta:
            raise SettingError("beta", self.beta, "a number above 0 with kl_target, which multiplies it")


@dataclass
class Carried:
    """What goes on from step to step beside weights: the KL's weight and the running mean."""

    kl: KlControl
    mean: float = 0.0
    steps: int = 0

    def saw_(self, rewards: Tensor, decay: float) -> None:
        """Move the mean; the first steps count in full (no start at 0 to forget)."""
        self.steps += 1
        weight = max(1 - decay, 1 / self.steps)
        self.mean += weight * (float(rewards.mean()) - self.mean)

    def state(self) -> dict[str, float]:
        """For the checkpoint."""
        return {**self.kl.state(), "mean": self.mean, "steps": self.steps}

    def load(self, state: Mapping[str, float]) -> None:
        """From the checkpoint."""
        self.kl.load(state)
        self.mean, self.steps = float(state["mean"]), int(state["steps"])


def advantages(rewards: Tensor, c: Config, carried: Carried) -> Tensor:
    """[B], rewards less the baseline."""
    if c.baseline == "batch":
        return leave_one_out(rewards.unsqueeze(0))[0]
    return rewards - (carried.mean if c.baseline == "running" else 0.0)


def loss(
    policy: LmPolicy, batch: Batch, advantage: Tensor, ref_logp: Tensor, c: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """The policy's loss and entropy per token; and their sums."""
    out = score_replies(policy.lm, batch)
    pg = policy_gradient_loss(out.logp, advantage.unsqueeze(1).expand_as(out.logp))
    mask = batch.loss_mask
    sums = {
        "policy_loss": pg,
        "kl_token": k3(out.logp, ref_logp),
        "kl_k1": k1(out.logp, ref_logp),
        "entropy": out.entropy,
    }
    sums = {name: sum_over_decisions(x.detach(), mask).cpu() for name, x in sums.items()}
    sums["decisions"] = mask.sum().cpu()
    return sum_over_decisions(pg - c.entropy_weight * out.entropy, mask) / mask.sum(), sums


def update(
    policy: LmPolicy,
    learner: Learner,
    reference: Reference,
    batch: Batch,
    rewards: Tensor,
    c: Config,
    carried: Carried,
    lr: float,
) -> dict[str, Tensor]:
    """One gradient step on one batch of replies."""
    assert batch.behavior_logp is not None
    ref_logp = reference.logp(batch)
    kl = estimated_kl(c.kl, batch.behavior_logp, ref_logp).masked_fill(~batch.mask, 0.0).sum(1)
    worth = rewards - carried.kl.beta * kl
    total, sums = loss(policy, batch, advantages(worth, c, carried), ref_logp, c)
    descend(policy, learner.optimizer, total, c.optimizer, lr=lr)
    carried.saw_(worth, c.decay)
    return sums


def train(c: Config, talk: OneTurn, policy: LmPolicy, run: Run, seed: int) -> LmPolicy:
    """Improve `policy` in place by its own replies."""
    run.world.place(policy)
    reference, carried = Reference(policy.lm), Carried(KlControl(c.beta, c.kl_target))
    learner = Learner(policy, adamw(policy, c.optimizer), experience=carried)
    for step in run.steps(c.steps, learner):
        judged = talk.sample(policy, step, c.prompts_per_step, 1, seed)
        batch = pack_tokens(judged.rows(), gamma=1.0).to(run.world.device)
        rewards = torch.as_tensor(judged.rewards, dtype=torch.float32, device=run.world.device)
        lr = warmup_linear(c.optimizer, step, c.steps)
        sums = update(policy, learner, reference, batch, rewards, c, carried, lr)
        per_reply = float(sums["kl_k1"]) / len(judged.replies)
        carried.kl.saw_(per_reply)
        if run.due(step, c.steps):
            told = {"kl": per_reply, "beta": carried.kl.beta, "baseline": carried.mean}
            run.log(step, {**run.world.means(sums), **told, **judged.told()})
    return policy
