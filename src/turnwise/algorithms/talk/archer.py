"""Actor-critic with a hierarchy: a critic of whole utterances learns from replay, and tokens from the newest
talk.

    Q_i(s, u) -> r + d Vbar(s')                                     i = 1, 2; from replay, whoever said u
    V(s)      -> min_i Qbar_i(s, u), weighted with min(rho, most)   rho = pi(u | s) / pi_old(u | s)
    A         = min_i Q_i(s, u) - V(s)                              of the conversations that were just held
    L         = 1/N sum_t -min(rho_t A, clamp(rho_t, 1 - clip, 1 + clip) A)       over the tokens of each u

s is the conversation before an utterance u, s' that before the next one; Qbar and Vbar are of a slow copy.

Zhou et al. 2024, arXiv:2402.19446 (ArCHer). Differs: V learns from what was said in replay, weighted by how
much more probable it is now, where ArCHer lets the policy say something new in each state; that needs no
further talk, and is biased where ratios are truncated. Tokens of the actor have a clipped surrogate instead
of REINFORCE's, as they are learnt from more than once. There is no baseline per token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from turnwise.data.batch import Batch, pack_tokens, pack_turns, row_parts, turn_of_tokens
from turnwise.data.talk_replay import TalkReplay
from turnwise.data.tokens import Tokens
from turnwise.losses.kl import k1, k3, truncated_ratio
from turnwise.losses.policy import clipped_surrogate_loss
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions
from turnwise.losses.returns import td_targets
from turnwise.losses.value import squared_error
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.talk_actor import TurnActor
from turnwise.models.target import polyak_, slow_copy
from turnwise.rollout.live import LiveTalk
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, PART, POSITIVE, SHARE, check
from turnwise.run.errors import SettingError
from turnwise.run.learner import Learner
from turnwise.run.metrics import MOVING_TARGET, SQUARED_STD, STD, TALKS, Metric, added
from turnwise.run.optim import warmed_up
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of ArCHer."""

    talks: int = 20_000
    """Conversations that are held in all."""
    batch: int = 200
    """Conversations between updates of the actor."""
    replay: int = 10_000
    """Conversations that the critic learns from at most, the latest ones."""
    logged: float = 0.5
    """Share of a step of the critic that logged conversations have, if there are any. They stay, however many
    are held."""
    critic_updates: int = 12
    """Gradient steps of the critic for each batch of conversations."""
    critic_batch: int = 64
    """Conversations in a step of the critic."""
    critic_first: int = 5
    """Batches of conversations at first in which the critic alone learns."""
    epochs: int = 2
    """Passes of the actor over what was just talked."""
    minibatches: int = 4
    """Gradient steps of the actor per pass."""
    optimizer: AdamW = AdamW(lr=1e-3, warmup=0.02)
    """Settings of the optimizer. One for actor and critic, which take steps of their own."""
    gamma: float = 1.0
    """Discount per turn. Use 1 if agents are scored by undiscounted returns."""
    polyak: float = 0.05
    """Share of the weights that the slow copy takes on at each step of the critic."""
    most_ratio: float = 2.0
    """Largest importance ratio of an utterance in replay."""
    clip: float = 0.2
    """How far the ratio of a token may leave 1 before its gradient stops: smaller is slower and safer."""
    beta: float = 0.01
    """Weight of the KL to the policy that it began with, in the loss of the actor, per nat of a token by
    k3."""
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
            batch=ONE_OR_MORE,
            replay=ONE_OR_MORE,
            logged=SHARE,
            critic_updates=ONE_OR_MORE,
            critic_batch=ONE_OR_MORE,
            critic_first=NOT_NEGATIVE,
            epochs=ONE_OR_MORE,
            minibatches=ONE_OR_MORE,
            gamma=SHARE,
            polyak=PART,
            most_ratio=POSITIVE,
            clip=POSITIVE,
            beta=NOT_NEGATIVE,
            entropy_weight=NOT_NEGATIVE,
        )
        if self.minibatches > self.batch:
            most = f"at most the {self.batch} conversations between updates"
            raise SettingError("minibatches", self.minibatches, most)


METRICS: dict[str, Metric] = TALKS | {
    "td": Metric("TD loss of Q", SQUARED_STD, loss=True, about=MOVING_TARGET),
    "v_loss": Metric("weighted squared error of V", SQUARED_STD, loss=True, about=MOVING_TARGET),
    "q": Metric("mean Q in replay", STD, panel="Q and V"),
    "v": Metric("mean V in replay", STD, panel="Q and V"),
    "ratio": Metric("importance ratio of an utterance in replay"),
    "policy_loss": Metric("clipped surrogate", "per token", loss=True),
    "entropy": Metric("entropy of the policy", "nats per token"),
    "kl": Metric("KL(old policy, policy)", "nats per token"),
    "kl_begun": Metric("KL to the policy that it began with", "nats per conversation"),
    "clipped": Metric("share of clipped ratios"),
}


@dataclass(frozen=True)
class Replayed:
    """Conversations of the replay, with what the critic's loss needs."""

    batch: Batch
    """A decision per turn."""
    ratio: Tensor
    """[B, A], of each utterance, truncated."""


@torch.no_grad()
def replayed(policy: LmPolicy, rows: Sequence[Tokens], c: Config, device: torch.device) -> Replayed:
    """How much more probable each utterance is now than when it was said."""
    tokens, batch = pack_tokens(rows, gamma=c.gamma).to(device), pack_turns(rows, gamma=c.gamma).to(device)
    assert tokens.behavior_logp is not None
    # Of tokens and not of messages: one that the context cut short is no whole message, and has none.
    away = (policy.logp(tokens) - tokens.behavior_logp).masked_fill(~tokens.mask, 0.0)
    said = torch.zeros_like(batch.rewards).scatter_add(1, turn_of_tokens(rows).to(device), away)
    ratio = truncated_ratio(said, torch.zeros_like(said), c.most_ratio).masked_fill(~batch.mask, 0.0)
    return Replayed(batch, ratio)


@torch.no_grad()
def as_if_spoken(
    rows: Sequence[Tokens], reference: Reference, c: Config, device: torch.device
) -> list[Tokens]:
    """Logged conversations with log-probabilities of their tokens: those of the policy that it began with.

    That one was cloned from the agent that spoke, of whose tokens logs say nothing.
    """
    if not rows:
        return []
    logp = reference.logp(pack_tokens(rows, gamma=c.gamma).to(device)).cpu().double().numpy()  # [B, A]
    found = []
    for row, said in zip(rows, logp, strict=True):
        of_tokens = np.full(len(row), np.nan)
        of_tokens[row.decisions + 1] = said[: len(row.decisions)]
        found.append(replace(row, token_logp=of_tokens))
    return found


def drawn(
    replay: TalkReplay,
    logged: Sequence[Tokens],
    reference: Reference,
    c: Config,
    device: torch.device,
    rng: np.random.Generator,
) -> list[Tokens]:
    """`critic_batch` conversations of the replay and, in their share, of the logs."""
    of_logs = round(c.logged * c.critic_batch) if logged else 0
    own = replay.draw(c.critic_batch - of_logs, rng)
    places = rng.choice(len(logged), of_logs, replace=of_logs > len(logged)).tolist() if of_logs else []
    return [*own, *as_if_spoken([logged[i] for i in places], reference, c, device)]


def critic_loss(
    agent: nn.Module, target: nn.Module, m: Replayed, denominator: float, scale: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Both terms of the critic, in standard deviations of the return; and sums over turns."""
    b = m.batch
    q, v = agent(None, b)[1]  # [E, B, A], [B, A+1]
    with torch.no_grad():
        slow = target(b.inputs, b.decisions, b.ends)
        q_targets = td_targets(b.rewards / scale, b.discounts, slow.v[:, 1:])
        v_targets = slow.q.amin(0)
    terms = {
        "td": squared_error(q, q_targets).mean(0),
        "v_loss": m.ratio * squared_error(v[:, :-1], v_targets),
        "q": q.mean(0),
        "v": v[:, :-1],
        "ratio": m.ratio,
    }
    total = sum_over_decisions(terms["td"] + terms["v_loss"], b.loss_mask) / denominator
    return total, sums_over_decisions(terms, b.loss_mask)


@dataclass(frozen=True)
class Minibatch:
    """Conversations that were just held, with what the actor's loss needs and no update changes."""

    batch: Batch
    """A decision per token."""
    old_logp: Tensor
    """[B, A], of the policy that spoke, as recorded then."""
    ref_logp: Tensor
    """[B, A], of the policy that it began with."""
    advantages: Tensor
    """[B, A], of the utterance that each token is part of, standardised over the iteration's utterances."""


@torch.no_grad()
def experience(
    agent: nn.Module,
    reference: Reference,
    groups: Sequence[Sequence[Tokens]],
    c: Config,
    device: torch.device,
) -> list[Minibatch]:
    """min Q - V of each utterance, a minibatch for each group of conversations."""
    found, raw = [], []
    for rows in groups:
        turns, batch = pack_turns(rows, gamma=c.gamma).to(device), pack_tokens(rows, gamma=c.gamma).to(device)
        q, v = agent(None, turns)[1]
        advantages = q.amin(0) - v[:, :-1]  # [B, K]
        raw.append(advantages[turns.loss_mask])
        of_tokens = advantages.gather(1, turn_of_tokens(rows).to(device))
        assert batch.behavior_logp is not None
        found.append(Minibatch(batch, batch.behavior_logp, reference.logp(batch), of_tokens))
    every = torch.cat(raw)
    spread = every.std(correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    # min Q and V are learnt apart, and may be off each other by more than utterances differ. That offset is
    # one number: as a baseline it changes no expected gradient.
    return [Minibatch(**{**vars(m), "advantages": (m.advantages - every.mean()) / spread}) for m in found]


def loss(agent: nn.Module, m: Minibatch, denominator: float, c: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """Of the actor: the clipped surrogate with KL and entropy; and sums over tokens of what is logged."""
    out, _ = agent(m.batch, None)
    surrogate = clipped_surrogate_loss(out.logp, m.old_logp, m.advantages, c.clip)
    away = k3(out.logp, m.ref_logp)
    total = sum_over_decisions(surrogate + c.beta * away - c.entropy_weight * out.entropy, m.batch.loss_mask)
    log_ratio = (out.logp - m.old_logp).detach()
    terms = {
        "policy_loss": surrogate,
        "entropy": out.entropy,
        "kl": k3(m.old_logp, out.logp.detach()),
        "clipped": ((log_ratio.exp() - 1).abs() > c.clip).to(log_ratio.dtype),
    }
    return total / denominator, sums_over_decisions(terms, m.batch.loss_mask)


def update_critic(
    learner: Learner,
    draw: Callable[[np.random.Generator], list[Tokens]],
    agent: TurnActor,
    c: Config,
    lr: float,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """`critic_updates` steps on the conversations that `draw` gives; sums over turns."""
    sums: dict[str, Tensor] = {}

    def of_critic(m: Replayed) -> tuple[Tensor, dict[str, Tensor]]:
        return critic_loss(learner.wrapped, learner.target, m, float(c.critic_batch), agent.scale)

    for _ in range(c.critic_updates):
        drawn = replayed(agent.policy, draw(rng), c, learner.world.device)
        parts = row_parts(drawn, learner.through.at_once)
        sums = added(sums, learner.learn(parts, of_critic, lr=lr))
        polyak_(learner.target, agent.critic, c.polyak)
    return sums


def update(
    learner: Learner, minibatches: Sequence[Minibatch], c: Config, lr: float, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Of the actor: `epochs` passes over what was just talked; sums over tokens."""
    denominator = sum(len(m.batch.mask) for m in minibatches) / len(minibatches)
    sums: dict[str, Tensor] = {}
    for _ in range(c.epochs):
        for i in rng.permutation(len(minibatches)).tolist():
            parts = row_parts(minibatches[i], learner.through.at_once)
            part = learner.learn(parts, lambda m: loss(learner.wrapped, m, denominator, c), lr=lr)
            sums = added(sums, part)
    return sums


def new_agent(policy: LmPolicy) -> TurnActor:
    """What learns: the policy, and values of utterances on a copy of its trunk."""
    return TurnActor(policy)


def train(
    c: Config,
    talk: LiveTalk,
    agent: TurnActor,
    run: TrainingRun,
    seed: int,
    logged: Sequence[Tokens] = (),
) -> TurnActor:
    """Improve the policy of `agent` in place by its own conversations; the critic reads `logged` too."""
    reference = Reference(agent.policy.lm, run.world.place, run.world.splits)
    replay, target = TalkReplay(c.replay), slow_copy(agent.critic)
    learner = run.learner(agent, c.optimizer, target=target, experience=replay, speaks=agent.policy)
    draw = partial(drawn, replay, logged, reference, c, run.world.device)
    for step in run.steps(c.iterations, learner):
        held = talk.hold(learner.acting(), c.batch, (seed, step))
        run.count(left_out=held.left_out)
        if agent.begin_(torch.tensor(held.returns, dtype=torch.float32)):
            polyak_(target, agent.critic, 1.0)
        replay.add(held.rows)
        rng, lr = np.random.default_rng((seed, step, 1)), warmed_up(c.optimizer, step, c.iterations)
        of_critic = update_critic(learner, draw, agent, c, lr, rng)
        rows = [held.rows[i] for i in rng.permutation(len(held.rows))]
        groups = [rows[i :: c.minibatches] for i in range(min(c.minibatches, len(rows)))]
        minibatches = experience(learner.wrapped, reference, groups, c, run.world.device)
        of_actor = {} if step < c.critic_first else update(learner, minibatches, c, lr, rng)
        if run.due(step):
            begun = [k1(m.old_logp, m.ref_logp).masked_fill(~m.batch.mask, 0.0).sum(1) for m in minibatches]
            means = run.world.means(of_critic) | (run.world.means(of_actor) if of_actor else {})
            whole = {"talks": (step + 1) * c.batch, "kl_begun": torch.cat(begun).mean()}
            run.log(step, {**held.metrics(), **means, **whole})
    return agent
