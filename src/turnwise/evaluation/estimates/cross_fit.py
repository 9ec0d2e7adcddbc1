"""Cross-fitting: every conversation is valued by a model that was fitted on others.

A model has seen the luck of the conversations that it was fitted on and takes it for the worth of what was
done there. Values of those very conversations are then too near to what they earned, and an estimate that
corrects values by what was earned corrects too little. So the conversations are dealt out to folds; for each
fold a model is fitted on the others; the values are joined again (Chernozhukov et al. 2018, "Double/debiased
machine learning", definition 3.2; with two folds: one half, the other half, swapped).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from turnwise.evaluation.estimates.fitted_q import Values

Valued = Callable[[np.ndarray], Values]
"""indices [N] of conversations to their values, in that order"""


def cross_fitted(
    conversations: int,
    fit: Callable[[np.ndarray], Valued],
    *,
    folds: int = 2,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> Values:
    """Values of all conversations, in their order, each by a fit that has not seen it.

    `fit` takes the indices of the conversations to learn from, and gives what values others by their indices.
    `groups` [conversations]: those of one group (a customer, mirrored talks) are never parted. Values of
    fewer decisions than others are padded with 0.
    """
    fold = dealt(conversations, folds=folds, seed=seed, groups=groups)
    parts: list[tuple[np.ndarray, Values]] = []
    for f in range(folds):
        learnt, asked = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        found = fit(learnt)(asked)
        if len(found.q) != len(asked) or found.v.shape != found.q.shape or len(found.final) != len(asked):
            raise ValueError(f"{len(found.q)} conversations are valued; expected {len(asked)}")
        parts.append((asked, found))
    width = max(found.q.shape[1] for _, found in parts)
    q, v = np.zeros((conversations, width)), np.zeros((conversations, width))
    final = np.zeros(conversations)
    for asked, found in parts:
        A = found.q.shape[1]
        q[asked, :A], v[asked, :A], final[asked] = found.q, found.v, found.final
    return Values(q, v, final)


def dealt(
    conversations: int, *, folds: int = 2, seed: int = 0, groups: np.ndarray | None = None
) -> np.ndarray:
    """[conversations], a fold from 0 for each. ValueError if there are fewer groups than folds.

    Groups are shuffled and put one after the other, and the row is cut where each share of the
    conversations is full: folds differ in size by about a group at most.
    """
    groups = np.arange(conversations) if groups is None else np.asarray(groups)
    if groups.shape != (conversations,):
        raise ValueError(f"groups have the shape {groups.shape}; expected {conversations} of them")
    names, group = np.unique(groups, return_inverse=True)
    if not 2 <= folds <= len(names):
        raise ValueError(
            f"{folds} folds of {len(names)} conversations or groups; expected 2 folds or more, each with one"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    ends = np.cumsum(np.bincount(group, minlength=len(names))[order])  # [N], conversations up to each group
    cuts = [0]
    for f in range(1, folds):
        near = int(np.argmin(np.abs(ends - conversations * f / folds))) + 1
        cuts.append(min(max(near, cuts[-1] + 1), len(names) - (folds - f)))  # no fold is empty
    cuts.append(len(names))
    of_group = np.empty(len(names), np.int64)
    for f, (begin, end) in enumerate(pairwise(cuts)):
        of_group[order[begin:end]] = f
    return of_group[group]
