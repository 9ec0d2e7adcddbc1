"""Monte-Carlo values per token: regress Q(s, a) on the return that followed, then prefer what Q likes.

    L = (Q(s_k, a_k) - G_k)^2 + (V(s_k) - G_k)^2 + cql_weight (logsumexp Q(s_k, .) - Q(s_k, a_k))
    act: log pi + beta (Q - V)

The honest baseline of value-based RL for language: one step of policy improvement over the logged agent,
without bootstrapping (LMRL-Gym, Abdulhai et al. 2023, arXiv:2311.18232, "MC returns"; G from Sutton & Barto
2018, eq. 3.9).

Differs from LMRL-Gym: the advantage is added to the policy's logits, and not Q. Without `adv_clip` this is
the same distribution, as V is the same for all tokens. V is a head of its own, fitted to the same returns.
The mean of Q under the policy is no such V: the conservative term holds Q of tokens down that were not logged
at a state, so that most logged tokens would look better than the state they were chosen in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from turnwise.data.batch import Batch, pack_tokens
from turnwise.data.order import CRITIC_STEPS, BatchOrder, batch_size_for
from turnwise.data.rows import ChangedRows, continues, decision_counts, lengths
from turnwise.data.tokens import Tokens
from turnwise.losses.reduce import sum_over_decisions
from turnwise.losses.returns import discounted_returns
from turnwise.losses.value import conservative_loss, squared_error
from turnwise.models.lm.critics import Estimand, TokenCritic, token_critic
from turnwise.rollout.agent import Acting
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, SHARE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import CONSERVATIVE, MONTE_CARLO, SQUARED_STD, STD, Metric
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of Monte-Carlo value learning."""

    epochs: float = 3.0
    """Passes over the conversations."""
    batch_size: int | None = None
    """Conversations (or segments of long ones) per step, over all processes; none: 32, and down to 4 where
    they are few, for at least 500 steps."""
    optimizer: AdamW = AdamW(lr=1e-3, warmup=0.04)
    """Settings of the optimizer."""
    gamma: float = 1.0
    """Discount per turn. Use 1 if agents are scored by undiscounted returns."""
    gamma_within_turn: float = 1.0
    """Discount between two tokens of a turn. After a hundred tokens .99 has become .37."""
    cql_weight: float = 0.01
    """Weight of the conservative term. More of it keeps Q of tokens that were not taken lower."""
    beta: float = 14.0
    """When acting: nats added to a token's log-probability by an advantage of one standard deviation of the
    return. Larger values stray further from the logged agent."""
    adv_clip: float | None = None
    """When acting: largest such gain, in nats. At 0 no token gains; bad ones still lose."""
    top_k: int | None = None
    """When acting: choose among the k tokens that the cloned policy finds likeliest."""
    q_rank: int | None = None
    """Directions by which Q tells tokens apart; 0: weights of each token's own; none: 0 up to a vocabulary of
    4,096 tokens, and 64 beyond, where Q would cost as much as the trunk."""

    def __post_init__(self) -> None:
        check(
            self,
            epochs=POSITIVE,
            batch_size=ONE_OR_MORE,
            gamma=SHARE,
            gamma_within_turn=SHARE,
            cql_weight=NOT_NEGATIVE,
            q_rank=NOT_NEGATIVE,
            beta=NOT_NEGATIVE,
            adv_clip=NOT_NEGATIVE,
            top_k=ONE_OR_MORE,
        )


METRICS: dict[str, Metric] = {
    "loss": Metric("squared error of Q", SQUARED_STD, loss=True, about=MONTE_CARLO),
    "v_loss": Metric("squared error of V", SQUARED_STD, loss=True, about=MONTE_CARLO),
    "cql": Metric("CQL loss", "nats", loss=True, about=CONSERVATIVE),
    "q": Metric("mean Q", STD, panel="Q, V and return to go"),
    "v": Metric("mean V", STD, panel="Q, V and return to go"),
    "return_to_go": Metric("mean return to go", STD, panel="Q, V and return to go"),
}


def new_critic(c: Config, trunk: nn.Module, tokens: Tensor, initial: float) -> TokenCritic:
    """One Q head and a V head on `trunk`; both begin at `initial`, the mean return of the logs.

    `tokens` [V, D] are the policy's embeddings, of as many features as the trunk gives.
    """
    return token_critic(trunk, tokens, 1, initial, c.q_rank)


def estimand(c: Config) -> Estimand:
    """Q and V predict what the logged agent went on to earn."""
    return Estimand(c.gamma, c.gamma_within_turn)


def acting(c: Config) -> Acting:
    """How the values shift the clone's log-probabilities when the agent speaks."""
    return Acting(beta=c.beta, adv_clip=c.adv_clip, top_k=c.top_k)


def whole_returns(rows: Sequence[Tokens], gamma: float, gamma_within_turn: float) -> Sequence[Tokens]:
    """Rows in which the last reward before a cut contains what the conversation earned after it.

    Segments of one conversation are neighbours. Monte-Carlo returns do not bootstrap: across a cut the return
    is the logged one, so that a row with that return in it counts as ended.
    """
    cut = np.flatnonzero(continues(rows)[:-1])
    after: dict[int, float] = {}  # what the conversation earned after each row that is cut

    def whole(i: int, row: Tokens) -> Tokens:
        if not row.continues or i == len(rows) - 1:
            return row
        last = int(row.decisions[-1]) + 1  # position of the last token chosen, which carries the reward
        rewards = row.rewards.copy()
        rewards[last] += (gamma if row.turn_end[last] else gamma_within_turn) * after[i]
        return replace(row, rewards=rewards, terminated=True)

    for i in map(int, cut[::-1]):  # from the last segment on: what follows is whole already
        following = whole(i + 1, rows[i + 1])
        batch = pack_tokens(
            [following], gamma=gamma, gamma_within_turn=gamma_within_turn, dtype=torch.float64
        )
        returns = discounted_returns(batch.rewards, batch.discounts, batch.mask)[0]  # [A]
        # The next segment begins with burn-in, decisions of this one; its own begin at `learn_from`.
        after[i] = float(returns[np.searchsorted(following.decisions, following.learn_from)])
    return ChangedRows(rows, whole)


def loss(critic: nn.Module, batch: Batch, denominator: float, c: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared errors against the return, plus the conservative term; and the sums over decisions."""
    values = critic(batch.inputs, batch.decisions, batch.actions, batch.mask)
    q, v = values.q, values.v[:, :-1]  # [E, B, A] of the tokens that were taken, with E = 1; [B, A]
    returns = discounted_returns(batch.rewards, batch.discounts, batch.mask)  # [B, A]
    sums = {
        "loss": sum_over_decisions(squared_error(q, returns), batch.loss_mask),
        "v_loss": sum_over_decisions(squared_error(v, returns), batch.loss_mask),
        "cql": sum_over_decisions(conservative_loss(values.soft_max, q), batch.loss_mask),
        "q": sum_over_decisions(q, batch.loss_mask) / q.shape[0],
        "v": sum_over_decisions(v, batch.loss_mask),
        "return_to_go": sum_over_decisions(returns, batch.loss_mask),
        "decisions": batch.loss_mask.sum(),
    }
    return (sums["loss"] + sums["v_loss"] + c.cql_weight * sums["cql"]) / denominator, sums


def update(
    learner: Learner, batches: Sequence[Batch], denominator: float, c: Config, lr: float
) -> dict[str, Tensor]:
    """One gradient step on all of the batches; sums over decisions."""
    return learner.learn(batches, lambda batch: loss(learner.wrapped, batch, denominator, c), lr=lr)


def train(
    c: Config,
    rows: Sequence[Tokens],
    heldout: Sequence[Tokens],
    critic: TokenCritic,
    run: TrainingRun,
    seed: int,
) -> TokenCritic:
    """Fit `critic` (one Q head and V) in place."""
    learner = run.learner(critic, c.optimizer)
    dtype = torch.promote_types(next(critic.parameters()).dtype, torch.float32)  # numbers, not weights
    rows, heldout = (whole_returns(x, c.gamma, c.gamma_within_turn) for x in (rows, heldout))
    order = BatchOrder(lengths(rows), c.batch_size or batch_size_for(len(rows), c.epochs, CRITIC_STEPS), seed)
    denominator = int(decision_counts(rows).sum()) / order.batches_per_epoch / run.world.size

    def pack(chosen: Sequence[Tokens]) -> Batch:
        packed = pack_tokens(chosen, gamma=c.gamma, gamma_within_turn=c.gamma_within_turn, dtype=dtype)
        return packed.to(run.world.device)

    def unseen() -> Iterator[dict[str, Tensor]]:
        parts = run.through.chunks(heldout, lengths(heldout), order.batch_size)
        return (loss(learner.wrapped, pack(part), 1.0, c)[1] for part in parts)

    for step, parts, lr in run.passes(rows, order, c.epochs, learner):
        sums = update(learner, [pack(part) for part in parts], denominator, c, lr)
        run.report(step, sums, unseen)
    return critic
