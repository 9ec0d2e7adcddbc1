"""A recurrent network that predicts what is seen next: what a learnt model of hidden states stands beside.

    p(o_k, whether the episode ends with it | first, a_1, o_1, ..., a_k)

It has no states that anybody could read or plan in, and it may count turns and remember everything. If it
predicts held-out episodes better than a model of hidden states, the model misses something that is there.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from turnwise.data.acts.pack import ActSymbols, pack_acts
from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.order import MOST_TALKS, BatchOrder, batch_size_for, chunks
from turnwise.envs.protocol import Discrete
from turnwise.evaluation.measures.intervals import widened
from turnwise.exact.learning.sequences import Sequences
from turnwise.losses.policy import action_logp
from turnwise.losses.reduce import sum_over_decisions
from turnwise.models.agents.settings import MemorySpec
from turnwise.models.agents.spec import Spaces, memory_of
from turnwise.models.decisions import at_decisions
from turnwise.run.optim import optimizer_of, warmed_up
from turnwise.run.progress import Progress
from turnwise.run.settings import AdamW

EPOCHS, STEPS = 20, 300
"""passes over the episodes, and steps of all of them at least"""
APART = 0.1
"""share of the episodes that decide after which pass it has learnt enough"""
OPTIMIZER, DRAWS = AdamW(lr=5e-3, warmup=0.04, weight_decay=0.01), 2000


class NextAnswer(nn.Module):
    """A memory of what was done and seen, and from it and the next act the logits of what will be seen."""

    def __init__(self, symbols: ActSymbols, width: int):
        super().__init__()
        spaces = Spaces(Discrete(symbols.seen), Discrete(symbols.acts), None)
        self.memory = memory_of(MemorySpec("gru", width), spaces)
        self.act = nn.Embedding(symbols.acts, width)
        self.head = nn.Sequential(
            nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 2 * symbols.answers)
        )
        self.answers = symbols.answers

    def forward(self, batch: Batch) -> Tensor:
        """[B, A], ln p of what followed each act: an answer with which the episode goes on, or ends."""
        before = at_decisions(self.memory.unroll(batch.inputs, batch.state0), batch.decisions)[:, :-1]
        logits = self.head(torch.cat([before, self.act(batch.actions)], -1))  # [B, A, 2 O]
        after = batch.inputs.observation.gather(1, batch.decisions[:, 1:])  # [B, A]
        # At padding an opening stands there, perhaps: any symbol will do, as it is masked.
        seen = after.clamp(max=self.answers - 1) + self.answers * (batch.discounts == 0)
        return action_logp(logits, seen)


def recurrent_log_likelihoods(
    learnt: Sequences, held: Sequences, *, width: int = 32, seed: int = 0, quiet: bool = True
) -> np.ndarray:
    """[N], ln p(first observation, observations, ends | actions) of each held-out episode, in nats.

    The same events as `LearntModel.log_likelihoods`. The network learns from `learnt` alone, until it
    predicts a tenth of it, kept apart, no better; first observations are told by how often they were there.
    """
    symbols = ActSymbols(learnt.action_symbols, learnt.observation_symbols, learnt.first_symbols)
    counts = 1.0 + np.bincount(learnt.firsts, minlength=learnt.first_symbols)  # Laplace's rule
    firsts = np.log(counts / counts.sum())[held.firsts]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = NextAnswer(symbols, width)
        episodes = episodes_of(learnt, symbols)
        apart = np.random.default_rng(seed).permutation(len(episodes))
        stop = max(1, round(APART * len(episodes)))
        rows, few = [episodes[i] for i in apart[stop:]], [episodes[i] for i in apart[:stop]]
        learn_to_predict(net, rows, few, seed, what="next answers", quiet=quiet)
    return firsts + _totals(net, episodes_of(held, symbols))


def episodes_of(sequences: Sequences, symbols: ActSymbols) -> list[Episode]:
    """Sequences as episodes; rewards are 0, since nothing is learnt from them here."""
    found = []
    for i in range(len(sequences)):
        here = slice(int(sequences.offsets[i]), int(sequences.offsets[i + 1]))
        seen = symbols.observations(int(sequences.firsts[i]), sequences.observations[here])
        actions, ended = sequences.actions[here].astype(np.int64), bool(sequences.ended[i])
        found.append(Episode(seen, actions, np.zeros(len(actions)), ended, not ended))
    return found


def nats_per_symbol(
    log_likelihoods: np.ndarray, lengths: np.ndarray, rng: np.random.Generator
) -> dict[str, float]:
    """`value`, `low`, `high`: minus the sum of [N] log-likelihoods by the steps of all N episodes.

    The 95% interval is by bootstrap over episodes, so that long ones count with all their steps. ValueError
    for fewer than two episodes.
    """
    n = len(lengths)
    if n < 2:
        raise ValueError(f"{n} episodes; expected two or more")
    draws = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS)
    value = float(-log_likelihoods.sum() / lengths.sum())
    resampled = -(draws @ log_likelihoods) / (draws @ lengths)
    low, high = widened(np.quantile(resampled, (0.025, 0.975)), value, n)
    return {"value": value, "low": low, "high": high}


def learn_to_predict(
    net: nn.Module, rows: Sequence[Episode], apart: Sequence[Episode], seed: int, *, what: str, quiet: bool
) -> None:
    """Fit `net`, and leave it as it was after the pass that predicted `apart` best.

    It gives ln p [B, A] of what is to be predicted at each decision of a batch. `what`: what people see.
    """
    rows = rows or apart  # one episode is all there is
    size = batch_size_for(len(rows), EPOCHS, STEPS, MOST_TALKS)
    order = BatchOrder([len(e) for e in rows], size, seed)
    optimizer, steps = optimizer_of(net, OPTIMIZER), EPOCHS * order.batches_per_epoch
    best, kept = -np.inf, copy.deepcopy(net.state_dict())
    with Progress(what, EPOCHS, quiet=quiet) as bar:
        for epoch in range(EPOCHS):
            for step in range(epoch * order.batches_per_epoch, (epoch + 1) * order.batches_per_epoch):
                for group in optimizer.param_groups:
                    group["lr"] = warmed_up(OPTIMIZER, step, steps)
                batch = pack_acts([rows[i] for i in order.rows(step)], gamma=1.0)
                loss = -sum_over_decisions(net(batch), batch.mask) / batch.mask.sum()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), OPTIMIZER.grad_clip)
                optimizer.step()
            if (now := float(_totals(net, apart).sum())) > best:
                best, kept = now, copy.deepcopy(net.state_dict())
            bar.at(epoch + 1)
    net.load_state_dict(kept)


@torch.no_grad()
def _totals(net: nn.Module, rows: Sequence[Episode]) -> np.ndarray:
    """[N], ln p of all that was seen in each episode."""
    found = []
    for part in chunks(rows, 512):
        batch = pack_acts(part, gamma=1.0)
        found.append(net(batch).masked_fill(~batch.mask, 0.0).sum(-1).double().numpy())
    return np.concatenate(found)
