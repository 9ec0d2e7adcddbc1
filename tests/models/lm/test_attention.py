"""Attention of packed lanes: the definition, whichever way a lane's ids take."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.models.lm.lanes import attention
from turnwise.models.lm.lanes.attention import attend, attend_all, places_of

WIDTH, KEY_HEADS = 8, 2


def test_places_of_packed_ids() -> None:
    """Lanes 4, 1, 0 read 3, 1, 70 ids from 7, 20, 0 on: 70 ids see 70 * 35 = 2,450 pairs, more than 2,048.

    A lane that reads one id is never long, however far it stands.
    """
    shared = np.zeros(5, np.int64)
    at = places_of(np.array([4, 1, 0]), np.array([7, 20, 0]), np.array([3, 1, 70]), np.arange(5), shared)
    assert at.lanes.tolist() == [4, 4, 4, 1] + 70 * [0]
    assert at.positions.tolist() == [7, 8, 9, 20, *range(70)]
    assert at.short == (slice(0, 4),) and at.long == ((4, 74, 0, 0),)
    alone = places_of(np.array([2]), np.array([9000]), np.array([1]), np.arange(5), shared)
    assert alone.short == (slice(0, 1),) and not alone.long


@pytest.mark.parametrize("heads", [2, 6])
def test_long_and_short_lanes_attend_alike(monkeypatch: pytest.MonkeyPatch, heads: int) -> None:
    """softmax(scale q k) v over each id's own past, to 1e-12, in three ways.

    By the loop; by PyTorch from position 0 on; and by PyTorch in masked tiles of 3 and then 2 of 5 queries.
    Lane 3 shares its first six positions with lane 0. NaN stands behind what lanes hold.
    """
    monkeypatch.setattr(attention, "FEW", 5)
    monkeypatch.setattr(attention, "PAIRS", 1)
    monkeypatch.setattr(attention, "TILE", 3)
    rows, start, counts = np.array([0, 1, 2, 3]), np.array([11, 0, 4, 9]), np.array([1, 7, 5, 2])
    rng = np.random.default_rng(0)
    keys, values = rng.standard_normal((2, 4, 16, KEY_HEADS, WIDTH))
    for m in (keys, values):
        m[3, :6] = m[0, :6]
        for row, end in zip(rows, start + counts, strict=True):
            m[row, end:] = np.nan
    q = rng.standard_normal((counts.sum(), heads + 2 * KEY_HEADS, WIDTH))
    at = places_of(rows, start, counts, np.array([0, 1, 2, 0]), np.array([0, 0, 0, 6]))
    assert [run.lane for run in at.long] == [1, 2] and at.short == (slice(0, 1), slice(13, 15))
    out = np.full((len(q), heads, WIDTH), np.nan)
    attend_all(attend, q, keys, values, at, 0.4, out)
    for m, (lane, position) in enumerate(zip(at.lanes, at.positions, strict=True)):
        for head in range(heads):
            k, v = (x[lane, : position + 1, head * KEY_HEADS // heads] for x in (keys, values))
            weights = np.exp(0.4 * k @ q[m, head])
            np.testing.assert_allclose(out[m, head], weights @ v / weights.sum(), rtol=0, atol=1e-12)
