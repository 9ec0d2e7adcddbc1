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
    late: bool = False
    """whether what comes once an episode (first observations, ends, last answers, rewards) begins alike in
    all states, and looks differ by the action too"""
    twofold: bool = False
    """whether half of the states are learnt first, and the start is two copies of them (`twofold`)"""


KINDS = (
    Kind(0.3, 1.0, 0.0, 1),
    Kind(0.2, 0.3, 0.9, 1),
    Kind(2.0, 1.0, 0.9, 1, late=True),
    Kind(0.3, 1.0, 0.0, 1, twofold=True),
    Kind(0.2, 0.3, 0.3, 2),
    Kind(1.0, 1.0, 0.9, 1, late=True),
    Kind(0.3, 1.0, 0.0, 1, twofold=True),
    Kind(0.2, 0.3, 0.3, 1),
)
"""taken in turn"""
CLASSES = (Kind(1.0, 1.0, 1.0, 1), Kind(1.0, 1.0, 1.0, 1, late=True), Kind(1.0, 1.0, 1.0, 1))
"""of states that never change, taken in turn"""
PHASES = (Kind(1.0, 1.0, 0.7, 1), Kind(1.0, 1.0, 0.7, 1, late=True))
"""of phases of what never changes, taken in turn"""
APART, LASTS = 0.3, 0.7
"""how far apart the phases of a learnt class begin (deviation of ln P), and the weight of staying in one"""
BETWEEN = 0.02
"""what transitions between groups weigh beside those within one"""


def start_of(prior: Tables, kind: Kind, rng: np.random.Generator) -> Tables:
    """Random tables in the shapes of `prior`, whose imagined counts say what each action does on average."""
    A, S = prior.ends.shape[:2]

    def around(imagined: np.ndarray, axis: int, drawn: np.ndarray) -> np.ndarray:
        means = imagined / imagined.sum(axis, keepdims=True)
        found = means * drawn
        return found / found.sum(axis, keepdims=True)

    def apart(shape: float, imagined: np.ndarray) -> np.ndarray:
        # There is one end an episode. If what comes with it differs from the start, each rare action hardens
        # on a state of its own: which of its ends were good is "explained" by where the episode was at last,
        # against all answers before. A late start lets them follow what the answers say. First observations
        # of which there are many, none of which tells anything, would sort episodes by chance likewise.
        if kind.late:
            return np.ones(imagined.shape)
        return rng.gamma(shape, 1 / shape, imagined.shape) + 1e-4

    # A state favours the same observations whatever the action: rows of all actions are tilted alike.
    rows = A if kind.late else 1
    tilt = rng.gamma(kind.looks, 1 / kind.looks, (rows, prior.emissions.shape[1], S)) + 1e-4
    moves = rng.gamma(kind.moves, 1 / kind.moves, (A, S, S)) + 1e-3
    group = np.arange(S) % kind.groups
    moves = moves * np.where(group[:, None] == group, 1.0, BETWEEN)
    moves = (1 - kind.stays) * moves / moves.sum(2, keepdims=True) + kind.stays * np.eye(S)
    if prior.transitions.size:
        within = moves * (prior.transitions > 0)  # what cannot be, is not begun with
        moves = within / within.sum(2, keepdims=True)
    else:
        moves = prior.transitions
    begin = rng.gamma(1.0, 1.0, S) + 0.1
    return Tables(
        start=begin / begin.sum(),
        firsts=around(prior.firsts, 0, apart(1.0, prior.firsts)),
        transitions=moves,
        emissions=around(prior.emissions, 1, tilt),
        ends=np.ascontiguousarray(around(prior.ends, 2, apart(1.0, prior.ends))[..., 0]),
        lasts=around(prior.lasts, 2, apart(1.0, prior.lasts)),
        bins=around(prior.bins, 2, apart(2.0, prior.bins)),
    )


def phased(tables: Tables, phases: int, rng: np.random.Generator) -> Tables:
    """Each of some classes, which never change, as so many phases, which mostly last and differ a little."""
    A, C = tables.ends.shape

    def parted(rows: np.ndarray, axis: int) -> np.ndarray:
        found = np.repeat(rows, phases, -1)
        found = found * np.exp(APART * rng.normal(size=found.shape))
        return found / found.sum(axis, keepdims=True)

    moves = rng.gamma(1.0, 1.0, (A, C, phases, phases)) + 1e-3
    moves = LASTS * np.eye(phases) + (1 - LASTS) * moves / moves.sum(3, keepdims=True)
    whole = np.zeros((A, C, phases, C, phases))
    whole[:, np.arange(C), :, np.arange(C)] = moves.swapaxes(0, 1)
    return Tables(
        start=parted(tables.start, 0),
        firsts=parted(tables.firsts, 0),
        transitions=whole.reshape(A, C * phases, C * phases),
        emissions=parted(tables.emissions, 1),
        ends=np.repeat(tables.ends, phases, 1),
        lasts=parted(tables.lasts, 2),
        bins=parted(tables.bins, 2),
    )


def twofold(tables: Tables, rng: np.random.Generator) -> Tables:
    """Two copies of learnt states that favour different observations, with rare steps from one to the other.

    What moves is known, and what stays for a whole episode is not yet: in a maze whose sign says which way to
    turn at its end, each cell must become two at once, and no single split of a cell gains anything.
    """
    S = len(tables.start)

    def parted(rows: np.ndarray, axis: int) -> np.ndarray:
        shape = [1] * rows.ndim
        shape[axis] = rows.shape[axis]
        weight = np.exp(rng.normal(size=shape))
        found = np.concatenate([rows * weight, rows / weight], rows.ndim - 1)
        return found / found.sum(axis, keepdims=True)

    wide = 2 * tables.transitions.shape[1]
    moves = np.empty((tables.transitions.shape[0], wide, wide))
    for i in range(2) if tables.transitions.size else ():
        for j in range(2):
            weight = 1 - BETWEEN if i == j else BETWEEN
            moves[:, i * S : (i + 1) * S, j * S : (j + 1) * S] = weight * tables.transitions
    return Tables(
        start=np.tile(tables.start, 2) / 2,
        firsts=parted(tables.firsts, 0),
        transitions=moves,
        emissions=parted(tables.emissions, 1),
        ends=np.tile(tables.ends, (1, 2)),
        lasts=parted(tables.lasts, 2),
        bins=parted(tables.bins, 2),
    )
