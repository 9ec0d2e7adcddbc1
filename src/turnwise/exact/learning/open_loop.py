"""What a model says of the next answers if actions are fixed and nothing is seen in between.

An episode may end on the way, and that it is over is something to see: beside the O observations there is one
more symbol, O, for each step that an episode which is over does not have. The last answer is an observation
like others. A future of K steps o_1 ... o_K is the number with these digits to the base O + 1, o_1 first.

What follows *if the episode goes on* would be another question, and one without an answer where the actions
end it for certain: there all is decided by errors of hazards that are next to nothing.
"""

from __future__ import annotations

import numpy as np

from turnwise.exact.learning.model import CUT_OFF, ENDED, LearntModel
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


def futures(
    model: LearntModel, beliefs: np.ndarray, actions: np.ndarray, times: np.ndarray | None = None
) -> np.ndarray:
    """[N, (O+1)^K], P(the next K symbols | belief [N, S], actions [N, K]); rows sum to 1.

    `times` [N], steps taken before: with them the clock of a model that has one ends episodes too.
    """
    (N, K), S = actions.shape, model.shape[0]
    alive, over = np.asarray(beliefs)[:, None, :], np.zeros((N, 1))  # [N, paths, S], [N, paths]
    for k, a in enumerate(actions.T):
        e = model.ends[a][:, None]
        going, ending = alive * (1 - e), (alive * e) @ model.lasts[ENDED, a]
        if model.longest is not None and times is not None:
            last = (times + k >= model.longest - 1)[:, None, None]
            ending += np.where(last, going @ model.lasts[CUT_OFF, a], 0.0)
            going = np.where(last, 0.0, going)
        over = joined(ending, over)
        reached = going @ model.transitions[a]
        if k + 1 == K:  # in which state it is at last, nobody asks: S times less to keep
            shown = reached @ model.emissions[a]
            return over + joined(shown, np.zeros(shown.shape[:2]))
        shown = reached[:, :, None, :] * model.emissions[a].transpose(0, 2, 1)[:, None]
        nothing = np.zeros((N, shown.shape[1], 1, S))
        alive = np.concatenate([shown, nothing], 2).reshape(N, -1, S)
    return np.ones((N, 1))  # no steps: one future, which is empty


def joined(shown: np.ndarray, nothing: np.ndarray) -> np.ndarray:
    """[N, paths (O+1)], of [N, paths, O] what is shown next and of [N, paths] what shows nothing."""
    return np.concatenate([shown, nothing[:, :, None]], 2).reshape(len(shown), -1)


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """[N], half the sum of absolute differences of rows: from 0, the same, to 1, nothing in common."""
    return np.abs(p - q).sum(1) / 2
