"""A clone of the logged agent by a small network: what it meant, from all that was exchanged before.

    p(a | h) = softmax(f(x(h))),    min_f  -mean log p(a | h)

x(h) are the counts of `exchanges.py`, f two hidden layers, learnt until a tenth of the talks, kept apart, is
predicted no better. A regression on counts cannot say "the part that leads", which is a comparison of
counts; the network can.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from turnwise.data.acts.pack import ActSymbols
from turnwise.data.acts.talks import ActLogs, ActTalk
from turnwise.evaluation.measures.exchanges import decisions, features
from turnwise.evaluation.measures.next_answers import APART
from turnwise.rollout.acts.chooser import Choice, Prefix, draw
from turnwise.run.optim import optimizer_of
from turnwise.run.settings import AdamW

WIDTH, BATCH = 64, 256
"""of both hidden layers; decisions of a step"""
EPOCHS, PATIENCE = 80, 8
"""passes at most, and passes without a better one after which it has learnt enough"""
OPTIMIZER = AdamW(lr=2e-3, weight_decay=1e-3)


@dataclass(frozen=True)
class ExchangeNetwork:
    """Draws acts by a network that reads what was exchanged."""

    network: nn.Module
    symbols: ActSymbols
    turns: int
    """turns that are told apart; later ones are as the last"""

    @torch.no_grad()
    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        """Draw one act for each talk."""
        x = features([(t.first, t.acts, t.answers) for t in talks], self.symbols, self.turns)
        p = torch.softmax(self.network(_dense(x)).double(), 1).numpy()
        return [Choice(draw(row, rng), row) for row, rng in zip(p, rngs, strict=True)]


def exchange_network(logs: ActLogs, talks: Sequence[ActTalk], *, seed: int = 0) -> ExchangeNetwork:
    """The network that has learnt what the agent does in `talks` of the logs, at least two."""
    symbols = ActSymbols.of(logs)
    turns = max(len(t) for t in talks)
    order = np.random.default_rng(seed).permutation(len(talks))
    stop = max(1, round(APART * len(talks)))
    parts = [[talks[i] for i in some] for some in (order[stop:], order[:stop])]
    (x, acts), (held, theirs) = (decisions(part, symbols, turns) for part in parts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(x.shape[1], WIDTH),  # pyright: ignore[reportOptionalSubscript]
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, symbols.acts),
        )
        _learn(network, (x, torch.as_tensor(acts)), (held, torch.as_tensor(theirs)))
    return ExchangeNetwork(network.eval().requires_grad_(False), symbols, turns)


Decisions = tuple[sparse.csr_array, Tensor]


def _learn(network: nn.Module, seen: Decisions, apart: Decisions) -> None:
    """Fit to decisions (features, acts), and leave it as it was where it predicted those `apart` best."""
    (x, acts), (held, theirs) = seen, (_dense(apart[0]), apart[1])
    optimizer = optimizer_of(network, OPTIMIZER)
    best, kept, at = np.inf, copy.deepcopy(network.state_dict()), 0
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(acts)).split(BATCH):
            # Only the rows of a step are made dense: of thirty acts and answers there are 900 exchanges.
            loss = functional.cross_entropy(network(_dense(x[rows.numpy()])), acts[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            now = float(functional.cross_entropy(network(held), theirs))
        if now < best:
            best, kept, at = now, copy.deepcopy(network.state_dict()), epoch
        elif epoch - at >= PATIENCE:
            break
    network.load_state_dict(kept)


def _dense(x: sparse.csr_array) -> Tensor:
    """Rows of a sparse array."""
    return torch.as_tensor(x.toarray(), dtype=torch.float32)
