"""Implicit language Q-learning (ILQL), per token. Snell et al. 2022, arXiv:2206.11871, section 4.

    L_Q   = sum_i (G_k - Q_i(s_k, a_k))^2,  G_k = r_k + d_k V(s_{k+1})     V: online head, no gradient
    L_V   = |tau_k - 1(u < 0)| u^2,  u = X_k - V(s_k)
    X_k   = min_i Qbar_i(s_m, a_m) d_k ... d_{m-1},  m: last token of k's turn   Qbar: slow copies, trunk too
    L_CQL = sum_i logsumexp Q_i(s_k, .) - Q_i(s_k, a_k)
    L     = L_Q + L_V + cql_weight L_CQL
    act: log pi + min(clip, beta (min_i Q_i - V)),  pi: frozen behaviour clone

s_{k+1} is the state of the agent's next token: what a partner says in between is environment.

Differs from the paper:
- V looks at what the whole utterance is worth (`lookahead` 1). With `lookahead` 0, X_k is the min Qbar of the
  token itself, as in the paper. Within a turn nothing happens that the agent does not choose, so the fixed
  point for tau near 1 is the same, but optimism is taken once a turn and not once a token: an expectile over
  noisy values is too high, and fifty of them in a row are far too high.
- tau_k is `tau` where a turn begins and `tau_within_turn` inside it.
- G_k begins as the logged return and becomes the one-step target over the first part of training (lambda
  falls from 1 to 0); through `discounts` it bootstraps after truncation and not after termination.
- The policy is cloned beforehand and kept in a model of its own, as LMRL-Gym does (arXiv:2311.18232). The
  critic's trunk starts from it, and its heads start as the mean return.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from turnwise.data.batch import Batch, pack_tokens
from turnwise.data.order import CRITIC_STEPS, BatchOrder, batch_size_for
from turnwise.data.rows import decision_counts, lengths
from turnwise.data.tokens import Tokens
from turnwise.losses.reduce import sum_over_decisions
from turnwise.losses.returns import discounted_returns, lambda_returns, next_of, previous_of
from turnwise.losses.value import conservative_loss, expectile_loss, squared_error
from turnwise.models.lm.critics import Estimand, TokenCritic, token_critic
from turnwise.models.target import polyak_, slow_copy
from turnwise.rollout.agent import Acting
from turnwise.run.checks import INSIDE, NOT_NEGATIVE, ONE_OR_MORE, PART, POSITIVE, SHARE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import CONSERVATIVE, MOVING_TARGET, SQUARED_STD, STD, Metric
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of ILQL."""

    epochs: float = 4.0
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
    tau: float = 0.95
    """Expectile of V where a turn begins: 0.5 values what the logged agent did, near 1 the best of it."""
    tau_within_turn: float = 0.8
    """Expectile of V between the tokens of a turn."""
    lookahead: float = 1.0
    """What V learns from within a turn. 1: the value of the whole utterance; 0: of the next token, as in the
    paper."""
    cql_weight: float = 0.01
    """Weight of the conservative term. More of it keeps Q of tokens that were not taken lower."""
    polyak: float = 0.05
    """Share of the weights that the slow copy takes on at each step."""
    anneal: float = 0.5
    """Share of training over which lambda falls from 1 (targets are logged returns) to 0 (one step)."""
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
            tau=INSIDE,
            tau_within_turn=INSIDE,
            lookahead=SHARE,
            cql_weight=NOT_NEGATIVE,
            q_rank=NOT_NEGATIVE,
            polyak=PART,
            anneal=SHARE,
            beta=NOT_NEGATIVE,
            adv_clip=NOT_NEGATIVE,
            top_k=ONE_OR_MORE,
        )


METRICS: dict[str, Metric] = {
    "td": Metric("TD loss", SQUARED_STD, loss=True, about=MOVING_TARGET),
    "expectile": Metric("expectile loss", SQUARED_STD, loss=True, about=MOVING_TARGET),
    "cql": Metric("CQL loss", "nats", loss=True, about=CONSERVATIVE),
    "q": Metric("mean Q", STD, panel="Q and V"),
    "v": Metric("mean V", STD, panel="Q and V"),
}


def new_critic(c: Config, trunk: nn.Module, tokens: Tensor, initial: float) -> TokenCritic:
    """Two Q heads and a V head on `trunk`; all begin at `initial`, the mean return of the logs.

    `tokens` [V, D] are the policy's embeddings, of as many features as the trunk gives.
    """
    return token_critic(trunk, tokens, 2, initial, c.q_rank)


def estimand(c: Config) -> Estimand:
    """Q and V predict what a better agent than the logged one would earn, unless `tau` is 0.5."""
    return Estimand(c.gamma, c.gamma_within_turn, improved=(c.tau, c.tau_within_turn) != (0.5, 0.5))


def acting(c: Config) -> Acting:
    """How the values shift the clone's log-probabilities when the agent speaks."""
    return Acting(beta=c.beta, adv_clip=c.adv_clip, top_k=c.top_k)


def loss(
    critic: nn.Module, target: TokenCritic, batch: Batch, denominator: float, c: Config, lam: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The three terms together; and their sums over decisions. `lam` is the lambda of G."""
    values = critic(batch.inputs, batch.decisions, batch.actions, batch.mask)
    q, v = values.q, values.v  # [E, B, A] of the tokens that were taken, [B, A+1]
    with torch.no_grad():  # targets: neither G nor X is moved towards what is fitted to it
        slow = target.q_of_actions(batch.inputs, batch.decisions, batch.actions).amin(0)  # [B, A]
        q_targets = lambda_returns(batch.rewards, batch.discounts, v[:, 1:], batch.loss_mask, lam)
        v_targets, taus = value_targets(batch, slow, c)
    sums = {
        "td": sum_over_decisions(squared_error(q, q_targets), batch.loss_mask),
        "expectile": sum_over_decisions(expectile_loss(v[:, :-1], v_targets, taus), batch.loss_mask),
        "cql": sum_over_decisions(conservative_loss(values.soft_max, q), batch.loss_mask),
        "q": sum_over_decisions(q, batch.loss_mask) / q.shape[0],
        "v": sum_over_decisions(v[:, :-1], batch.loss_mask),
        "decisions": batch.loss_mask.sum(),
    }
    return (sums["td"] + sums["expectile"] + c.cql_weight * sums["cql"]) / denominator, sums


def value_targets(batch: Batch, slow: Tensor, c: Config) -> tuple[Tensor, Tensor]:
    """Targets of V (X in the formulas above) [B, A]; and the expectile of them that V is to be, tau [B, A].

    `slow` [B, A] is min Qbar of the tokens that were taken. With w_k = `lookahead` if the next token is of
    the same turn and has a target of its own, else 0:

        X_k = (1 - w_k) slow_k + w_k d_k X_{k+1}

    Special cases: `lookahead` 0 is slow_k (the paper); 1 is slow of the turn's last token, discounted.
    """
    # The next token is of the same turn if it is chosen at the position where this one ends, that is, if
    # nobody spoke in between.
    same_turn = batch.decisions[:, 1:] == batch.ends  # [B, A]
    w = c.lookahead * (same_turn & next_of(batch.loss_mask)).to(slow.dtype)
    targets = discounted_returns((1 - w) * slow, w * batch.discounts, batch.loss_mask)
    return targets, torch.full_like(slow, c.tau).masked_fill(previous_of(same_turn), c.tau_within_turn)


def update(
    learner: Learner, batches: Sequence[Batch], denominator: float, c: Config, lr: float, lam: float
) -> dict[str, Tensor]:
    """One gradient step on all of the batches, then the slow copy follows; sums over decisions."""

    def part(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return loss(learner.wrapped, learner.target, batch, denominator, c, lam)

    sums = learner.learn(batches, part, lr=lr)
    polyak_(learner.target, learner.module, c.polyak)
    return sums


def train(
    c: Config,
    rows: Sequence[Tokens],
    heldout: Sequence[Tokens],
    critic: TokenCritic,
    run: TrainingRun,
    seed: int,
) -> TokenCritic:
    """Fit `critic` (two Q heads and V) in place."""
    target = slow_copy(critic)
    learner = run.learner(critic, c.optimizer, target=target, methods=["q_of_actions"])
    dtype = torch.promote_types(next(critic.parameters()).dtype, torch.float32)  # numbers, not weights
    order = BatchOrder(lengths(rows), c.batch_size or batch_size_for(len(rows), c.epochs, CRITIC_STEPS), seed)
    denominator = int(decision_counts(rows).sum()) / order.batches_per_epoch / run.world.size

    def pack(chosen: Sequence[Tokens]) -> Batch:
        packed = pack_tokens(chosen, gamma=c.gamma, gamma_within_turn=c.gamma_within_turn, dtype=dtype)
        return packed.to(run.world.device)

    def unseen(lam: float) -> Iterator[dict[str, Tensor]]:
        parts = run.through.chunks(heldout, lengths(heldout), order.batch_size)
        return (loss(learner.wrapped, target, pack(part), 1.0, c, lam)[1] for part in parts)

    for step, parts, lr in run.passes(rows, order, c.epochs, learner):
        # 1 at the first step, 0 from the share `anneal` of training on.
        lam = max(0.0, 1 - step / (c.anneal * run.total)) if c.anneal else 0.0
        sums = update(learner, [pack(part) for part in parts], denominator, c, lr, lam)
        # With the same lambda: the two TD losses are one quantity, on different conversations.
        run.report(step, sums, partial(unseen, lam))
    return critic
