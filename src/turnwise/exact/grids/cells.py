"""Regular grids on slices, and the weights by which a belief is a mixture of the points around it.

A polygon is parted into triangles that share its first corner. Every simplex (a point, a segment, a triangle)
has the points whose barycentric coordinates are multiples of 1/m. A belief between them is a mixture of the
points of its cell, and V*, being convex, lies below the same mixture of its values there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnwise.exact.grids.slices import Slice


@dataclass(frozen=True)
class Grid:
    """The grid of one slice."""

    points: np.ndarray
    """[P, n], beliefs"""
    parts: int
    """m: how many cells an edge of a simplex has"""
    coordinates: np.ndarray
    """[t, d, n], for each of t simplices what gives the barycentric coordinates of a belief [n]"""

    @staticmethod
    def on(part: Slice, m: int) -> Grid:
        """The grid with m cells on each edge."""
        c = part.corners
        d = min(len(c), 3)
        simplices = [c] if d < 3 else [c[[0, i, i + 1]] for i in range(1, len(c) - 1)]
        weights = _multiples(m if d > 1 else 1, d)
        points = np.concatenate([weights @ s for s in simplices])
        inverse = np.array([np.linalg.pinv(s.T) for s in simplices])  # belief = coordinates @ corners
        return Grid(points, m if d > 1 else 1, inverse)

    def weights(self, beliefs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(points [N, d], weights [N, d]) of beliefs [N, n] of the slice."""
        x = np.einsum("tdn,Nn->Ntd", self.coordinates, beliefs)
        which = x.min(2).argmax(1)  # the simplex that holds it; of several that share an edge, the first
        x = np.maximum(x[np.arange(len(x)), which], 0.0)
        x /= x.sum(1, keepdims=True)
        t, d, _ = self.coordinates.shape
        each = len(self.points) // t
        m = self.parts
        if d == 1:
            return (which * each)[:, None], np.ones((len(x), 1))
        if d == 2:
            y = x[:, 1] * m
            low = np.minimum(y.astype(np.int64), m - 1)
            share = y - low
            return (which * each + low)[:, None] + np.arange(2), np.stack([1 - share, share], 1)
        y, z = x[:, 1] * m, x[:, 2] * m
        i, j = (np.minimum(v.astype(np.int64), m - 1) for v in (y, z))
        over = np.maximum(i + j - (m - 1), 0)  # on the far edge the cell is the one before
        j = np.maximum(j - over, 0)
        i = np.minimum(i, m - 1 - j)
        u, v = y - i, z - j
        upper = (u + v > 1) & (i + j < m - 1)  # the other half of the square
        at = lambda a, b: which * each + _place(a, b, m)  # noqa: E731
        three = np.where(
            upper[:, None],
            np.stack([at(i + 1, j + 1), at(i + 1, j), at(i, j + 1)], 1),
            np.stack([at(i, j), at(i + 1, j), at(i, j + 1)], 1),
        )
        share = np.where(
            upper[:, None], np.stack([u + v - 1, 1 - v, 1 - u], 1), np.stack([1 - u - v, u, v], 1)
        )
        share = np.maximum(share, 0.0)
        return three, share / share.sum(1, keepdims=True)


def _place(i: np.ndarray, j: np.ndarray, m: int) -> np.ndarray:
    """The number of the point with coordinates (m - i - j, i, j) / m: row after row of i."""
    return i * (m + 1) - i * (i - 1) // 2 + j


def _multiples(m: int, d: int) -> np.ndarray:
    """[P, d], barycentric coordinates in multiples of 1/m, in the order of `_place`."""
    if d == 1:
        return np.ones((1, 1))
    if d == 2:
        i = np.arange(m + 1)
        return np.stack([m - i, i], 1) / m
    rows = [(m - i - j, i, j) for i in range(m + 1) for j in range(m + 1 - i)]
    return np.array(rows) / m
