"""Rewards as the belief foresees them: what a plan may expect of a state that nobody sees.

While a model is learnt, rewards are evidence for the hidden state; while the agent acts they are not. Where
an episode is paid once, a state may hold whatever luck made that one outcome likely: "a guest who takes any
quiet room" explains each guest who took one, and no log shows the room that was not offered. A plan believes
in such states. So the means are fitted again, to what the belief says *before* it is paid:

    minimise over R(.,a)    sum over steps of (r_k - sum over s of b_k(s) R(s,a_k))^2 + strength |R - R_EM|^2

within the rewards that the action was ever paid: no state pays more than anybody got.

b_k is the filtered belief given how the step ended. As far as beliefs tell states apart, the expected reward
of each action is then right on average over the logs; beyond that the means of EM stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import lsq_linear

from turnwise.exact.learning.model import END, GO_ON, STOP, LearntModel
from turnwise.exact.learning.rewards import without_late
from turnwise.exact.learning.sequences import Sequences


def filtered(model: LearntModel, sequences: Sequences) -> np.ndarray:
    """[M, S], the belief before each step, from what was seen before it; rewards are not looked at."""
    start, lengths = sequences.offsets[:-1], sequences.lengths
    found = np.empty((len(sequences.actions), model.shape[0]))
    beliefs = model.first(sequences.firsts)
    for k in range(int(lengths.max(initial=0))):
        here = np.flatnonzero(lengths > k)
        found[start[here] + k] = beliefs[here]
        on = here[lengths[here] > k + 1]
        at = start[on] + k
        beliefs[on] = model.update(beliefs[on], sequences.actions[at], sequences.observations[at])[0]
    return found


def foreseen(model: LearntModel, sequences: Sequences, strength: float = 1.0) -> LearntModel:
    """The model with the means of its rewards fitted to its beliefs.

    `strength`: how many rewards the means of EM are worth. A model or sequences without rewards are left as
    they are.
    """
    if model.pay is None or sequences.rewards is None or not len(sequences):
        return model
    beliefs = filtered(model, sequences)
    paid, a = without_late(sequences, model.pay.late), sequences.actions
    step = np.arange(len(a)) - np.repeat(sequences.offsets[:-1], sequences.lengths)
    last = np.zeros(len(a), bool)
    last[sequences.offsets[1:][sequences.ended] - 1] = True
    cut = last & (step == (model.longest or 0) - 1)  # by the clock, or by itself: nobody can tell
    going, ending = beliefs * (1 - model.ends[a]), beliefs * model.ends[a]
    means = model.pay.means.copy()
    for kind, rows, weights in ((GO_ON, ~last, going), (END, last & ~cut, ending), (STOP, cut, beliefs)):
        for action in range(model.shape[1]):
            here = np.flatnonzero(rows & (a == action) & (weights.sum(1) > 0))
            b = weights[here] / weights[here].sum(1, keepdims=True)
            if len(here):
                means[kind, action] = _within(b, paid[here], means[kind, action], max(strength, 1e-9))
    return replace(model, pay=replace(model.pay, means=means))


def _within(b: np.ndarray, paid: np.ndarray, before: np.ndarray, strength: float) -> np.ndarray:
    """[S], least squares of rewards on beliefs b [n, S], drawn to `before`, between least and most."""
    low, high = float(paid.min()), float(paid.max())
    if high - low <= 1e-12 * max(abs(low), abs(high), 1.0):
        return np.full(b.shape[1], paid.mean())
    start = np.clip(before, low, high)
    # The same normal equations as [b; sqrt(strength) I], in S rows in place of n.
    root = np.linalg.cholesky(b.T @ b + strength * np.eye(b.shape[1]))
    right = np.linalg.solve(root, b.T @ (paid - b @ start))
    return start + lsq_linear(root.T, right, (low - start - 1e-12, high - start + 1e-12)).x
