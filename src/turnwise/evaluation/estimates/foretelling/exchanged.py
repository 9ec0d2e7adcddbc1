"""What was exchanged before each decision, as acts: features, and a network that foretells what follows."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import nn

from turnwise.evaluation.estimates.foretelling.told import MOST_SYMBOLS, Told, pooled
from turnwise.evaluation.measures.exchange_network import learn_labels
from turnwise.rollout.acts.imitation.exchanges import dense

WIDTH = 64
"""of both hidden layers"""


def history_features(told: Told) -> np.ndarray:
    """[M, F]: this act, the turn, the last exchange; how often each exchange took place; what was answered to
    this same act before, how often and the last time; and for each act, how often each answer was heard."""
    acts, A = pooled(told.acts, MOST_SYMBOLS)
    answers, O = pooled(told.answers, MOST_SYMBOLS)
    done, heard = np.eye(A)[acts], np.eye(O)[answers]
    counts, last, own, again = [], [], [], []
    for span in told.spans:
        exact = told.acts[span]
        before = np.tri(len(exact), k=-1)
        pair = (done[span, :, None] * heard[span, None, :]).reshape(len(exact), -1)
        same = before * (exact[:, None] == exact)
        counts.append(before @ pair)
        last.append(np.vstack([np.zeros(A + O), np.hstack([done[span], heard[span]])[:-1]]))
        own.append(same @ heard[span])
        latest = np.where(same.any(1), len(exact) - 1 - same[:, ::-1].argmax(1), -1)
        again.append(np.where(latest[:, None] >= 0, heard[span][latest], 0.0))
    exchanged = np.vstack(counts)
    often = exchanged.reshape(len(acts), A, O).sum(1)
    turns = np.eye(told.sizes.max())[told.times][:, :30]
    openings = np.eye(told.symbols[2])[np.repeat([t.first for t in told.talks], told.sizes)]
    return np.hstack(
        [
            np.eye(told.symbols[0])[told.acts],
            turns,
            openings,
            np.vstack(last),
            exchanged,
            np.vstack(own),
            np.vstack(again),
            (done[:, :, None] * often[:, None, :]).reshape(len(acts), -1),
        ]
    )


def network_of(
    x: np.ndarray, followed: np.ndarray, kinds: int, learnt: np.ndarray, apart: np.ndarray, seed: int
) -> np.ndarray:
    """[M, C], log-probabilities of what follows, by a network of features x [M, F] that has learnt at the
    places `learnt` [N] until those `apart` [N bool] are foretold no better."""
    rows = sparse.csr_array(x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(x.shape[1], WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, kinds),
        )
        parts = [(rows[where], torch.as_tensor(followed[where])) for where in (learnt[~apart], learnt[apart])]
        learn_labels(network, *parts)
    with torch.no_grad():
        return torch.log_softmax(network(dense(rows)).double(), 1).numpy()
