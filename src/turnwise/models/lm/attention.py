"""Attention of packed lanes on a CPU, compiled: each id reads its own lane's past and no padding."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np


@functools.cache
def can_compile() -> bool:
    """Whether numba is there (extra `fast`) and works with what else is installed."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


@functools.cache
def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """The function as machine code, which is kept on disk."""
    from numba import njit

    return njit(fastmath=True, nogil=True, cache=True, error_model="numpy")(function)


def attend(
    q: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    lanes: np.ndarray,
    positions: np.ndarray,
    origins: np.ndarray,
    shared: np.ndarray,
    scale: Any,
    out: np.ndarray,
) -> None:
    """Write softmax(scale q k) v to `out`.

    q, out [M, heads, D]; keys, values [N, positions, key heads, D], each read by heads / key heads
    neighbouring heads; lanes, positions [M]: id m sees positions 0 .. positions[m] of lane lanes[m].
    origins, shared [N]: the first shared[n] positions of lane n are those of lane origins[n], and are read
    there, so that lanes of one prompt read the same memory.

    PyTorch's own attention reads a block of lanes to the end of the longest one. Decoding is bound by
    reading memory, so that here a lane costs what it holds and others do not.
    """
    ids, heads, width = q.shape
    group = heads // keys.shape[2]  # query heads that read the same head of keys (grouped-query attention)
    number = q.dtype.type
    scores = np.empty((heads, keys.shape[1]), q.dtype)
    for m in range(ids):
        lane, length = lanes[m], positions[m] + 1
        lead = min(shared[lane], length)
        for t in range(length):  # all heads of a position at once: memory is read in its own order
            place = origins[lane] if t < lead else lane
            for head in range(heads):
                query, key = q[m, head], keys[place, t, head // group]
                score = number(0)
                for d in range(width):
                    score += query[d] * key[d]
                scores[head, t] = score * scale
        for head in range(heads):  # softmax; less its largest score no exponential overflows
            row = scores[head, :length]
            top, total = row.max(), number(0)
            for t in range(length):
                row[t] = math.exp(row[t] - top)
                total += row[t]
            for t in range(length):
                row[t] /= total
        mixed = out[m]  # [heads, D], the values weighted by the softmax; `out` comes uninitialised
        mixed[:] = 0
        for t in range(length):
            place = origins[lane] if t < lead else lane
            for head in range(heads):
                weight, value, sum_ = scores[head, t], values[place, t, head // group], mixed[head]
                for d in range(width):
                    sum_[d] += weight * value[d]
