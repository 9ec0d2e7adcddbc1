"""Answers that tell alike: "the battery is dead" says of one part what "the screen is black" says of another.

What answer o after action a tells of the state is its likelihood ratio

    L(s) = O(o|a,s) / sum over s' of p_a(s') O(o|a,s'),     p_a: states after a, as the logs' beliefs foresee

Which states it speaks of belongs to that answer alone. How much it tells does not: it is the distribution of
L under p_a, whatever the states are called, and two answers for which it is the same are equally good
evidence (Blackwell 1953: an experiment is known by the distribution of its likelihood ratios). With quantile
functions Q of L, each of mean 1, the distance is Hellinger's,

    d(o, o') = 1 - integral over u of sqrt(Q_o(u) Q_o'(u))             0: they tell alike

Answers within `ALIKE` have one *role*. Words of one role may be learnt from all of its answers.
"""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from turnwise.exact.learning.foreseen import filtered
from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.sequences import Sequences

LEVELS = 200
"""at which quantile functions are compared"""
ALIKE = 0.01
"""distance, on average, of answers of one role. An answer that is right with .85 and its opposite, of one
state among four, are .086 apart; those that should be alike were up to .005 apart in fits to 8,000 logs"""
LEAST = 10
"""times that an answer was heard where the episode went on, at least: of fewer nobody knows what they tell"""


def heard_after(sequences: Sequences) -> np.ndarray:
    """[A, O], how often each observation followed each action where the episode went on."""
    counts = np.zeros((sequences.action_symbols, sequences.observation_symbols))
    on = _goes_on(sequences)
    np.add.at(counts, (sequences.actions[on], sequences.observations[on]), 1)
    return counts


def roles_of(model: LearntModel, sequences: Sequences) -> np.ndarray:
    """[O], the role of each observation, from 0; -1 for what was heard less than `LEAST` times."""
    counts = heard_after(sequences)
    found = np.full(counts.shape[1], -1)
    known = np.flatnonzero(counts.sum(0) >= LEAST)
    if len(known) < 2:
        found[known] = 0
        return found
    told = tellings(model, sequences)[known]
    apart = np.clip(1 - told @ told.T, 0.0, None)
    np.fill_diagonal(apart, 0.0)
    tree = linkage(squareform(apart, checks=False), "average")
    found[known] = fcluster(tree, ALIKE, "distance") - 1
    return found


def tellings(model: LearntModel, sequences: Sequences) -> np.ndarray:
    """[O, LEVELS], roots of the quantile functions of L, rows of length 1 (0 for what was never heard).

    Of an observation that follows several actions, the mean over them.
    """
    counts, states = heard_after(sequences), _states_after(model, sequences)
    found = np.zeros((counts.shape[1], LEVELS))
    for a, o in zip(*np.nonzero(counts), strict=True):
        likely = model.emissions[a, :, o]
        ratio = likely / max(float(states[a] @ likely), 1e-300)
        found[o] += counts[a, o] * np.sqrt(_quantiles(ratio, states[a]))
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-300)


def _quantiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[LEVELS], quantiles of values [S] with weights [S] that sum to 1, in the middle of each level."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    at = (np.arange(LEVELS) + 0.5) / LEVELS
    return values[order][np.minimum(np.searchsorted(below, at), len(values) - 1)]


def _states_after(model: LearntModel, sequences: Sequences) -> np.ndarray:
    """[A, S], p_a: the mean of what beliefs foresee after each action, where the episode went on."""
    S, A, _ = model.shape
    on, found = _goes_on(sequences), np.zeros((A, S))
    beliefs, actions = filtered(model, sequences)[on], sequences.actions[on]
    for a in range(A):
        going = (beliefs[actions == a] * (1 - model.ends[a])).sum(0)
        found[a] = (going if going.sum() > 0 else model.start) @ model.transitions[a]
    return found / found.sum(1, keepdims=True)


def _goes_on(sequences: Sequences) -> np.ndarray:
    """[M] bool, steps that are not the last of their episodes."""
    on = np.ones(len(sequences.actions), bool)
    on[sequences.offsets[1:] - 1] = False
    return on
