"""Attention of packed lanes on a CPU: each id reads its own lane's past and no padding.

Lanes that read one id, or few, are left to a compiled loop, which reads memory once and in its own order.
Many ids of one lane read the same keys: there PyTorch's attention, which takes them in tiles, is faster.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

FEW = 4
"""ids of a lane below which the compiled loop attends, however long the lane is"""
PAIRS = 2048
"""pairs of a query and a key, and a lane's ids from which on PyTorch attends: there both take as long"""
TILE = 512
"""queries of a lane that are masked at a time"""


class Run(NamedTuple):
    """Packed ids `begin` .. `end - 1`, which one lane reads from its position `start` on."""

    begin: int
    end: int
    lane: int
    start: int


@dataclass(frozen=True)
class Places:
    """Where M packed ids stand.

    lanes, positions [M]: each id's own. origins, shared [N]: the first shared[n] positions of lane n are the
    same as those of lane origins[n]. `short`: ids that the compiled loop attends with; `long`: the others.
    """

    lanes: np.ndarray
    positions: np.ndarray
    origins: np.ndarray
    shared: np.ndarray
    short: tuple[slice, ...]
    long: tuple[Run, ...]


def places_of(
    rows: np.ndarray, start: np.ndarray, counts: np.ndarray, origins: np.ndarray, shared: np.ndarray
) -> Places:
    """Lane rows[i] reads counts[i] ids from position start[i] on; packed, they follow each other.

    Counts 3, 1 that start at positions 7, 20: the ids stand at 7, 8, 9, 20.
    """
    ends = np.cumsum(counts)
    begins = ends - counts
    positions = np.arange(counts.sum()) + np.repeat(start - begins, counts)
    many = (counts >= FEW) & (counts * (start + counts / 2) >= PAIRS)
    runs = zip(*(x[many].tolist() for x in (begins, ends, rows, start)), strict=True)
    long = tuple(Run(*x) for x in runs)
    edges = [0, *(x for run in long for x in run[:2]), int(counts.sum())]
    short = tuple(slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)
    return Places(np.repeat(rows, counts), positions, origins, shared, short, long)


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


def attend_all(
    kernel: Callable[..., None],
    q: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    at: Places,
    scale: float,
    out: np.ndarray,
) -> None:
    """What `attend`, compiled to `kernel`, writes, for all ids that stand `at` their places."""
    for some in at.short:
        kernel(
            q[some],
            keys,
            values,
            at.lanes[some],
            at.positions[some],
            at.origins,
            at.shared,
            q.dtype.type(scale),
            out[some],
        )
    heads = out.shape[1]
    for begin, end, lane, start in at.long:
        # [heads, t, D] of the lane, and of all that it holds by now [key heads, positions, D].
        mine, others, seen = (
            torch.from_numpy(x).transpose(0, 1)
            for x in (q[begin:end, :heads], *(m[lane, : start + end - begin] for m in (keys, values)))
        )
        where = torch.from_numpy(out[begin:end]).transpose(0, 1)
        _attend_in_tiles(mine, others, seen, start, scale, where)


def _attend_in_tiles(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, start: int, scale: float, out: torch.Tensor
) -> None:
    """Query i stands at position start + i and sees no further. q, out [heads, t, D]."""
    ids = q.shape[1]
    step = ids if start == 0 else TILE  # from position 0 on no mask has to be made
    for first in range(0, ids, step):
        some = q[:, first : first + step]
        length = start + first + some.shape[1]
        mask = None
        if start:
            mask = q.new_full((some.shape[1], length), -math.inf).triu_(start + first + 1)
        found = scaled_dot_product_attention(
            some.unsqueeze(0),
            keys[:, :length].unsqueeze(0),
            values[:, :length].unsqueeze(0),
            mask,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=len(keys) != len(q),
        )
        out[:, first : first + step] = found[0]


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

    q [M, heads or more, D], of which the first are read; out [M, heads, D]; keys, values
    [N, positions, key heads, D], each read by heads / key heads neighbouring heads; lanes, positions [M]: id
    m sees positions 0 .. positions[m] of lane lanes[m]. origins, shared [N]: the first shared[n] positions of
    lane n are those of lane origins[n], and are read there, so that lanes of one prompt read the same memory.

    PyTorch's own attention reads a block of lanes to the end of the longest one. Decoding is bound by
    reading memory, so that here a lane costs what it holds and others do not.
    """
    ids, heads, width = out.shape
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
