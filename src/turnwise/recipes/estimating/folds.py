"""Parts of the logs, each of which is predicted or valued by what others taught."""

from __future__ import annotations

import numpy as np

from turnwise.evaluation.estimates.cross_fit import dealt

FOLDS, FEWEST = 5, 20
"""parts, each of which a model of the others predicts; and conversations, at least, that are parted"""


def folds_of(conversations: int, clusters: np.ndarray | None, seed: int) -> np.ndarray:
    """[B], the part that each conversation is in, of `FOLDS` at random; those of one cluster are in one part.

    All are in one if there are fewer than `FEWEST`, of which no part would teach anything.
    """
    groups = conversations if clusters is None else len(np.unique(clusters))
    if min(groups, conversations) < FEWEST:
        return np.zeros(conversations, np.int64)
    return dealt(conversations, folds=FOLDS, seed=seed, groups=clusters)
