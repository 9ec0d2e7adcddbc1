"""Fitted Q evaluation per act: what another policy would earn, from logged talk alone.

    L   = (G_k - Q(h_k, a_k))^2                                     G: no gradient
    G_k = r_k + d_k ((1 - lambda) V(h_{k+1}) + lambda G_{k+1})
    V(h) = sum_a pi(a | h) Qbar(h, a)                               Qbar: slow copy, memory too

Le et al. 2019, arXiv:1903.08738, algorithm 3. pi is the *target*, whose value is asked for, given as
probabilities of all acts at every decision: the expectation over acts is exact. Nothing is improved: the
policy stays what it is. h_k is the talk so far as acts and answers, read by a memory beside which a clock
counts the turns. Through `discounts` it bootstraps after truncation and not after termination.

Differs from the paper:
- The target network follows slowly, at every step, where the paper solves one regression after the other.
- G begins as the logged return (lambda 1) and is the paper's one-step target (lambda 0) from the share
  `anneal` of training on: values of long talks need not travel back a turn at a time from nothing.
- The number of steps is settled beforehand. A held-out TD error is a distance to the network's own moving
  target: it is least where Q is a constant, and stopping where it is low would choose values, not find them.

With tables in place of the network: `evaluation/estimates/fitted_q.py`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from turnwise.data.acts.pack import pack_acts
from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.order import CRITIC_STEPS, MOST_TALKS, BatchOrder, batch_size_for, chunks
from turnwise.evaluation.estimates.fitted_q import Played, Values
from turnwise.losses.reduce import sum_over_decisions
from turnwise.losses.returns import lambda_returns
from turnwise.losses.value import action_values, squared_error
from turnwise.models.agents.act_critic import ActQ, act_q_of
from turnwise.models.agents.settings import MemorySpec
from turnwise.models.target import polyak_, slow_copy
from turnwise.run.checks import ONE_OR_MORE, PART, POSITIVE, SHARE, check
from turnwise.run.learner import Learner
from turnwise.run.metrics import MOVING_TARGET, SQUARED_STD, STD, Metric
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Config:
    """Numbers of fitted Q evaluation per act."""

    epochs: float = 10.0
    """Passes over the conversations."""
    batch_size: int | None = None
    """Conversations per step; none: 128, and down to 4 where they are few, for at least 500 steps."""
    optimizer: AdamW = AdamW(lr=2e-3, warmup=0.04)
    """Settings of the optimizer."""
    gamma: float = 1.0
    """Discount per turn. Use 1 if policies are compared by undiscounted returns."""
    polyak: float = 0.05
    """Share of the weights that the slow copy takes on at each step."""
    anneal: float = 0.5
    """Share of training over which lambda falls from 1 (targets are logged returns) to 0 (one step)."""

    def __post_init__(self) -> None:
        check(self, epochs=POSITIVE, batch_size=ONE_OR_MORE, gamma=SHARE, polyak=PART, anneal=SHARE)


METRICS: dict[str, Metric] = {
    "td": Metric("TD loss", SQUARED_STD, loss=True, about=MOVING_TARGET),
    "q": Metric("mean Q", STD, panel="Q and V"),
    "v": Metric("mean V of the target", STD, panel="Q and V"),
}


class Row(NamedTuple):
    """A conversation of n acts, and what the target would do in it."""

    episode: Episode
    target: np.ndarray
    """[n+1, K], probability of each act at every decision and in the final state"""


class Packed(NamedTuple):
    """Rows side by side: conversations, and the target's probabilities [B, A+1, K], 0 behind the end."""

    batch: Batch
    target: Tensor


def loss(
    q: nn.Module, slow: nn.Module, packed: Packed, denominator: float, lam: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The squared TD error; and the sums over decisions. `lam` is the lambda of G."""
    batch, target = packed
    taken = action_values(q(batch)[:, :-1], batch.actions)  # [B, A]
    with torch.no_grad():
        v = (target * slow(batch)).sum(-1)  # [B, A+1]
        goals = lambda_returns(batch.rewards, batch.discounts, v[:, 1:], batch.loss_mask, lam)
    sums = {
        "td": sum_over_decisions(squared_error(taken, goals), batch.loss_mask),
        "q": sum_over_decisions(taken, batch.loss_mask),
        "v": sum_over_decisions(v[:, :-1], batch.loss_mask),
        "decisions": batch.loss_mask.sum(),
    }
    return sums["td"] / denominator, sums


def update(
    learner: Learner, packed: Packed, denominator: float, c: Config, lr: float, lam: float
) -> dict[str, Tensor]:
    """One gradient step, and the slow copy a little after it; sums over decisions."""
    total, sums = loss(learner.wrapped, learner.target, packed, denominator, lam)
    learner.descend(total, lr=lr)
    polyak_(learner.target, learner.module, c.polyak)
    return sums


def train(
    c: Config, rows: Sequence[Row], heldout: Sequence[Row], q: ActQ, run: TrainingRun, seed: int
) -> ActQ:
    """Fit `q` in place, in the unit of the rewards of `rows`."""
    slow = slow_copy(q)
    learner = run.learner(q, c.optimizer, target=slow)
    size = c.batch_size or batch_size_for(len(rows), c.epochs, CRITIC_STEPS, MOST_TALKS)
    order = BatchOrder([len(row.episode) for row in rows], size, seed)
    denominator = sum(len(row.episode) for row in rows) / order.batches_per_epoch

    def packed(chosen: Sequence[Row]) -> Packed:
        batch, target = pack(chosen, c.gamma)
        return Packed(batch.to(run.world.device), target.to(run.world.device))

    def unseen(lam: float) -> Iterator[dict[str, Tensor]]:
        return (loss(q, slow, packed(part), 1.0, lam)[1] for part in chunks(heldout, size))

    for step, (chosen,), lr in run.passes(rows, order, c.epochs, learner):
        # 1 at the first step, 0 from the share `anneal` of training on.
        lam = max(0.0, 1 - step / (c.anneal * run.total)) if c.anneal else 0.0
        sums = update(learner, packed(chosen), denominator, c, lr, lam)
        run.report(step, sums, partial(unseen, lam))
    return q


def pack(rows: Sequence[Row], gamma: float, dtype: torch.dtype = torch.float32) -> Packed:
    """Rows of conversations with their target's probabilities."""
    batch = pack_acts([row.episode for row in rows], gamma=gamma, dtype=dtype)
    B, A = batch.mask.shape
    target = np.zeros((B, A + 1, rows[0].target.shape[1]))
    for b, (e, p) in enumerate(rows):
        # Nothing is chosen after a true end, or after what was never logged: any numbers may stand there.
        n = len(e) + int(not e.terminated and e.next_known)
        target[b, :n] = p[:n]
    return Packed(batch, torch.as_tensor(target, dtype=dtype))


@dataclass(frozen=True)
class FittedQ:
    """A network's Q under a target, in the units of the task."""

    network: ActQ
    gamma: float

    def q(self, episodes: Sequence[Episode], at_once: int = 512) -> Float[np.ndarray, "B A1 K"]:
        """Q of every act at every decision and in the final state; behind the end the final state's."""
        width = max(len(e) for e in episodes)
        found = []
        with torch.no_grad():
            for part in chunks(episodes, at_once):
                values = self.network(pack_acts(part, gamma=self.gamma)).double().numpy()
                missing = width + 1 - values.shape[1]
                found.append(np.pad(values, ((0, 0), (0, missing), (0, 0)), mode="edge"))
        return np.concatenate(found)

    def values(self, rows: Sequence[Row]) -> Values:
        """Values of conversations, which may be others than those of the fit."""
        return played(rows).valued(self.q([row.episode for row in rows]), self.gamma)


def fit(
    c: Config,
    rows: Sequence[Row],
    seen: int,
    acts: int,
    *,
    memory: MemorySpec | None = None,
    heldout: Sequence[Row] = (),
    seed: int = 0,
    run: TrainingRun | None = None,
    quiet: bool = True,
) -> FittedQ:
    """Fit a fresh network on `rows`, of `seen` symbols and `acts` acts.

    It learns in standard deviations of the return, so that the unit of the rewards changes no step. `run`
    None: one whose folder does not stay, with progress shown unless `quiet`. PyTorch's global generator is
    the caller's again afterwards.
    """
    played([*rows, *heldout])  # refuses rows that are none
    earned = np.array([row.episode.rewards @ c.gamma ** np.arange(len(row.episode)) for row in rows])
    std = float(earned.std())
    if std <= 1e-9 * np.abs(earned).max():
        std = 1.0  # all alike, but for rounding: any unit does
    scaled, apart = ([_divided(row, std) for row in part] for part in (rows, heldout))
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        turns = max(len(row.episode) for row in rows)
        network = act_q_of(
            memory or MemorySpec(), seen, acts, turns=turns, initial=float(earned.mean()) / std
        )
        never = 2**62  # nothing resumes what is forgotten when it ends
        run = run or TrainingRun(Path(folder), what="fitted Q", checkpoint_every=never, quiet=quiet)
        with run:
            train(c, scaled, apart, network, run, seed)
    network.cpu().eval().head.scale_(std)
    return FittedQ(network, c.gamma)


def played(rows: Sequence[Row]) -> Played:
    """The rows as arrays; ValueError for probabilities that are none."""
    B, A = len(rows), max(len(row.episode) for row in rows)
    K = max(row.target.shape[-1] for row in rows)
    acts, rewards, mask = np.zeros((B, A), np.int64), np.zeros((B, A)), np.zeros((B, A), bool)
    target = np.zeros((B, A + 1, K))
    for b, (e, p) in enumerate(rows):
        n = len(e)
        if p.shape != (n + 1, K):
            raise ValueError(f"target of conversation {b} has shape {p.shape}; expected {(n + 1, K)}")
        acts[b, :n], rewards[b, :n], mask[b, :n], target[b, : n + 1] = e.actions, e.rewards, True, p
    ended = np.array([row.episode.terminated for row in rows])
    known = np.array([row.episode.next_known or row.episode.terminated for row in rows])
    return Played(acts, rewards, mask, target, ended, known)


def _divided(row: Row, by: float) -> Row:
    return Row(replace(row.episode, rewards=row.episode.rewards / by), row.target)
