"""Proximal policy optimisation of a language model over whole conversations with a live partner.

    r'_k  = r_k - beta (log pi_old - log pi_0) of what was said at k
    A_k   = delta_k + d_k lambda A_{k+1},  delta_k = r'_k + d_k V(h_{k+1}) - V(h_k),  G_k = A_k + V(h_k)
    rho_t = pi(a_t | h_t) / pi_old(a_t | h_t)                            of each token t, the stop token too
    L     = 1/N sum_t -min(rho_t A_k(t), clamp(rho_t, 1 - clip, 1 + clip) A_k(t))
            + 1/N sum_k value_weight (V(h_k) - G_k)^2 / sigma^2

k counts turns or tokens, as `credit` says, and k(t) is the turn of token t, or t itself. V is read where
decision k is taken; what the partner says in between is read and never trained.

Schulman et al. 2017, arXiv:1707.06347, eq. 7 and 11; Schulman et al. 2016, arXiv:1506.02438 (GAE); Ziegler et
al. 2019, arXiv:1909.08593, section 2.1 (the KL as a reward). Differs from token-level PPO of replies in three
ways: rewards come at any turn, GAE can go over turns, and losses are summed over a conversation and divided
by N, the conversations of an average minibatch. The policy decides when a conversation ends, so that a mean
over its turns or tokens would be another gradient than the return's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from turnwise.data.batch import Batch, pack_tokens, pack_turns, row_parts, turn_of_tokens
from turnwise.data.tokens import Tokens
from turnwise.losses.kl import k1, k3
from turnwise.losses.names import Credit
from turnwise.losses.policy import clipped_surrogate_loss
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions
from turnwise.losses.returns import lambda_returns
from turnwise.losses.value import explained_variance, squared_error
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.talk_actor import TalkActor
from turnwise.rollout.live import LiveTalk
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, SHARE, check, check_choice
from turnwise.run.errors import SettingError
from turnwise.run.learner import Learner
from turnwise.run.metrics import TALKS, Metric, added
from turnwise.run.optim import warmed_up
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of PPO over conversations."""

    talks: int = 20_000
    """Conversations that are held in all."""
    batch: int = 200
    """Conversations between updates."""
    epochs: int = 2
    """Passes over what was talked."""
    minibatches: int = 4
    """Gradient steps per pass."""
    optimizer: AdamW = AdamW(lr=1e-3, warmup=0.02)
    """Settings of the optimizer. One for policy and critic."""
    credit: Credit = "tokens"
    """What GAE goes over: turns, whose tokens then share an advantage, or tokens."""
    gamma: float = 1.0
    """Discount per turn. Use 1 if agents are scored by undiscounted returns."""
    lam: float = 0.95
    """Lambda of GAE: 0 looks one turn (or token) ahead and trusts V, 1 looks to the end and is noisier."""
    clip: float = 0.2
    """How far the ratio of a token may leave 1 before its gradient stops: smaller is slower and safer."""
    value_weight: float = 0.5
    """Weight of the critic's loss. Trunks are separate, so it acts through the shared gradient norm alone."""
    critic_first: int = 0
    """Iterations at first in which V alone learns."""
    beta: float = 0.005
    """Weight of the KL to the policy that it began with, in standard deviations of the return per nat. More
    of it keeps the words as they were."""
    entropy_weight: float = 0.0
    """Weight of a bonus on the entropy of each token, in standard deviations of the return per nat."""

    @property
    def iterations(self) -> int:
        """How often it talks and learns."""
        return max(1, round(self.talks / self.batch))

    def __post_init__(self) -> None:
        check(
            self,
            talks=ONE_OR_MORE,
            batch=ONE_OR_MORE,
            epochs=ONE_OR_MORE,
            minibatches=ONE_OR_MORE,
            gamma=SHARE,
            lam=SHARE,
            clip=POSITIVE,
            value_weight=NOT_NEGATIVE,
            critic_first=NOT_NEGATIVE,
            beta=NOT_NEGATIVE,
            entropy_weight=NOT_NEGATIVE,
        )
        check_choice(self, credit=get_args(Credit))
        if self.minibatches > self.batch:
            most = f"at most the {self.batch} conversations between updates"
            raise SettingError("minibatches", self.minibatches, most)


METRICS: dict[str, Metric] = TALKS | {
    "policy_loss": Metric("clipped surrogate", "per token", loss=True),
    "value_loss": Metric("squared error of V", "squared standard deviations of the return", loss=True),
    "explained_variance": Metric("share of the returns' variance that V explains"),
    "entropy": Metric("entropy of the policy", "nats per token"),
    "kl": Metric("KL(old policy, policy)", "nats per token"),
    "kl_begun": Metric("KL to the policy that it began with", "nats per conversation"),
    "clipped": Metric("share of clipped ratios"),
}


@dataclass(frozen=True)
class Minibatch:
    """Conversations, packed, with what their loss needs and no update changes."""

    batch: Batch
    """A decision per token."""
    states: Batch
    """A decision per turn, or per token: where V is read."""
    old_logp: Tensor
    """[B, A], of the policy that spoke, as recorded then."""
    advantages: Tensor
    """[B, A], of each token, in standard deviations of the iteration's advantages."""
    values: Tensor
    """[B, K], V before the first update."""
    returns: Tensor
    """[B, K], what V learns."""
    kl_begun: Tensor
    """[B], log-ratio to the policy that it began with, of what was said."""


@torch.no_grad()
def experience(
    agent: nn.Module,
    reference: Reference,
    groups: Sequence[Sequence[Tokens]],
    c: Config,
    device: torch.device,
) -> list[Minibatch]:
    """Rewards with the KL in them, values and GAE, a minibatch for each group of conversations."""
    found = []
    scale: Tensor = agent.scale  # pyright: ignore[reportAssignmentType]
    for rows in groups:
        batch = pack_tokens(rows, gamma=c.gamma, dtype=scale.dtype).to(device)
        old_logp = batch.behavior_logp
        assert old_logp is not None
        kl = k1(old_logp, reference.logp(batch)).masked_fill(~batch.mask, 0.0)  # [B, A]
        if c.credit == "turns":
            states = pack_turns(rows, gamma=c.gamma, dtype=scale.dtype).to(device)
            of = turn_of_tokens(rows).to(device)
        else:
            states, of = batch, torch.arange(kl.shape[1], device=device).expand(kl.shape)
        # The KL of a turn is that of its tokens.
        rewards = states.rewards - c.beta * scale * torch.zeros_like(states.rewards).scatter_add(1, of, kl)
        values = agent(None, states)[1]  # [B, K+1]
        returns = lambda_returns(rewards, states.discounts, values[:, 1:], states.mask, c.lam)
        advantages = (returns - values[:, :-1]).gather(1, of)  # [B, K] -> [B, A]
        found.append(Minibatch(batch, states, old_logp, advantages, values[:, :-1], returns, kl.sum(1)))
    return _scaled(found)


def _scaled(minibatches: Sequence[Minibatch]) -> list[Minibatch]:
    """The same with advantages in standard deviations of the advantages of all decisions.

    One number for the whole iteration, and no mean is taken off: what is divided by it is the same gradient,
    however long the conversations are.
    """
    raw = torch.cat([(m.returns - m.values)[m.states.loss_mask] for m in minibatches])
    spread = raw.std(correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    return [Minibatch(**{**vars(m), "advantages": m.advantages / spread}) for m in minibatches]


def loss(
    agent: nn.Module, m: Minibatch, denominator: float, c: Config, speaks: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """All terms together, a number; and sums over tokens of what is logged. Unless it `speaks`, V alone."""
    mask = m.batch.loss_mask
    out, values = agent(m.batch, m.states)
    scale: Tensor = agent.scale  # pyright: ignore[reportAssignmentType]
    error = squared_error(values[:, :-1], m.returns) / scale**2
    v_loss = sum_over_decisions(error, m.states.loss_mask)
    surrogate = clipped_surrogate_loss(out.logp, m.old_logp, m.advantages, c.clip)
    policy_loss = sum_over_decisions(surrogate - c.entropy_weight * out.entropy, mask)
    total = (policy_loss if speaks else 0.0 * policy_loss) + c.value_weight * v_loss
    log_ratio = (out.logp - m.old_logp).detach()
    terms = {
        "policy_loss": surrogate,
        "entropy": out.entropy,
        "kl": k3(m.old_logp, out.logp.detach()),
        "clipped": ((log_ratio.exp() - 1).abs() > c.clip).to(log_ratio.dtype),
    }
    sums = sums_over_decisions(terms, mask)
    # Numbers of turns among means over tokens: times the tokens of a turn, so that the mean is one over
    # turns.
    per = sums["decisions"] / m.states.loss_mask.sum()
    return total / denominator, sums | {"value_loss": v_loss.detach() * per}


def update(
    learner: Learner,
    minibatches: Sequence[Minibatch],
    c: Config,
    lr: float,
    rng: np.random.Generator,
    speaks: bool,
) -> dict[str, Tensor]:
    """`epochs` passes over the conversations of an iteration; sums over tokens of all of them."""
    denominator = sum(len(m.batch.mask) for m in minibatches) / len(minibatches)
    sums: dict[str, Tensor] = {}
    for _ in range(c.epochs):
        for i in rng.permutation(len(minibatches)).tolist():
            parts = row_parts(minibatches[i], learner.through.at_once)
            part = learner.learn(parts, lambda m: loss(learner.wrapped, m, denominator, c, speaks), lr=lr)
            sums = added(sums, part)
    return sums


def new_agent(policy: LmPolicy) -> TalkActor:
    """What learns: the policy, and V on a copy of its trunk."""
    return TalkActor(policy)


def train(c: Config, talk: LiveTalk, agent: TalkActor, run: TrainingRun, seed: int) -> TalkActor:
    """Improve the policy of `agent` in place by its own conversations."""
    reference = Reference(agent.policy.lm, run.world.place, run.world.splits)
    learner = run.learner(agent, c.optimizer, speaks=agent.policy)
    for step in run.steps(c.iterations, learner):
        held = talk.hold(learner.acting(), c.batch, (seed, step))
        run.count(left_out=held.left_out)
        agent.begin_(torch.tensor(held.returns, dtype=torch.float32))
        rng = np.random.default_rng((seed, step, 1))
        rows = [held.rows[i] for i in rng.permutation(len(held.rows))]
        groups = [rows[i :: c.minibatches] for i in range(min(c.minibatches, len(rows)))]
        minibatches = experience(learner.wrapped, reference, groups, c, run.world.device)
        lr = warmed_up(c.optimizer, step, c.iterations)
        sums = update(learner, minibatches, c, lr, rng, speaks=step >= c.critic_first)
        if run.due(step):
            both = [torch.stack([m.values, m.returns])[:, m.states.loss_mask] for m in minibatches]
            values, returns = torch.cat(both, 1)
            whole = {
                "talks": (step + 1) * c.batch,
                "explained_variance": explained_variance(values, returns),
                "kl_begun": torch.cat([m.kl_begun for m in minibatches]).mean(),
            }
            run.log(step, {**held.metrics(), **run.world.means(sums), **whole})
    return agent
