"""Columns, records and places on disk are the arrays, texts and indices that they stand for."""

from __future__ import annotations

import gc
import os
import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise.data.disk import columns
from turnwise.data.disk.columns import Column, Records
from turnwise.data.disk.places import Places
from turnwise.data.disk.wheres import Wheres


@pytest.fixture(params=["in memory", "in a file"], autouse=True)
def held(request, monkeypatch) -> None:
    if request.param == "in a file":
        monkeypatch.setattr(columns, "HELD", 40)


def numbers(n: int, seed: int = 0) -> tuple[Column, np.ndarray]:
    """A column that grew by unequal parts, and its twin."""
    rng = np.random.default_rng(seed)
    twin, column, at = rng.integers(-99, 99, n), Column(np.int64), 0
    while at < n:
        size = int(rng.integers(1, 9))
        column.extend(twin[at : at + size])
        at += size
    return column, twin


@pytest.mark.parametrize("n", [0, 1, 200])
def test_a_column_is_its_array(n: int) -> None:
    column, twin = numbers(n)
    assert len(column) == n and column.tolist() == list(column) == twin.tolist()
    assert [len(x) for x in column.blocks(0, n, 64)] == [64] * (n // 64) + [n % 64] * (n % 64 > 0)
    assert column.sum() == twin.sum() and column.above(50) == (twin > 50).sum()
    assert column.max() == (twin.max() if n else 0)
    if n:
        assert column[-1] == twin[-1] and column[3:9].tolist() == twin[3:9].tolist()
        column.extend([7, 8])
        assert column.read(n - 1, n + 2).tolist() == [twin[-1], 7, 8]
    with pytest.raises(IndexError):
        column[n + 5]


@pytest.mark.parametrize("sparse", [1, 10_000], ids=["one by one", "end to end"])
def test_numbers_at_any_places(monkeypatch, sparse: int) -> None:
    """In any order, with repeats, however they are read."""
    monkeypatch.setattr(columns, "_SPARSE", sparse)
    monkeypatch.setattr(columns, "BLOCK", 32)
    column, twin = numbers(300)
    places = np.random.default_rng(1).integers(0, 300, 90)
    assert column.take(places).tolist() == twin[places].tolist()
    assert len(column.take(np.zeros(0, int))) == 0


def test_records_are_the_strings() -> None:
    texts = [b"", b"abc", b"\xff" * 100, b"", b"d"] * 9
    records = Records()
    for text in texts:
        records.add(text)
    assert len(records) == 45 and [records[i] for i in range(45)] == texts
    places = [3, 4, 5, 2, 2, 44, 0, 1]
    assert list(records.at(np.array(places))) == [texts[i] for i in places]
    assert list(records.at(np.zeros(0, int))) == []
    records.add(b"more")
    assert records[45] == b"more" and records[44] == b"d"


def test_a_file_goes_with_its_column() -> None:
    column, _ = numbers(500)
    column.read(0, 1)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    in_file = column._file is not None
    del column
    gc.collect()
    assert before - len(os.listdir("/proc/self/fd")) == in_file


def test_a_full_disk_names_the_folder_and_leaves_nothing(tmp_path, monkeypatch) -> None:
    """A limit on the size of files stands for the disk."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(columns, "HELD", 1000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    column = Column(np.float64)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            for _ in range(9):
                column.extend(np.zeros(200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path) and not list(tmp_path.iterdir())


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["a/b.jsonl:", "row ", "x[", ""]), max_size=30), st.data())
def test_where_rows_stand_comes_back(kinds: list[str], data: st.DataObject) -> None:
    """Numbers with zeros before them, none, and marks behind them included."""
    number = st.sampled_from(["0", "7", "12", "007", "", "99999999999999999999", "٣"])
    texts = [k + data.draw(number) + "]" * k.endswith("[") for k in kinds]
    wheres = Wheres()
    for text in texts:
        wheres.add(text)
    assert len(wheres) == len(texts) and [wheres[i] for i in range(len(texts))] == texts


def test_a_choice_of_a_choice() -> None:
    """Slices, runs of neighbours and any places, one inside the other, as numpy has them."""
    every, twin = Places.first(50), np.arange(50)
    odd = np.array([40, 3, 3, 17, 21, 0])
    assert [x for b in every.within(range(10, 30)).within(odd[1:4]).blocks(2) for x in b] == [13, 13, 27]
    assert [x for b in every.within(odd).within(range(1, 4)).blocks() for x in b] == [3, 3, 17]
    assert [x for b in every.slice(slice(5, 45, 7)).blocks() for x in b] == twin[5:45:7].tolist()
    chosen = every.within(odd).slice(slice(2, 5))
    assert (len(chosen), chosen[0], chosen[-1]) == (3, 3, 21)
    assert [x for b in every.slice(slice(20, None)).within(odd[1:3]).blocks() for x in b] == [23, 23]
    found = Places.where(b for b in (twin[:20] % 7 == 0, twin[20:] % 7 == 0))
    assert [x for b in found.blocks() for x in b] == [0, 7, 14, 21, 28, 35, 42, 49]
    with pytest.raises(IndexError):
        chosen[3]
