"""Proximal policy optimisation of a language model, token by token, with a learned critic.

    r_k = -beta (log pi_old(a_k) - log pi_ref(a_k)), and the reply's reward after its last token
    A_k = GAE(lambda) with V(s) of every prefix, standardised over the batch
    L   = clipped surrogate + value_weight max((V - G)^2, (clip(V) - G)^2) - entropy bonus

Schulman et al. 2017, arXiv:1707.06347, eq. 7; Ziegler et al. 2019, arXiv:1909.08593, section 2.1 (the KL as a
reward per token); Stiennon et al. 2020, arXiv:2009.01325 (a critic on a trunk of its own). Here generation is
a token-level MDP: V is read at each prefix, where group methods know only whole replies.

Differs from them: the discount inside a reply is 1 and lambda .95 by default; pi_old is the log-probability
recorded when sampling.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from turnwise.data.batch import Batch, pack_tokens
from turnwise.losses.estimators import standardised
from turnwise.losses.kl import estimated_kl, k1, k3
from turnwise.losses.names import KlEstimator
from turnwise.losses.policy import clipped_surrogate_loss
from turnwise.losses.reduce import sum_over_decisions
from turnwise.losses.returns import lambda_returns
from turnwise.losses.value import clipped_value_loss
from turnwise.models.lm.critics import StateCritic
from turnwise.models.lm.parts import trunk_of, width_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import score_replies
from turnwise.rollout.one_turn import Judged, KlControl, OneTurn
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, SHARE, check, check_choice
from turnwise.run.errors import SettingError
from turnwise.run.optim import adamw, descend, warmup_linear
from turnwise.run.settings import AdamW
from turnwise.run.training import Learner, Run


@dataclass(frozen=True)
class Config:
    """Numbers of token-level PPO."""

    steps: int = 200
    """updates of the experience: each samples anew"""
    prompts_per_step: int = 128
    """prompts a step, one reply to each"""
    epochs: int = 2
    """passes over what was sampled"""
    minibatches: int = 2
    """gradient steps a pass"""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=5)
    """Settings of the optimizer. One for policy and critic."""
    lam: float = 0.95
    """lambda of GAE: 0 one step, 1 the whole reply"""
    clip: float = 0.2
    """how far the ratio may leave 1 before its gradient stops"""
    value_clip: float = 0.5
    """how far V may move in an update, in units of return"""
    value_weight: float = 0.5
    """of the critic's loss"""
    beta: float = 0.02
    """weight of the KL to the reference in the reward of each token, reward per nat"""
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


class ActorAndCritic(nn.Module):
    """The policy and V on a trunk of its own, a copy of the policy's at first."""

    def __init__(self, policy: LmPolicy):
        super().__init__()
        self.policy = policy
        self.critic = StateCritic(copy.deepcopy(trunk_of(policy.lm)), width_of(policy.lm)).requires_grad_()


@dataclass(frozen=True)
class Part:
    """Replies, packed, with what was true of them before the first update."""

    batch: Batch
    advantages: Tensor
    """[B, A], standardised"""
    returns: Tensor
    """[B, A]"""
    old_values: Tensor
    """[B, A]"""
    ref_logp: Tensor
    """[B, A]"""

    @property
    def kl(self) -> float:
        """k1 summed over the tokens, nats: what its replies say of the KL of the policy that spoke."""
        assert self.batch.behavior_logp is not None
        return float(k1(self.batch.behavior_logp, self.ref_logp)[self.batch.mask].sum())


@torch.no_grad()
def experience(
    agent: ActorAndCritic, reference: Reference, judged: Judged, c: Config, beta: float, device: torch.device
) -> list[Part]:
    """Rewards per token, values, GAE; in minibatches."""
    rows = [reply.rewarded(float(r)) for reply, r in zip(judged.replies, judged.rewards, strict=True)]
    size = -(-len(rows) // c.minibatches)
    known = []
    for start in range(0, len(rows), size):
        b = pack_tokens(rows[start : start + size], gamma=1.0).to(device)
        assert b.behavior_logp is not None
        ref_logp = reference.logp(b)
        rewards = b.rewards - beta * estimated_kl(c.kl, b.behavior_logp, ref_logp).masked_fill(~b.mask, 0.0)
        values = agent.critic(b.inputs, b.decisions)
        lam = torch.full_like(rewards, c.lam)
        returns = lambda_returns(rewards, b.discounts, values[:, 1:], b.mask, lam)
        known.append((b, returns, values[:, :-1], ref_logp))
    spread = torch.cat([(g - v)[b.mask] for b, g, v, _ in known])
    alike = standardised(spread.unsqueeze(0), torch.ones_like(spread, dtype=torch.bool).unsqueeze(0))[0]
    parts, at = [], 0
    for b, returns, values, ref_logp in known:
        n = int(b.mask.sum())
        advantages = torch.zeros_like(returns).masked_scatter(b.mask, alike[at : at + n])
        parts.append(Part(b, advantages, returns, values, ref_logp))
        at += n
    return parts


def loss(
    agent: ActorAndCritic, part: Part, denominator: float, c: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """The three terms, summed over tokens; and their sums."""
    b, mask = part.batch, part.batch.loss_mask
    assert b.behavior_logp is not None
    out = score_replies(agent.policy.lm, b)
    values = agent.critic(b.inputs, b.decisions)[:, :-1]
    surrogate = clipped_surrogate_loss(out.logp, b.behavior_logp, part.advantages, c.clip)
    error = clipped_value_loss(values, part.old_values, part.returns, c.value_clip)
    objective = surrogate + c.value_weight * error - c.entropy_weight * out.entropy
    ratio = (out.logp.detach() - b.behavior_logp).exp()
    sums = {
        "policy_loss": surrogate,
        "value_loss": error,
        "kl_token": k3(out.logp, part.ref_logp),
        "kl_k1": k1(out.logp, part.ref_logp),
        "entropy": out.entropy,
        "clip_ratio": ((ratio - 1).abs() > c.clip).to(ratio.dtype),
    }
    sums = {name: sum_over_decisions(x.detach(), mask) for name, x in sums.items()}
    sums["decisions"] = mask.sum()
    return sum_over_decisions(objective, mask) / denominator, sums


def update(
    agent: ActorAndCritic, learner: Learner, parts: Sequence[Part], c: Config, lr: float
) -> dict[str, Tensor]:
    """`epochs` passes over the replies; sums over tokens of all of them."""
    denominator = sum(int(p.batch.mask.sum()) for p in parts) / len(parts)
    total: dict[str, Tensor] = {}
    for _ in range(c.epochs):
        for i in torch.randperm(len(parts)).tolist():
            objective, sums = loss(agent, parts[i], denominator, c)
            descend(agent, learner.optimizer, objective, c.optimizer, lr=lr)
            total = {name: total.get(name, torch.zeros(())) + x.cpu() for name, x in sums.items()}
    return total


def explained(parts: Sequence[Part]) -> float:
    """1 - Var(G - V) / Var(G) over the tokens: how much of the returns V knew before the update."""
    returns = torch.cat([p.returns[p.batch.mask] for p in parts])
    left = torch.cat([(p.returns - p.old_values)[p.batch.mask] for p in parts])
    spread = float(returns.var(correction=0))
    return 1 - float(left.var(correction=0)) / spread if spread else 0.0


def train(c: Config, talk: OneTurn, policy: LmPolicy, run: Run, seed: int) -> LmPolicy:
    """Improve `policy` in place by its own replies."""
    run.world.place(policy)
    reference, kl = Reference(policy.lm), KlControl(c.beta, c.kl_target)
    agent = ActorAndCritic(policy)
    run.world.place(agent)
    learner = Learner(agent, adamw(agent, c.optimizer), experience=kl)
    for step in run.steps(c.steps, learner):
        judged = talk.sample(policy, step, c.prompts_per_step, 1, seed)
        parts = experience(agent, reference, judged, c, kl.beta, run.world.device)
        sums = update(agent, learner, parts, c, warmup_linear(c.optimizer, step, c.steps))
        per_reply = sum(p.kl for p in parts) / len(judged.replies)
        kl.saw_(per_reply)
        if run.due(step, c.steps):
            told = {"kl": per_reply, "beta": kl.beta, "critic/vf_explained_var": explained(parts)}
            run.log(step, {**run.world.means(sums), **told, **judged.told()})
    return policy
