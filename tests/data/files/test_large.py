"""Many rows: where they lie changes nothing of what is said of them, and memory does not grow with them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

import turnwise as tw
from turnwise.data import compact
from turnwise.data.cards import logs as cards
from turnwise.data.cards.logs import data_card
from turnwise.data.disk import buckets, columns, wheres
from turnwise.data.files import faults
from turnwise.data.splits import heldout, twins
from turnwise.data.splits.heldout import split_heldout
from turnwise.run.errors import InputError


@pytest.fixture
def little(monkeypatch) -> None:
    """A thousand rows are many."""
    for module, name, value in (
        (columns, "HELD", 2000),
        *((module, "BLOCK", 128) for module in (columns, compact, faults, heldout, cards, wheres, twins)),
        (buckets, "FULL", 128),
        (buckets, "_WAITING", 4000),
        (buckets, "_ASIDE", 128),
        (twins, "_REMEMBERED", 50),
        (compact, "_TOGETHER", 128),
    ):
        monkeypatch.setattr(module, name, value)


def row(i: int, **more) -> dict:
    said = [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"answer {i * i}"}]
    return {"messages": said, "outcome": (i * 37 % 100) / 100, **more}


def test_a_fault_in_the_last_of_many_rows_is_told_as_in_few(tmp_path: Path, little) -> None:
    file = tmp_path / "logs.jsonl"
    rows = [row(i, id=f"c{i}") for i in range(3000)]
    rows[2999]["messages"][1]["reward"] = "much"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(InputError) as caught:
        tw.read_logs(file, quiet=True)
    assert str(caught.value) == (
        f'{file}:3000: messages[1].reward: expected a finite number (at most 1e+30 in size); found "much" '
        "(1 of 3,000 rows; skip_bad leaves it out)"
    )


def test_ids_that_come_twice_stand_among_other_faults_in_the_order_of_the_rows(little) -> None:
    """The third row of one id names the first too; a row that is bad otherwise has no id to repeat."""
    rows = [row(i, id=f"c{i}") for i in range(900)]
    rows[700]["id"] = rows[800]["id"] = "c10"
    rows[5] = {"id": "c899"}
    rows[750]["outcome"] = "nan"
    with pytest.raises(InputError) as caught:
        tw.read_logs(rows, quiet=True)
    head, *told = str(caught.value).split("\n  ")
    assert "found 4 that are not" in head
    assert told == [
        "row 5: messages: expected a list of messages, each with role and content; found nothing",
        'row 700: id: expected an id of its own (row 10 has it too); found "c10"',
        'row 750: outcome: expected a finite number (at most 1e+30 in size); found "nan"',
        'row 800: id: expected an id of its own (row 10 has it too); found "c10"',
    ]
    logs = tw.read_logs(rows, skip_bad=True, quiet=True)
    kept = [f"c{i}" for i in range(900) if i not in (5, 700, 750, 800)]
    assert [d.id for d in logs] == kept and logs.reading.skipped == 4 and logs[-1].id == "c899"


def test_the_first_ten_faults_are_told_though_earlier_rows_turn_out_bad_later(little) -> None:
    rows = [row(i, id=f"c{i}") for i in range(400)]
    for i in range(100, 115):
        rows[i] = {"id": "none"}
    rows[50]["id"] = "c49"
    with pytest.raises(InputError) as caught:
        tw.read_logs(rows, quiet=True)
    told = str(caught.value).split("\n  ")[1:]
    assert [t.split(":")[0] for t in told] == ["row 50", *(f"row {i}" for i in range(100, 109))]


def test_memory_does_not_grow_with_the_rows(little) -> None:
    """Peak of what Python and numpy hold while four times as many rows are read, described and split.

    As objects they take 1.5 KB each. What is left waits for the collector of garbage.
    """

    def peak(n: int) -> int:
        tracemalloc.start()
        logs = tw.read_logs((row(i) for i in range(n)), quiet=True)
        data_card(logs, split=split_heldout(logs, 0.1))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(200)  # what is loaded and compiled once
    few, many = peak(1500), peak(6000)
    assert many < few + 4500 * 64


def test_a_pattern_of_files_is_a_source(tmp_path: Path) -> None:
    for day, rows in {"2026-01": range(3), "2026-02": range(3, 5), "2027-01": range(9, 10)}.items():
        text = "".join(json.dumps(row(i, id=f"c{i}")) + "\n" for i in rows)
        (tmp_path / f"{day}.jsonl").write_text(text)
    (tmp_path / "2026-notes.txt").write_text("no rows")
    logs = tw.read_logs(tmp_path / "2026-*", quiet=True)
    assert [d.id for d in logs] == [f"c{i}" for i in range(5)]
    assert logs.reading.passed_over == (str(tmp_path / "2026-notes.txt"),)
    with pytest.raises(InputError, match=r"2025-\*: expected files of rows that match it .*; found none"):
        tw.read_logs(tmp_path / "2025-*", quiet=True)
    (tmp_path / "odd[1].jsonl").write_text(json.dumps(row(7)) + "\n")
    assert len(tw.read_logs(tmp_path / "odd[1].jsonl", quiet=True)) == 1, "a name of a file is no pattern"


def test_parquet_of_many_groups_is_read_in_order(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [row(i) for i in range(50)]
    rows[33]["outcome"] = float("nan")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "logs.parquet", row_group_size=7)
    logs = tw.read_logs(tmp_path / "logs.parquet", skip_bad=True, quiet=True)
    assert [d.messages[0].content for d in logs] == [f"question {i}" for i in range(50) if i != 33]
    assert logs.reading.faults[0].startswith(f"{tmp_path / 'logs.parquet'}:34: outcome: expected a finite")
