"""Proximal policy optimisation of a language model, token by token, with a learned critic.

    r_k = -beta (log pi_old(a_k) - log pi_ref(a_k)), and the reply's reward after its last token
    A_k = GAE(lambda) with V(s) of every prefix, standardised over the batch
    L   = clipped surrogate + value_weight max((V - G)^2, (clip(V) - G)^2) - entropy bonus

Schulman et al. 2017, arXiv:1707.06347, eq. 7; Ziegler et al. 2019, arXiv:1909.08593, section 2.1 (the KL as a
reward per token); Stiennon et al. 2020, arXiv:2009.01325 (a critic on a trunk of its own). Generation is a
token-level MDP here: V is read at each prefix, while group methods know only whole replies.

Differs from them: the discount inside a reply is 1, and lambda is .95 by default; pi_old is the
log-probability that was recorded when sampling.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor, nn

from turnwise.data.batch import Batch, row_parts
from turnwise.losses.estimators import standardised
from turnwise.losses.kl import estimated_kl, k1, k3
from turnwise.losses.names import KlEstimator
from turnwise.losses.policy import clipped_surrogate_loss
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions
from turnwise.losses.returns import lambda_returns
from turnwise.losses.value import clipped_value_loss, explained_variance
from turnwise.models.lm.critics import StateCritic
from turnwise.models.lm.parts import trunk_of, width_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import Scored
from turnwise.rollout.one_turn import Judged, OneTurn
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, SHARE, check, check_choice
from turnwise.run.control import AdaptiveWeight
from turnwise.run.errors import SettingError
from turnwise.run.learner import Learner
from turnwise.run.metrics import REPLIES, Metric, added
from turnwise.run.optim import warmed_up
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of token-level PPO."""

    steps: int = 200
    """Steps of training. Each samples new replies."""
    prompts_per_step: int = 128
    """Prompts in a step, with one reply to each."""
    epochs: int = 2
    """Passes over the replies of a step."""
    minibatches: int = 2
    """Gradient steps in a pass."""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=0.05)
    """Settings of the optimizer. One for policy and critic."""
    lam: float = 0.95
    """Lambda of GAE: 0 looks one token ahead and trusts V, 1 looks to the end of the reply and is noisier."""
    clip: float = 0.2
    """How far the ratio of a token may leave 1 before its gradient stops: smaller is slower and safer."""
    value_clip: float = 0.5
    """How far V may move in a step, in units of return: suit it to the rewards."""
    value_weight: float = 0.5
    """Weight of the critic's loss. Trunks are separate, so it acts through the shared gradient norm alone."""
    beta: float = 0.02
    """Weight of the KL to the reference in the reward of each token, in units of reward per nat. More of it
    keeps the policy nearer to where it began."""
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
        return -(-self.prompts_per_step // self.minibatches)

    def __post_init__(self) -> None:
        check(
            self,
            steps=ONE_OR_MORE,
            prompts_per_step=ONE_OR_MORE,
            epochs=POSITIVE,
            minibatches=ONE_OR_MORE,
            lam=SHARE,
            clip=POSITIVE,
            value_clip=POSITIVE,
            value_weight=NOT_NEGATIVE,
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
    "policy_loss": Metric("clipped surrogate", "per token", loss=True),
    "value_loss": Metric("clipped squared error of V", "squared return", loss=True),
    "kl_token": Metric("KL to the reference by k3", "nats per token"),
    "kl_k1": Metric("KL to the reference by k1", "nats per token"),
    "entropy": Metric("entropy of the policy", "nats per token"),
    "clip_ratio": Metric("share of clipped ratios"),
    "beta": Metric("weight of the KL", "reward per nat"),
    "explained_variance": Metric("share of the returns' variance that V explains"),
}


class ActorAndCritic(nn.Module):
    """The policy, and V on a trunk of its own, which is a copy of the policy's at first."""

    def __init__(self, policy: LmPolicy):
        super().__init__()
        self.policy = policy
        self.critic = StateCritic(copy.deepcopy(trunk_of(policy.lm)), width_of(policy.lm)).requires_grad_()

        # Values are no less precise than rewards, and as precise as the weights where those are more so.
        self.critic.v.to(torch.promote_types(next(policy.parameters()).dtype, torch.float32))

    def forward(self, batch: Batch, values_alone: bool = False) -> tuple[Scored | None, Tensor]:
        """What the policy gives the actions (None if `values_alone`), and V [B, A+1]."""
        scored = None if values_alone else self.policy.score(batch)
        return scored, self.critic(batch.inputs, batch.decisions)


@dataclass(frozen=True)
class Minibatch:
    """Replies, packed, with what their loss needs and no update changes."""

    batch: Batch
    old_logp: Tensor
    """[B, A], of the policy that sampled, as recorded then."""
    ref_logp: Tensor
    """[B, A], of the reference."""
    old_values: Tensor
    """[B, A], V before the first update."""
    returns: Tensor
    """[B, A], what V learns."""
    advantages: Tensor
    """[B, A], standardised over all tokens of the step."""


@torch.no_grad()
def experience(
    agent: nn.Module, reference: Reference, judged: Judged, c: Config, beta: float, device: torch.device
) -> list[Minibatch]:
    """Rewards of each token, values and GAE, in minibatches."""
    found = []
    dtype = torch.promote_types(next(agent.parameters()).dtype, torch.float32)  # of returns, as of values
    for b in judged.minibatches(c.minibatches, 1, device, dtype):
        old_logp, ref_logp = b.behavior_logp, reference.logp(b)  # [B, A]
        assert old_logp is not None
        kl = estimated_kl(c.kl, old_logp, ref_logp).masked_fill(~b.mask, 0.0)
        rewards = b.rewards - beta * kl  # [B, A]: the judge's stands after the last token, the KL at each
        values = agent(b, values_alone=True)[1]  # [B, A+1]
        returns = lambda_returns(rewards, b.discounts, values[:, 1:], b.mask, c.lam)
        found.append(Minibatch(b, old_logp, ref_logp, values[:, :-1], returns, returns - values[:, :-1]))
    return _standardised(found, judged)


def _standardised(minibatches: Sequence[Minibatch], judged: Judged) -> list[Minibatch]:
    """The same with advantages standardised over the tokens of all of them, so that each weighs alike."""
    own = torch.cat([m.advantages[m.batch.loss_mask] for m in minibatches])
    every = judged.world.gather(lambda: own.cpu())  # of all processes, this one's where it is
    tokens = torch.cat(every).unsqueeze(0).to(own.device)  # [1, tokens]
    whole = standardised(tokens, torch.ones_like(tokens, dtype=torch.bool))[0]
    mine = whole.split([len(x) for x in every])[judged.world.rank]
    pieces = mine.split([int(m.batch.loss_mask.sum()) for m in minibatches])
    return [
        replace(m, advantages=torch.zeros_like(m.advantages).masked_scatter(m.batch.loss_mask, piece))
        for m, piece in zip(minibatches, pieces, strict=True)
    ]


def loss(agent: nn.Module, m: Minibatch, denominator: float, c: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """The three terms together, a number; and sums over tokens of what is logged."""
    b, mask = m.batch, m.batch.loss_mask
    out, values = agent(b)
    values = values[:, :-1]  # [B, A]
    surrogate = clipped_surrogate_loss(out.logp, m.old_logp, m.advantages, c.clip)
    error = clipped_value_loss(values, m.old_values, m.returns, c.value_clip)
    objective = surrogate + c.value_weight * error - c.entropy_weight * out.entropy
    ratio = (out.logp.detach() - m.old_logp).exp()
    terms = {
        "policy_loss": surrogate,
        "value_loss": error,
        "kl_token": k3(out.logp, m.ref_logp),
        "kl_k1": k1(out.logp, m.ref_logp),
        "entropy": out.entropy,
        "clip_ratio": ((ratio - 1).abs() > c.clip).to(ratio.dtype),
    }
    return sum_over_decisions(objective, mask) / denominator, sums_over_decisions(terms, mask)


def update(
    agent: nn.Module, learner: Learner, minibatches: Sequence[Minibatch], c: Config, lr: float
) -> dict[str, Tensor]:
    """`epochs` passes over the replies; sums over tokens of all of them."""
    tokens = learner.world.total(torch.stack([m.batch.loss_mask.sum() for m in minibatches]).sum())
    denominator = float(tokens) / len(minibatches) / learner.world.size
    total: dict[str, Tensor] = {}
    for _ in range(c.epochs):
        for i in torch.randperm(len(minibatches)).tolist():
            parts = row_parts(minibatches[i], learner.through.at_once)
            sums = learner.learn(parts, lambda m: loss(agent, m, denominator, c), lr=lr)
            total = added(total, sums)
    return total


def train(c: Config, talk: OneTurn, policy: LmPolicy, run: TrainingRun, seed: int) -> LmPolicy:
    """Improve `policy` in place by its own replies."""
    agent, beta = ActorAndCritic(policy), AdaptiveWeight(c.beta, c.kl_target)
    reference = Reference(policy.lm, run.world.place, run.world.splits)  # before the policy is spread
    learner = run.learner(agent, c.optimizer, experience=beta, speaks=policy)
    for step, judged in talk.steps(learner, run, c.steps, prompts=c.prompts_per_step, group=1, seed=seed):
        minibatches = experience(learner.wrapped, reference, judged, c, beta.value, run.world.device)
        sums = update(learner.wrapped, learner, minibatches, c, warmed_up(c.optimizer, step, c.steps))
        # Of the policy that sampled, and so unbiased; by k1, which is the log-ratio of the whole reply.
        kls = [sum_over_decisions(k1(m.old_logp, m.ref_logp), m.batch.loss_mask) for m in minibatches]
        kl = float(run.world.total(torch.stack(kls).sum())) / len(judged.replies)
        beta.update_(kl)
        if run.due(step):
            own = [torch.stack([m.old_values, m.returns])[:, m.batch.loss_mask].cpu() for m in minibatches]
            both = run.world.gather(lambda own=own: torch.cat(own, 1))
            values, returns = torch.cat(both, 1)  # [tokens], of all processes
            explained = explained_variance(values, returns)  # by the critic as it was before the updates
            whole = {"kl": kl, "beta": beta.value, "explained_variance": explained}
            run.log(step, {**run.world.means(sums), **whole, **judged.metrics()})
    return policy
