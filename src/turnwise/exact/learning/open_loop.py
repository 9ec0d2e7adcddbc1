"""What a model says of the next answers if actions are fixed and nothing is seen in between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.sequences import Sequences


def beliefs_after(model: LearntModel, sequences: Sequences) -> np.ndarray:
    """[N, S], the belief after all steps of each episode, none of which has ended."""
    beliefs = model.first(sequences.firsts)
    for k in range(int(sequences.lengths.max())):
        on = np.flatnonzero(sequences.lengths > k)
        at = sequences.offsets[on] + k
        after, _ = model.update(beliefs[on], sequences.actions[at], sequences.observations[at])
        beliefs[on] = after
    return beliefs


def futures(model: LearntModel, beliefs: np.ndarray, actions: Sequence[int] | np.ndarray) -> np.ndarray:
    """[N, O^K], P(the next K observations | belief, K fixed actions, the episode goes on).

    The first observation is the slowest index. Rows sum to 1; a row of beliefs from which no episode can go
    on is all 0.
    """
    S, _, O = model.shape
    joint = np.asarray(beliefs)[:, None, :]  # [N, paths, S]
    for a in actions:
        going = joint * (1 - model.ends[a])
        reached = going @ model.transitions[a]
        joint = (reached[:, :, None, :] * model.emissions[a].T).reshape(len(joint), -1, S)
    found = joint.sum(2)
    total = found.sum(1, keepdims=True)
    assert found.shape[1] == O ** len(actions)
    return np.where(total > 0, found / np.where(total > 0, total, 1.0), 0.0)


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """[N], half the sum of absolute differences of rows: from 0, the same, to 1, nothing in common."""
    return np.abs(p - q).sum(1) / 2
