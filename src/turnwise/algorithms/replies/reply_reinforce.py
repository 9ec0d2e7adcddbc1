"""REINFORCE on whole replies, with a baseline that depends on nothing in the reply.

    R_i = r_i - beta sum_k (log pi(a_k) - log pi_ref(a_k))
    L   = -(R_i - b) sum_k log pi(a_k | s_k)                            the reply is one action

Williams 1992. Baselines: none; the running mean of past rewards (an exponential average, taken before the
step's own rewards enter it); or the mean of the batch's other replies (leave-one-out over the batch). All are
unbiased, because none depends on the reply that it is subtracted from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from turnwise.data.batch import Batch, row_parts
from turnwise.losses.groups import leave_one_out
from turnwise.losses.kl import estimated_kl, k1, k3
from turnwise.losses.names import KlEstimator
from turnwise.losses.policy import policy_gradient_loss
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import Scorer, Scores, Spread
from turnwise.rollout.one_turn import Judged, OneTurn
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, SHARE, check, check_choice
from turnwise.run.control import AdaptiveWeight
from turnwise.run.errors import SettingError
from turnwise.run.learner import Learner
from turnwise.run.metrics import REPLIES, Metric
from turnwise.run.optim import warmed_up
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of REINFORCE."""

    steps: int = 200
    """Steps of training. Each samples new replies and takes one gradient step."""
    prompts_per_step: int = 128
    """Prompts in a step, with one reply to each."""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=0.05)
    """Settings of the optimizer."""
    baseline: Literal["none", "running", "batch"] = "batch"
    """What rewards are compared with: none is 0, running the mean of past ones, batch the mean of the step's
    other ones."""
    decay: float = 0.9
    """Share of the running mean that a step keeps: nearer to 1 is steadier and slower."""
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
        return self.prompts_per_step

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


METRICS: dict[str, Metric] = REPLIES | {
    "policy_loss": Metric("policy-gradient loss", "per token", loss=True),
    "kl_token": Metric("KL to the reference by k3", "nats per token"),
    "kl_k1": Metric("KL to the reference by k1", "nats per token"),
    "entropy": Metric("entropy of the policy", "nats per token"),
    "beta": Metric("weight of the KL", "reward per nat"),
    "baseline": Metric("running mean of rewards", "reward"),
}


@dataclass
class StepState:
    """What one step hands on to the next besides weights: the KL's weight and the running mean of rewards."""

    beta: AdaptiveWeight
    mean: float = 0.0
    steps: int = 0

    @property
    def changes(self) -> int:
        """Steps that have moved the mean."""
        return self.steps

    def update_mean_(self, rewards: Tensor, decay: float) -> None:
        """Move the mean towards that of `rewards` [B].

        The first steps weigh 1, 1/2, 1/3 ...: a plain mean, with no start at 0 that would have to be
        forgotten.
        """
        self.steps += 1
        weight = max(1 - decay, 1 / self.steps)
        self.mean += weight * (float(rewards.mean()) - self.mean)

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {**self.beta.state(), "mean": self.mean, "steps": self.steps}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from a checkpoint."""
        self.beta.load(state)
        self.mean, self.steps = float(state["mean"]), int(state["steps"])


def advantages(rewards: Tensor, c: Config, past: StepState) -> Tensor:
    """[B], rewards minus the baseline."""
    if c.baseline == "batch":
        return leave_one_out(rewards.unsqueeze(0))[0]
    return rewards - (past.mean if c.baseline == "running" else 0.0)


@dataclass(frozen=True)
class Minibatch:
    """Replies, packed, with what their loss needs."""

    batch: Batch
    advantages: Tensor
    """[B], one for each reply."""
    ref_logp: Tensor
    """[B, A], of the reference."""


def loss(policy: Scores, m: Minibatch, denominator: float, c: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the policy less its entropy bonus, per token; and sums over tokens of what is logged."""
    out, mask, ref_logp = policy.score(m.batch), m.batch.loss_mask, m.ref_logp
    weights = m.advantages.unsqueeze(1).expand_as(out.logp)  # [B, A], alike for all tokens of a reply
    policy_loss = policy_gradient_loss(out.logp, weights)
    terms = {
        "policy_loss": policy_loss,
        "kl_token": k3(out.logp, ref_logp),
        "kl_k1": k1(out.logp, ref_logp),
        "entropy": out.entropy,
    }
    total = sum_over_decisions(policy_loss - c.entropy_weight * out.entropy, mask) / denominator
    return total, sums_over_decisions(terms, mask)


def update(
    policy: Scores,
    learner: Learner,
    reference: Reference,
    judged: Judged,
    c: Config,
    past: StepState,
    lr: float,
) -> dict[str, Tensor]:
    """One gradient step on one batch of replies; sums over tokens of what is logged."""
    (batch,) = judged.minibatches(1, 1, policy.device)
    assert batch.behavior_logp is not None
    ref_logp = reference.logp(batch)
    kl = estimated_kl(c.kl, batch.behavior_logp, ref_logp).masked_fill(~batch.mask, 0.0).sum(1)  # [B]
    world = learner.world
    worth = judged.together(batch.rewards.sum(1) - past.beta.value * kl)  # [n], of all processes
    advantage = advantages(worth, c, past)[world.rank :: world.size]  # [B]
    if not len(advantage):  # there are more processes than replies, and this one learns nothing
        advantage = torch.zeros_like(kl)
    parts = row_parts(Minibatch(batch, advantage, ref_logp), learner.through.at_once)
    tokens = judged.tokens / world.size
    sums = learner.learn(parts, lambda m: loss(policy, m, tokens, c), lr=lr)
    # After the step: a baseline that knew these rewards would depend on the replies that it judges.
    past.update_mean_(worth, c.decay)
    return sums


def train(c: Config, talk: OneTurn, policy: LmPolicy, run: TrainingRun, seed: int) -> LmPolicy:
    """Improve `policy` in place by its own replies."""
    past = StepState(AdaptiveWeight(c.beta, c.kl_target))
    reference = Reference(policy.lm, run.world.place, run.world.splits)  # before the policy is spread
    learner = run.learner(Scorer(policy, run.world.splits), c.optimizer, experience=past, speaks=policy)
    spread = Spread(policy, learner.wrapped)
    least = 2 if c.baseline == "batch" else 1  # a reply alone has nothing to be compared with
    for step, judged in talk.steps(
        learner, run, c.steps, prompts=c.prompts_per_step, group=1, seed=seed, least=least
    ):
        lr = warmed_up(c.optimizer, step, c.steps)
        sums = update(spread, learner, reference, judged, c, past, lr)
        kl = float(run.world.total(sums["kl_k1"])) / len(judged.replies)
        past.beta.update_(kl)
        if run.due(step):
            whole = {"kl": kl, "beta": past.beta.value, "baseline": past.mean}
            run.log(step, {**run.world.means(sums), **whole, **judged.metrics()})
    return policy
