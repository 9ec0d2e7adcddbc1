"""Reading large files shows how far it is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from turnwise.data.files import sources
from turnwise.data.files.formats import file_rows
from turnwise.data.files.logs import read_logs
from turnwise.run import progress

MIB = 1 << 20
ROW = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "yes " * 64_000}]}


def written(path: Path, rows: int, *, packed: bool = False) -> Path:
    data = "".join(json.dumps({"id": str(i), **ROW}) + "\n" for i in range(rows)).encode()
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    return path


def test_what_has_been_read_is_told_every_mib(tmp_path: Path) -> None:
    """Twenty lines of a quarter of a MiB: after every four of them a MiB is passed."""
    file = written(tmp_path / "logs.jsonl", 20)
    told: list[int] = []
    assert len(list(file_rows(file, told.append))) == 20
    size = file.stat().st_size
    assert [x // MIB for x in told] == list(range(1, size // MIB + 1))
    assert told == sorted(told) and told[-1] <= size


def test_of_a_packed_file_the_packed_bytes_are_told(tmp_path: Path) -> None:
    """It is a hundredth of the size of what it unpacks to, and progress stays within it."""
    file = written(tmp_path / "logs.jsonl.gz", 20, packed=True)
    told: list[int] = []
    list(file_rows(file, told.append))
    assert told and 0 < told[-1] <= file.stat().st_size < MIB


def test_large_files_show_progress_and_small_or_quiet_ones_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """With lines as often as there is news: the first after one MiB of five."""
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    file = written(tmp_path / "logs.jsonl", 20)
    read_logs(file)
    assert "reading" not in capsys.readouterr().err
    monkeypatch.setattr(sources, "SHOWN_FROM", 1)
    read_logs(file)
    total = file.stat().st_size >> 20
    assert f"reading MiB: 1/{total}" in capsys.readouterr().err
    read_logs(file, quiet=True)
    assert capsys.readouterr().err == ""
