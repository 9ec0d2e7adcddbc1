"""Monte-Carlo values per act: regress Q(h, a) on the return that followed, then choose what Q likes.

    L   = (Q(h_k, a_k) - G_k)^2 + (V(h_k) - G_k)^2 - log pi(a_k | h_k)
    G_k = r_k + d_k G_{k+1},  and V(h) of the final state in place of what followed a cut (no gradient)
    act: the best by Q among acts with pi(a | h) >= support max pi;
         or drawn from pi exp(beta (Q - V)) over these

One step of policy improvement over the logged agent, without bootstrapping but at a cut. G: Sutton & Barto
2018, eq. 3.9. The rule of support is discrete BCQ's (Fujimoto et al. 2019, arXiv:1910.01708, eq. 11).

Differs from `algorithms/logs/mc.py`, where a decision is a token: Q of all acts is at hand where the agent
chooses, and the policy is cloned in the same run, on a memory of its own. There is no conservative term: an
act of which the logs say too little is ruled out by its support.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from turnwise.data.acts.pack import pack_acts
from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.order import CRITIC_STEPS, MOST_TALKS, BatchOrder, batch_size_for, chunks
from turnwise.losses.policy import action_logp
from turnwise.losses.reduce import sum_over_decisions
from turnwise.losses.returns import lambda_returns
from turnwise.losses.value import action_values, squared_error
from turnwise.models.agents.act_critic import ActCritic, ActNetwork
from turnwise.models.agents.settings import MemorySpec
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, POSITIVE, SHARE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import MONTE_CARLO, SQUARED_STD, STD, Metric
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of Monte-Carlo values per act."""

    epochs: float = 10.0
    """Passes over the conversations."""
    batch_size: int | None = None
    """Conversations per step; none: 128, and down to 4 where they are few, for at least 500 steps."""
    optimizer: AdamW = AdamW(lr=2e-3, warmup=0.04)
    """Settings of the optimizer."""
    gamma: float = 1.0
    """Discount per turn. Use 1 if agents are scored by undiscounted returns."""
    beta: float | None = None
    """When acting: nats added to an act's log-probability by an advantage of one standard deviation of the
    return, and the act is drawn; none: the best act."""
    support: float = 0.1
    """When acting: an act is considered if the logged agent would choose it at least this often for each time
    that it would choose its likeliest one."""

    def __post_init__(self) -> None:
        check(self, epochs=POSITIVE, batch_size=ONE_OR_MORE, gamma=SHARE, beta=NOT_NEGATIVE, support=SHARE)


METRICS: dict[str, Metric] = {
    "loss": Metric("squared error of Q", SQUARED_STD, loss=True, about=MONTE_CARLO),
    "v_loss": Metric("squared error of V", SQUARED_STD, loss=True, about=MONTE_CARLO),
    "clone": Metric("cloning loss", "nats per act", loss=True),
    "q": Metric("mean Q", STD, panel="Q, V and return to go"),
    "v": Metric("mean V", STD, panel="Q, V and return to go"),
    "return_to_go": Metric("mean return to go", STD, panel="Q, V and return to go"),
}


def network(memory: MemorySpec, seen: int, acts: int) -> ActNetwork:
    """A clone, and beside it one head of Q and one of V."""
    return ActNetwork(memory, seen, acts, ensemble=1, v=True)


def improved(c: Config) -> bool:
    """Q and V predict what the logged agent went on to earn."""
    return False


def loss(critic: nn.Module, batch: Batch, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared errors against the return, and the clone; and the sums over decisions."""
    values = critic(batch)
    q_taken, v = action_values(values.q[0, :, :-1], batch.actions), values.v[:, :-1]  # [B, A]
    nll = -action_logp(values.logits[:, :-1], batch.actions)
    returns = lambda_returns(batch.rewards, batch.discounts, values.v[:, 1:].detach(), batch.loss_mask, 1.0)
    sums = {
        "loss": sum_over_decisions(squared_error(q_taken, returns), batch.loss_mask),
        "v_loss": sum_over_decisions(squared_error(v, returns), batch.loss_mask),
        "clone": sum_over_decisions(nll, batch.loss_mask),
        "q": sum_over_decisions(q_taken, batch.loss_mask),
        "v": sum_over_decisions(v, batch.loss_mask),
        "return_to_go": sum_over_decisions(returns, batch.loss_mask),
        "decisions": batch.loss_mask.sum(),
    }
    return (sums["loss"] + sums["v_loss"] + sums["clone"]) / denominator, sums


def update(learner: Learner, batch: Batch, denominator: float, lr: float) -> dict[str, Tensor]:
    """One gradient step; sums over decisions."""
    total, sums = loss(learner.wrapped, batch, denominator)
    learner.descend(total, lr=lr)
    return sums


def train(
    c: Config,
    rows: Sequence[Episode],
    heldout: Sequence[Episode],
    critic: ActCritic,
    run: TrainingRun,
    seed: int,
) -> ActCritic:
    """Fit `critic` (a clone, one Q head and V) in place."""
    learner = run.learner(critic, c.optimizer)
    size = c.batch_size or batch_size_for(len(rows), c.epochs, CRITIC_STEPS, MOST_TALKS)
    order = BatchOrder([len(e) for e in rows], size, seed)
    denominator = sum(len(e) for e in rows) / order.batches_per_epoch

    def pack(chosen: Sequence[Episode]) -> Batch:
        return pack_acts(chosen, gamma=c.gamma).to(run.world.device)

    def unseen() -> Iterator[dict[str, Tensor]]:
        return (loss(critic, pack(part), 1.0)[1] for part in chunks(heldout, size))

    for step, (chosen,), lr in run.passes(rows, order, c.epochs, learner):
        sums = update(learner, pack(chosen), denominator, lr)
        run.report(step, sums, unseen)
    return critic
