"""REINFORCE over whole conversations, each against others with the same partner.

    R_i = sum of the rewards of conversation i, less beta sum_t (log pi_old(a_t) - log pi_0(a_t))
    A_i = R_i - mean of the other G - 1 conversations' R
    L   = 1/N sum_i -A_i sum_t min(rho_t, most) log pi(a_t | h_t)          over all tokens of all turns

A group is G conversations that begin with the same partner: the same seed of it, and so the same hidden
state. The others' mean is a baseline that no choice in conversation i has touched, at any of its turns. So
the gradient is unbiased, whoever decides when a conversation ends: nothing is divided by the length of a
conversation, and nothing is compared turn by turn, where only those that have gone on are left. Rewards of
earlier turns may stay in A_i: they are known when a turn is chosen, and shift its baseline alone.

Ahmadian et al. 2024, arXiv:2402.14740, eq. 8 (Kool et al. 2019), for conversations instead of replies. rho_t
is the probability of a token now over that when it was said. It is 1 in the first update after talking, and
truncated at `most` in later ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from turnwise.data.batch import Batch, pack_tokens, row_parts
from turnwise.data.tokens import Tokens
from turnwise.losses.groups import leave_one_out
from turnwise.losses.kl import k1, truncated_ratio
from turnwise.losses.policy import policy_gradient_loss
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import Scorer, Scores, Spread
from turnwise.rollout.live import LiveTalk
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, TWO_OR_MORE, check
from turnwise.run.errors import SettingError
from turnwise.run.learner import Learner
from turnwise.run.metrics import TALKS, Metric, added
from turnwise.run.optim import warmed_up
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of RLOO over conversations."""

    talks: int = 20_000
    """Conversations that are held in all."""
    batch: int = 128
    """Conversations between updates, in whole groups."""
    group: int = 8
    """Conversations with the same partner, 2 or more. More of them make the baseline better."""
    minibatches: int = 2
    """Gradient steps on what was talked, each on whole groups."""
    optimizer: AdamW = AdamW(lr=3e-4, warmup=0.02)
    """Settings of the optimizer."""
    most_ratio: float = 2.0
    """Largest importance ratio of a token; it has an effect from the second minibatch on."""
    beta: float = 0.02
    """Weight of the KL to the policy that it began with, in units of reward per nat. More of it keeps the
    words as they were."""
    entropy_weight: float = 0.0
    """Weight of a bonus on the entropy of each token."""

    @property
    def iterations(self) -> int:
        """How often it talks and learns."""
        return max(1, round(self.talks / self.batch))

    def __post_init__(self) -> None:
        check(
            self,
            talks=ONE_OR_MORE,
            batch=TWO_OR_MORE,
            group=TWO_OR_MORE,
            minibatches=ONE_OR_MORE,
            most_ratio=POSITIVE,
            beta=NOT_NEGATIVE,
            entropy_weight=NOT_NEGATIVE,
        )
        if self.batch % self.group:
            raise SettingError(
                "batch", self.batch, f"a multiple of the {self.group} conversations of a group"
            )
        if self.minibatches > self.batch // self.group:
            most = f"at most the {self.batch // self.group} groups of a batch"
            raise SettingError("minibatches", self.minibatches, most)


METRICS: dict[str, Metric] = TALKS | {
    "policy_loss": Metric("policy-gradient loss", "per token", loss=True),
    "entropy": Metric("entropy of the policy", "nats per token"),
    "kl_begun": Metric("KL to the policy that it began with", "nats per conversation"),
    "group_std": Metric("standard deviation of returns with one partner", "return"),
    "clipped": Metric("share of truncated ratios"),
}


@dataclass(frozen=True)
class Minibatch:
    """Whole groups, packed, with what their loss needs and no update changes."""

    batch: Batch
    old_logp: Tensor
    """[B, A], of the policy that spoke, as recorded then."""
    advantages: Tensor
    """[B], one for each conversation."""
    kl_begun: Tensor
    """[B], log-ratio to the policy that it began with, of what was said."""


def experience(
    reference: Reference,
    groups: Sequence[Sequence[Tokens]],
    c: Config,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> list[Minibatch]:
    """A minibatch for each part of the groups: returns less the KL, compared with those of the same
    partner."""
    found = []
    for rows in groups:
        batch = pack_tokens(rows, gamma=1.0, dtype=dtype).to(device)
        old_logp = batch.behavior_logp
        assert old_logp is not None
        kl = k1(old_logp, reference.logp(batch)).masked_fill(~batch.mask, 0.0).sum(1)  # [B]
        worth = batch.rewards.sum(1) - c.beta * kl  # [B]
        advantages = leave_one_out(worth.view(-1, c.group)).flatten()  # [P, G] -> [B]
        found.append(Minibatch(batch, old_logp, advantages, kl))
    return found


def loss(policy: Scores, m: Minibatch, denominator: float, c: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the policy less its entropy bonus, a number; and sums over tokens of what is logged."""
    out, mask = policy.score(m.batch), m.batch.loss_mask
    ratio = truncated_ratio(out.logp.detach(), m.old_logp, c.most_ratio)  # [B, A]
    policy_loss = policy_gradient_loss(out.logp, ratio * m.advantages.unsqueeze(1))
    terms = {
        "policy_loss": policy_loss,
        "entropy": out.entropy,
        "clipped": (ratio >= c.most_ratio).to(ratio.dtype),
    }
    total = sum_over_decisions(policy_loss - c.entropy_weight * out.entropy, mask) / denominator
    return total, sums_over_decisions(terms, mask)


def update(
    policy: Scores, learner: Learner, minibatches: Sequence[Minibatch], c: Config, lr: float
) -> dict[str, Tensor]:
    """One pass over the groups; sums over tokens of all of them."""
    # Conversations of an average minibatch, and not their tokens: the policy decides how many of these there
    # are.
    denominator = sum(len(m.batch.mask) for m in minibatches) / len(minibatches)
    sums: dict[str, Tensor] = {}
    for minibatch in minibatches:
        parts = row_parts(minibatch, learner.through.at_once)
        sums = added(sums, learner.learn(parts, lambda m: loss(policy, m, denominator, c), lr=lr))
    return sums


def new_agent(policy: LmPolicy) -> LmPolicy:
    """What learns: the policy itself."""
    return policy


def train(c: Config, talk: LiveTalk, policy: LmPolicy, run: TrainingRun, seed: int) -> LmPolicy:
    """Improve `policy` in place by its own conversations."""
    reference = Reference(policy.lm, run.world.place, run.world.splits)
    learner = run.learner(Scorer(policy, run.world.splits), c.optimizer, speaks=policy)
    spread = Spread(policy, learner.wrapped)
    for step in run.steps(c.iterations, learner):
        held = talk.hold(learner.acting(), c.batch, (seed, step), group=c.group)
        run.count(left_out=held.left_out)
        partners = len(held.rows) // c.group
        size = -(-partners // c.minibatches) * c.group  # whole groups, rounded up
        groups = [held.rows[i : i + size] for i in range(0, len(held.rows), size)]
        minibatches = experience(reference, groups, c, run.world.device)
        sums = update(spread, learner, minibatches, c, warmed_up(c.optimizer, step, c.iterations))
        if run.due(step):
            whole = {
                "talks": (step + 1) * c.batch,
                "kl_begun": torch.cat([m.kl_begun for m in minibatches]).mean(),
                "group_std": float(held.returns.reshape(-1, c.group).std(1).mean()),
            }
            run.log(step, {**held.metrics(), **run.world.means(sums), **whole})
    return policy
