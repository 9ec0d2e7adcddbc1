"""Two hidden states made one: which two are the least loss, and the counts of what they become.

Counts of two rows x and y that are pooled explain the same events less well by

    loss = sum over entries of  x ln(x/X) + y ln(y/Y) - (x+y) ln((x+y)/(X+Y)),   X, Y the sums of the rows

nats, which is 0 if the rows are proportional. The loss of two states is that of all their rows, transitions
with the two counted as one. (Best-first model merging: Stolcke & Omohundro 1994.)
"""

from __future__ import annotations

import numpy as np

from turnwise.exact.learning.kernels import Counts

AXES = {
    "firsts": (1,),
    "transitions": (1, 2),
    "emissions": (2,),
    "lasts": (3,),
    "bins": (3,),
    "paid": (2,),
    "late": (2,),
    "late_paid": (2,),
}
"""which axes of each count are states"""


def losses(counts: Counts) -> np.ndarray:
    """[S, S], what is lost if two states become one, in nats; inf at and below the diagonal."""
    S = counts.firsts.shape[1]
    hazard = np.stack([counts.bins[1].sum(1), counts.bins[0].sum(1) + counts.bins[2].sum(1)], 1)  # [A, 2, S]
    # Every table of rows as [S, rows, entries].
    tables = [
        counts.emissions.transpose(2, 0, 1),
        counts.lasts.transpose(3, 0, 1, 2).reshape(S, -1, counts.lasts.shape[2]),
        counts.bins.transpose(3, 0, 1, 2).reshape(S, -1, counts.bins.shape[2]),
        hazard.transpose(2, 0, 1),
        counts.firsts.T[:, None, :],
    ]
    alone = np.sum([_information(t).sum(1) for t in tables], 0)
    found = np.full((S, S), np.inf)
    for i in range(S):
        pooled = np.sum([_information(t[i] + t[i + 1 :]).sum(1) for t in tables], 0)
        found[i, i + 1 :] = alone[i] + alone[i + 1 :] - pooled
        for j in range(i + 1, S) if counts.transitions.size else ():
            x, y = (_pooled(counts.transitions[:, k], 1, i, j) for k in (i, j))
            found[i, j] += (_information(x) + _information(y) - _information(x + y)).sum()
    return found


def merged(counts: Counts, i: int, j: int) -> Counts:
    """Counts in which state j is state i; the states behind j move up."""
    found = {}
    for name, axes in AXES.items():
        table = getattr(counts, name)
        for axis in axes if table.size else ():
            table = _pooled(table, axis, i, j)
        found[name] = table
    return Counts(**found)


def _pooled(table: np.ndarray, axis: int, i: int, j: int) -> np.ndarray:
    """`table` with entry j of an axis added to entry i and taken out."""
    moved = np.moveaxis(table, axis, 0).copy()
    moved[i] += moved[j]
    return np.ascontiguousarray(np.moveaxis(np.delete(moved, j, 0), 0, axis))


def _information(rows: np.ndarray) -> np.ndarray:
    """sum of n ln(n / sum of the row), over the last axis."""
    total = rows.sum(-1)
    logs = np.log(np.where(rows > 0, rows, 1.0))
    return (rows * logs).sum(-1) - total * np.log(np.where(total > 0, total, 1.0))
