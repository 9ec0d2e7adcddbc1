"""Conservative Q-learning per act; at weight 0, double Q-learning on histories of acts.

    L_Q  = (r_k + d_k Qbar(h_{k+1}, a*) - Q(h_k, a_k))^2,  a* = argmax_a Q(h_{k+1}, a)   Qbar: slow copy
    L_C  = logsumexp Q(h_k, .) - Q(h_k, a_k)
    L_pi = -log pi(a_k | h_k)
    L    = L_Q + cql_weight L_C + L_pi
    act: the best by Q among acts with pi(a | h) >= support max pi; or drawn from pi exp(beta (Q - V)) over
         these, with V = max_a Q

CQL(H): Kumar et al. 2020, arXiv:2006.04779, eq. 4. Double Q-learning with a target network: van Hasselt et
al. 2016, arXiv:1509.06461, eq. 4. h_k is the talk so far as acts and answers, read by a memory, so that the
maximum is over what can be meant next, with everything that was heard.

Differs from the papers: the policy is cloned in the same run, on a memory of its own, and rules out acts of
too little support where the agent acts, as discrete BCQ does (Fujimoto et al. 2019, arXiv:1910.01708, eq.
11). The squared error has no factor 1/2, so that half of their weight here is as much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from turnwise.data.acts.pack import pack_acts
from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.order import CRITIC_STEPS, MOST_TALKS, BatchOrder, batch_size_for, chunks
from turnwise.losses.policy import action_logp
from turnwise.losses.reduce import sum_over_decisions
from turnwise.losses.returns import td_targets
from turnwise.losses.value import action_values, cql_loss, squared_error
from turnwise.models.agents.act_critic import ActCritic, ActNetwork
from turnwise.models.agents.settings import MemorySpec
from turnwise.models.target import polyak_, slow_copy
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, PART, POSITIVE, SHARE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import CONSERVATIVE, MOVING_TARGET, SQUARED_STD, STD, Metric
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of conservative Q-learning per act."""

    epochs: float = 20.0
    """Passes over the conversations."""
    batch_size: int | None = None
    """Conversations per step; none: 128, and down to 4 where they are few, for at least 500 steps."""
    optimizer: AdamW = AdamW(lr=2e-3, warmup=0.04)
    """Settings of the optimizer."""
    gamma: float = 1.0
    """Discount per turn. Use 1 if agents are scored by undiscounted returns."""
    cql_weight: float = 0.01
    """Weight of the conservative term. More of it keeps Q of acts that were not taken lower; 0 is double
    Q-learning."""
    polyak: float = 0.05
    """Share of the weights that the slow copy takes on at each step."""
    beta: float | None = None
    """When acting: nats added to an act's log-probability by an advantage of one standard deviation of the
    return, and the act is drawn; none: the best act."""
    support: float = 0.1
    """When acting: an act is considered if the logged agent would choose it at least this often for each time
    that it would choose its likeliest one."""

    def __post_init__(self) -> None:
        check(
            self,
            epochs=POSITIVE,
            batch_size=ONE_OR_MORE,
            gamma=SHARE,
            cql_weight=NOT_NEGATIVE,
            polyak=PART,
            beta=NOT_NEGATIVE,
            support=SHARE,
        )


METRICS: dict[str, Metric] = {
    "td": Metric("TD loss", SQUARED_STD, loss=True, about=MOVING_TARGET),
    "cql": Metric("CQL loss", "nats", loss=True, about=CONSERVATIVE),
    "clone": Metric("cloning loss", "nats per act", loss=True),
    "q": Metric("mean Q", STD, panel="Q and V"),
    "v": Metric("mean of the highest Q", STD, panel="Q and V"),
}


def network(memory: MemorySpec, seen: int, acts: int) -> ActNetwork:
    """A clone, and beside it one head of Q."""
    return ActNetwork(memory, seen, acts, ensemble=1, v=False)


def improved(c: Config) -> bool:
    """Q predicts what the best agent would earn."""
    return True


def loss(
    critic: nn.Module, target: ActCritic, batch: Batch, denominator: float, c: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """The three terms together; and their sums over decisions."""
    values = critic(batch)
    q = values.q[0]  # [B, A+1, V]
    q_taken = action_values(q[:, :-1], batch.actions)  # [B, A]
    with torch.no_grad():
        next_values = action_values(target.q_of(batch)[0, :, 1:], q[:, 1:].argmax(-1))
        targets = td_targets(batch.rewards, batch.discounts, next_values)
    nll = -action_logp(values.logits[:, :-1], batch.actions)
    sums = {
        "td": sum_over_decisions(squared_error(q_taken, targets), batch.loss_mask),
        "cql": sum_over_decisions(cql_loss(q[:, :-1], batch.actions), batch.loss_mask),
        "clone": sum_over_decisions(nll, batch.loss_mask),
        "q": sum_over_decisions(q_taken, batch.loss_mask),
        "v": sum_over_decisions(values.v[:, :-1], batch.loss_mask),
        "decisions": batch.loss_mask.sum(),
    }
    return (sums["td"] + c.cql_weight * sums["cql"] + sums["clone"]) / denominator, sums


def update(learner: Learner, batch: Batch, denominator: float, c: Config, lr: float) -> dict[str, Tensor]:
    """One gradient step, and the slow copy a little after it; sums over decisions."""
    total, sums = loss(learner.wrapped, learner.target, batch, denominator, c)
    learner.descend(total, lr=lr)
    polyak_(learner.target, learner.module, c.polyak)
    return sums


def train(
    c: Config,
    rows: Sequence[Episode],
    heldout: Sequence[Episode],
    critic: ActCritic,
    run: TrainingRun,
    seed: int,
) -> ActCritic:
    """Fit `critic` (a clone and one Q head) in place."""
    target = slow_copy(critic)
    learner = run.learner(critic, c.optimizer, target=target)
    size = c.batch_size or batch_size_for(len(rows), c.epochs, CRITIC_STEPS, MOST_TALKS)
    order = BatchOrder([len(e) for e in rows], size, seed)
    denominator = sum(len(e) for e in rows) / order.batches_per_epoch

    def pack(chosen: Sequence[Episode]) -> Batch:
        return pack_acts(chosen, gamma=c.gamma).to(run.world.device)

    def unseen() -> Iterator[dict[str, Tensor]]:
        return (loss(critic, target, pack(part), 1.0, c)[1] for part in chunks(heldout, size))

    for step, (chosen,), lr in run.passes(rows, order, c.epochs, learner):
        sums = update(learner, pack(chosen), denominator, c, lr)
        run.report(step, sums, unseen)
    return critic
