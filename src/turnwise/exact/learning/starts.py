"""Where EM begins: with more states than are asked for, which `merging` then makes one out of two.

A start with as many states as the answer has ends in a poor optimum most of the time: two states share what
is one, and one must do for two. With twice as many there is room, and what is double afterwards is merged.

The rows of a start are drawn around what the action does in all states. Starts differ in how far apart states
begin and in how long a state lasts, since data differ in just this: in a maze every step leads to another
state, in a conversation the hidden thing often stays what it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from turnwise.exact.learning.kernels import Tables


class Kind(NamedTuple):
    """How a start is drawn; shapes are those of gamma variables: the smaller, the further apart."""

    looks: float
    """of what states show"""
    moves: float
    """of transitions"""
    stays: float
    """weight of staying in the state"""
    groups: int
    """transitions between so many groups of states begin rare: what never changes in an episode"""


KINDS = (
    Kind(0.3, 1.0, 0.0, 1),
    Kind(0.2, 0.3, 0.9, 1),
    Kind(0.2, 0.3, 0.3, 2),
    Kind(0.2, 0.3, 0.3, 1),
)
"""taken in turn"""
BETWEEN = 0.02
"""what transitions between groups weigh beside those within one"""


def start_of(prior: Tables, kind: Kind, rng: np.random.Generator) -> Tables:
    """Random tables in the shapes of `prior`, whose imagined counts say what each action does on average."""
    A, S = prior.transitions.shape[:2]

    def around(imagined: np.ndarray, axis: int, drawn: np.ndarray) -> np.ndarray:
        means = imagined / imagined.sum(axis, keepdims=True)
        found = means * drawn
        return found / found.sum(axis, keepdims=True)

    # A state favours the same observations whatever the action: rows of all actions are tilted alike.
    tilt = rng.gamma(kind.looks, 1 / kind.looks, (1, prior.emissions.shape[1], S)) + 1e-4
    moves = rng.gamma(kind.moves, 1 / kind.moves, (A, S, S)) + 1e-3
    group = np.arange(S) % kind.groups
    moves = moves * np.where(group[:, None] == group, 1.0, BETWEEN)
    moves = (1 - kind.stays) * moves / moves.sum(2, keepdims=True) + kind.stays * np.eye(S)
    begin = rng.gamma(1.0, 1.0, S) + 0.1
    return Tables(
        start=begin / begin.sum(),
        firsts=around(prior.firsts, 0, rng.gamma(1.0, 1.0, prior.firsts.shape) + 1e-4),
        transitions=moves,
        emissions=around(prior.emissions, 1, tilt),
        ends=np.ascontiguousarray(
            around(prior.ends, 2, rng.gamma(1.0, 1.0, prior.ends.shape) + 1e-4)[..., 0]
        ),
        lasts=around(prior.lasts, 2, rng.gamma(1.0, 1.0, prior.lasts.shape) + 1e-4),
        bins=around(prior.bins, 2, rng.gamma(2.0, 0.5, prior.bins.shape) + 1e-4),
    )
