"""A recurrent network that predicts what the logged agent means next: its behaviour, where nobody logged it.

    p(a_k | first, a_1, o_1, ..., o_{k-1})

It is the clone of `algorithms/acts/bc.py`, learnt until it predicts a tenth of the talks, kept apart, no
better: its probabilities are to be right, and the likeliest act is of no interest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from turnwise.data.acts.pack import ActSymbols, act_episode
from turnwise.data.acts.talks import ActLogs, ActTalk
from turnwise.data.batch import Batch
from turnwise.evaluation.measures.next_answers import APART, learn_to_predict
from turnwise.losses.policy import action_logp
from turnwise.models.agents.act_critic import ActClone, ActNetwork
from turnwise.models.agents.settings import MemorySpec
from turnwise.rollout.acts.network import ActActing, NetworkChooser


class NextAct(nn.Module):
    """ln p [B, A] of the acts that were logged."""

    def __init__(self, clone: ActClone):
        super().__init__()
        self.clone = clone

    def forward(self, batch: Batch) -> Tensor:
        """[B, A], of each decision."""
        assert batch.actions is not None
        return action_logp(self.clone(batch)[:, :-1], batch.actions)


def recurrent_clone(
    logs: ActLogs, talks: Sequence[ActTalk], *, width: int = 32, seed: int = 0, quiet: bool = True
) -> NetworkChooser:
    """A GRU that has learnt what the agent does next in `talks` of the logs."""
    symbols = ActSymbols.of(logs)
    network = ActNetwork(MemorySpec("gru", width), symbols.seen, symbols.acts, ensemble=0, v=False)
    episodes = [act_episode(talk, symbols) for talk in talks]
    order = np.random.default_rng(seed).permutation(len(episodes))
    stop = max(1, round(APART * len(episodes)))
    rows, apart = ([episodes[i] for i in part] for part in (order[stop:], order[:stop]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clone = network.build()
        assert isinstance(clone, ActClone)
        learn_to_predict(NextAct(clone), rows, apart, seed, what="the logged agent's acts", quiet=quiet)
    return NetworkChooser(clone.eval().requires_grad_(False), network, symbols, ActActing(0.0))
