"""Files that unpack to more than anybody has memory for: refused where it shows, by name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

import turnwise as tw
from turnwise.exact.files.pomdp import read_pomdp
from turnwise.exact.files.pomdpx import read_pomdpx
from turnwise.run.errors import InputError
from turnwise.run.files.packed import ANYWAY, LONGEST_LINE

MIB = 1 << 20
TALK = {"messages": [{"role": "user", "content": "yes or no"}, {"role": "assistant", "content": "yes"}]}


def packed(path: Path, piece: bytes, times: int, first: bytes = b"") -> Path:
    """The piece as often as it is said, packed: memory for one of them is enough."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(first)
        for _ in range(times):
            file.write(piece)
    return path


@pytest.mark.parametrize("name", ["l.jsonl.gz", "l.json.gz", "l.csv.gz", "l.jsonl"])
def test_a_line_of_gigabytes_is_refused_before_it_fills_the_memory(name: str, tmp_path: Path) -> None:
    """65 MiB of one line, where 64 are read; the second line of the file."""
    row = json.dumps(TALK).encode() + b"\n" if "json" in name else b"prompt,completion\n"
    path, piece, times = tmp_path / name, b"x" * MIB, (LONGEST_LINE >> 20) + 1
    if name.endswith(".gz"):
        packed(path, piece, times, row)
    else:
        path.write_bytes(row + piece * times)
    with pytest.raises(InputError, match=r":2: expected a line of at most 64 MiB; found a longer one"):
        tw.read_logs(path)


def test_a_file_that_unpacks_a_thousandfold_is_refused(tmp_path: Path) -> None:
    """Blank lines of a MiB each, packed to a thousandth: 65 MiB of them, where 64 are read."""
    path = packed(tmp_path / "l.jsonl.gz", b" " * (MIB - 1) + b"\n", (ANYWAY >> 20) + 1)
    assert path.stat().st_size < MIB
    with pytest.raises(InputError, match=r"unpacks to at most 200 times its size; found one that goes on"):
        tw.read_logs(path)


@pytest.mark.parametrize(("name", "read"), [("p.pomdp.gz", read_pomdp), ("p.pomdpx.gz", read_pomdpx)])
def test_problems_are_not_unpacked_without_end_either(name: str, read: object, tmp_path: Path) -> None:
    path = packed(tmp_path / name, b"# " + b" " * (MIB - 3) + b"\n", (ANYWAY >> 20) + 1)
    with pytest.raises(InputError, match="unpacks to at most 200 times its size"):
        read(path)  # type: ignore[operator]


def test_logs_that_repeat_themselves_are_read(tmp_path: Path) -> None:
    """5,000 equal talks: packed to a hundredth, and half a MiB is no bomb whatever they were packed to."""
    rows = "".join(json.dumps(TALK | {"id": str(i)}) + "\n" for i in range(5_000))
    path = tmp_path / "l.jsonl.gz"
    path.write_bytes(gzip.compress(rows.encode(), 9))
    assert len(tw.read_logs(path)) == 5_000
