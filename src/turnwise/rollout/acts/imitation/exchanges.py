"""Clones of the logged agent that go by what was exchanged: a regression, and a small network.

    p(a | h) = softmax(f(x(h)))

x(h) counts every exchange of the talk (an act and its answer), and says what was seen last, what was done
last, and which turn it is. f is linear, or has two hidden layers. How they are learnt stands in
`evaluation/measures/exchanges.py` and `exchange_network.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.special import log_softmax
from torch import Tensor, nn

from turnwise.data.acts.pack import ActSymbols
from turnwise.rollout.acts.chooser import Choice, Prefix, draw

WIDTH = 64
"""of both hidden layers"""


@dataclass(frozen=True)
class ExchangeActs:
    """Draws acts by a regression on what was exchanged."""

    weights: np.ndarray
    """[F, A]"""
    symbols: ActSymbols
    turns: int
    """turns that are told apart; later ones are as the last"""
    penalty: float = 3.0
    """on squared weights, by which they were learnt"""

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        """Draw one act for each talk."""
        x = features([(t.first, t.acts, t.answers) for t in talks], self.symbols, self.turns)
        p = np.exp(log_softmax(np.asarray(x @ self.weights), axis=1))
        return [Choice(draw(row, rng), row) for row, rng in zip(p, rngs, strict=True)]


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
        p = torch.softmax(self.network(dense(x)).double(), 1).numpy()
        return [Choice(draw(row, rng), row) for row, rng in zip(p, rngs, strict=True)]


def layers(symbols: ActSymbols, turns: int) -> nn.Module:
    """The network of an `ExchangeNetwork`, with fresh weights."""
    inputs = features([], symbols, turns).shape[1]  # pyright: ignore[reportOptionalSubscript]
    return nn.Sequential(
        nn.Linear(inputs, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, symbols.acts),
    )


def features(
    talks: Sequence[tuple[int, np.ndarray, np.ndarray]], symbols: ActSymbols, turns: int
) -> sparse.csr_array:
    """[N, F], of talks under way (opening, acts, answers)."""
    A, O, S = symbols.acts, symbols.answers, symbols.seen
    rows, columns = [], []
    for i, (first, acts, answers) in enumerate(talks):
        seen = symbols.observations(first, answers)[-1]
        last = acts[-1] if len(acts) else A
        own = [seen, S + last, S + A + 1 + min(len(acts), turns - 1)]
        exchanged = S + A + 1 + turns + acts * O + answers
        rows += [i] * (len(own) + len(exchanged))
        columns += [*own, *exchanged.tolist()]
    shape = (len(talks), S + A + 1 + turns + A * O)
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def dense(x: sparse.csr_array) -> Tensor:
    """Rows of a sparse array."""
    return torch.as_tensor(x.toarray(), dtype=torch.float32)
