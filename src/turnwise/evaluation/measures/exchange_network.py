"""A clone of the logged agent by a small network: what it meant, from all that was exchanged before.

    p(a | h) = softmax(f(x(h))),    min_f  -mean log p(a | h)

x(h) are the counts of `rollout/acts/imitation/exchanges.py`, f two hidden layers, learnt until a tenth of the
talks, kept apart, is predicted no better. A regression on counts cannot say "the part that leads", which is a
comparison of counts; the network can.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from turnwise.data.acts.pack import ActSymbols
from turnwise.data.acts.talks import ActLogs, ActTalk
from turnwise.evaluation.measures.exchanges import decisions
from turnwise.evaluation.measures.next_answers import APART
from turnwise.rollout.acts.imitation.exchanges import ExchangeNetwork, dense, layers
from turnwise.run.optim import optimizer_of
from turnwise.run.settings import AdamW

BATCH = 256
"""decisions of a step"""
EPOCHS, PATIENCE = 80, 8
"""passes at most, and passes without a better one after which it has learnt enough"""
OPTIMIZER = AdamW(lr=2e-3, weight_decay=1e-3)


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
        network = layers(symbols, turns)
        learn_labels(network, (x, torch.as_tensor(acts)), (held, torch.as_tensor(theirs)))
    return ExchangeNetwork(network.eval().requires_grad_(False), symbols, turns)


Decisions = tuple[sparse.csr_array, Tensor]


def learn_labels(network: nn.Module, seen: Decisions, apart: Decisions) -> None:
    """Fit to decisions (features, labels), and leave it as it was where it predicted those `apart` best."""
    (x, acts), (held, theirs) = seen, (dense(apart[0]), apart[1])
    optimizer = optimizer_of(network, OPTIMIZER)
    best, kept, at = np.inf, copy.deepcopy(network.state_dict()), 0
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(acts)).split(BATCH):
            # Only the rows of a step are made dense: of thirty acts and answers there are 900 exchanges.
            loss = functional.cross_entropy(network(dense(x[rows.numpy()])), acts[rows])
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
