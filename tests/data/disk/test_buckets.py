"""Sorting and grouping in buckets on disk is sorting and grouping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from turnwise.data.disk import buckets, columns, forest
from turnwise.data.disk.buckets import Buckets, distinct, placed, spread
from turnwise.data.disk.columns import Column
from turnwise.data.disk.forest import Forest
from turnwise.data.disk.hashes import Hashes
from turnwise.run.errors import InputError


@pytest.fixture(params=[False, True], ids=["one bucket", "many buckets"], autouse=True)
def small(request, monkeypatch) -> None:
    if request.param:
        monkeypatch.setattr(buckets, "FULL", 8)
        monkeypatch.setattr(buckets, "_WAITING", 200)
        monkeypatch.setattr(columns, "HELD", 64)
        monkeypatch.setattr(columns, "BLOCK", 16)
        monkeypatch.setattr(forest, "_FEW", 0)
        monkeypatch.setattr(forest, "_TOUCHED", 3)


def test_equal_numbers_meet_in_the_order_in_which_they_came() -> None:
    rng = np.random.default_rng(0)
    by = rng.integers(0, 2**64, 60, np.uint64)[rng.integers(0, 60, 700)]
    found = Buckets(np.dtype([("by", np.uint64), ("at", np.int64)]), 700)
    for at in range(0, 700, 30):
        part = np.empty(len(by[at : at + 30]), [("by", np.uint64), ("at", np.int64)])
        part["by"], part["at"] = by[at : at + 30], np.arange(at, at + len(part))
        found.add(part["by"], part)
    parts = list(found)
    whole = np.concatenate([part[np.argsort(part["by"], kind="stable")] for part in parts])
    order = np.argsort(by, kind="stable")
    assert whole["by"].tolist() == by[order].tolist() and whole["at"].tolist() == order.tolist()
    assert [list(part["at"]) for part in found] == [list(part["at"]) for part in parts], "once more the same"


@pytest.mark.parametrize("n", [0, 1, 500])
def test_numbers_come_to_their_places(n: int) -> None:
    rng = np.random.default_rng(1)
    places = rng.permutation(n)[: n // 2]
    twin = np.full(n, -3)
    twin[places] = places * 2
    parts = [places[i : i + 7] for i in range(0, len(places), 7)]
    assert placed(((p, p * 2) for p in parts), n, np.dtype(np.int64), fill=-3).tolist() == twin.tolist()
    late = np.array([n - 1]) if n else np.zeros(0, int)
    assert placed([(late, late)], n, np.dtype(np.int64)).tolist() == [0] * (n - 1) + late.tolist()


def test_places_keep_their_order_when_they_are_spread() -> None:
    found = spread(np.arange(1000), 1000)
    assert (np.diff(found.astype(object)) > 0).all() and found[0] == 0 and found[-1] > 0.99 * 2**64


def test_different_numbers_are_counted() -> None:
    hashes = np.random.default_rng(2).integers(-(2**63), 2**63, 40)
    assert distinct(Column.of(np.concatenate([hashes, hashes[:25], hashes[:3]]))) == 40
    assert distinct(Column(np.int64)) == 0


def test_who_is_joined_is_together() -> None:
    """The slow twin colours all members of a tree anew at each join."""
    rng, n = np.random.default_rng(3), 80
    found, twin = Forest(n), np.arange(n)
    for a, b in rng.integers(0, n, (60, 2)).tolist():
        found.join(a, b)
        low, high = sorted((twin[a], twin[b]))
        twin[twin == high] = low
    assert found.roots(np.arange(n)).tolist() == twin.tolist()


def test_a_set_of_hashes_is_a_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    one, other = (rng.integers(0, 2**64, 300, np.uint64) % np.uint64(400) << np.uint64(52) for _ in range(2))
    a, b = Hashes(Column.of(one, np.uint64)), Hashes(other.tolist())
    assert list(a) == sorted(set(one.tolist())) and len(a | b) == len(set(one.tolist()) | set(other.tolist()))
    assert a.isin(other).tolist() == [x in set(one.tolist()) for x in other.tolist()]
    assert int(one[0]) in a and 1 not in a and not Hashes() and Hashes(a) == a != b
    assert a.strange(Column.of(other, np.uint64)) == sum(x not in set(one.tolist()) for x in other.tolist())
    a.save(tmp_path / "a.npy")
    assert Hashes.read(tmp_path / "a.npy") == a
    Hashes().save(tmp_path / "none.npy")
    assert len(Hashes.read(tmp_path / "none.npy")) == 0
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    (tmp_path / "y.npy").write_bytes(b"no array")
    for name in ("x.npy", "y.npy"):
        with pytest.raises(InputError, match=f"{name}: expected the hashes that a run writes; found"):
            Hashes.read(tmp_path / name)
