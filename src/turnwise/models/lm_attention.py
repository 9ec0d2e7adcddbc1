"""Attention of packed lanes on a CPU, compiled: each id reads its own lane's past and no padding."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np


@functools.cache
def compiled_attention() -> Callable[..., None] | None:
    """The compiled function, or None where numba is not installed.

    `attend(q, keys, values, lanes, positions, scale, out)` writes softmax(scale q k) v to `out`. q, out
    [M, heads, D]; keys, values [N, positions, key heads, D], each read by heads / key heads neighbouring
    heads; lanes, positions [M]: id m sees positions 0 .. positions[m] of lane lanes[m].

    PyTorch's own attention reads a block of lanes to the end of the longest one. Decoding is bound by
    reading memory, so that here a lane costs what it holds.
    """
    try:
        from numba import njit
    except ImportError:
        return None
    return njit(fastmath=True, nogil=True, cache=True, error_model="numpy")(_attend)


def _attend(
    q: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    lanes: np.ndarray,
    positions: np.ndarray,
    scale: Any,
    out: np.ndarray,
) -> None:
    ids, heads, width = q.shape
    group = heads // keys.shape[2]
    number = q.dtype.type
    scores = np.empty((heads, keys.shape[1]), q.dtype)
    for m in range(ids):
        lane, length = lanes[m], positions[m] + 1
        for t in range(length):  # all heads of a position at once: memory is read in its own order
            for head in range(heads):
                query, key = q[m, head], keys[lane, t, head // group]
                score = number(0)
                for d in range(width):
                    score += query[d] * key[d]
                scores[head, t] = score * scale
        for head in range(heads):
            row = scores[head, :length]
            top, total = row.max(), number(0)
            for t in range(length):
                row[t] = math.exp(row[t] - top)
                total += row[t]
            for t in range(length):
                row[t] /= total
        mixed = out[m]
        mixed[:] = 0
        for t in range(length):
            for head in range(heads):
                weight, value, place = scores[head, t], values[lane, t, head // group], mixed[head]
                for d in range(width):
                    place[d] += weight * value[d]
