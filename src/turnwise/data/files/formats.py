"""Files of rows, by the last part of their names: JSON a line, JSON as a whole, tables of text, Parquet.

A row that cannot be read is an `InputError` in the place of its value, because the rows after it can be. A
file that cannot be read on raises it.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from turnwise.data.files.fields import cut, one_line, unexpected
from turnwise.run.errors import InputError
from turnwise.run.files.packed import unpacked

SUFFIXES = (
    *(".jsonl", ".ndjson", ".json", ".csv", ".tsv"),
    *(".jsonl.gz", ".ndjson.gz", ".json.gz", ".csv.gz", ".tsv.gz"),
    ".parquet",
)
NOT_INSTALLED = "found it not installed: pip install 'turnwise[data]'"

_BATCH = 1024  # rows that Arrow turns into Python objects at a time
_BUFFERED = 1 << 16  # bytes of a column of Parquet that are read at a time
_LONGEST_FIELD = 2**31 - 1  # characters of a field of a table, which holds a whole conversation at times
_MARK = b"\xef\xbb\xbf"  # of byte order: it is no part of the text
_SPACE = re.compile(r"[ \t\r\n]*")
_decode = json.JSONDecoder().raw_decode


class Row(NamedTuple):
    """A row as it was found: nothing of it is checked yet."""

    where: str
    """The place that errors name: `logs.jsonl:3`, lines from 1; `logs.json[3]` or `row 3`, from 0."""
    id: str
    """Its id, unless it has one of its own."""
    value: Any
    """What is there; an `InputError` if nothing can be made of it."""


def file_rows(path: Path, at: Callable[[int], None] | None = None) -> Iterator[Row]:
    """The rows of a file. InputError if it cannot be read to its end, or its name ends in no known way.

    `at` is called now and then with the bytes that have been read; not of Parquet.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from _parquet_rows(path)
        return
    with unpacked(path, packed=path.suffix == ".gz", at=at) as file:
        try:
            if name.endswith((".csv", ".tsv")):
                yield from _table_rows(path, iter(file), "\t" if name.endswith(".tsv") else None)
            else:
                yield from _json_rows(path, iter(file), pretty=name.endswith(".json"))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            where = f"{path}:{file.lines + 1}"
            raise InputError(f"{where}: expected a whole gzip file; found {one_line(error)}") from None


# --- JSON ---------------------------------------------------------------------------------------------


def _json_rows(path: Path, lines: Iterator[bytes], pretty: bool) -> Iterator[Row]:
    """An object a line; or one list of objects. With `pretty` an object may take several lines."""
    blank, first = 0, b""
    for first in lines:
        if first.removeprefix(_MARK).strip():
            break
        blank += 1
    start = first.removeprefix(_MARK).lstrip()[:1]
    if start == b"[":
        yield from _values(path, _whole(path, [first, *lines]))
        return
    if pretty and start == b"{" and isinstance(_parsed(first, "", first=True), InputError):
        rest = [first, *lines]
        with contextlib.suppress(InputError):
            yield from list(_values(path, _whole(path, rest)))
            return
        first, *rest = rest  # line by line then, so that what is wrong is said of a line
        lines = iter(rest)
    for number, line in enumerate(itertools.chain([first], lines), start=blank + 1):
        if line and not line.isspace():
            where = f"{path}:{number}"
            yield Row(where, f"{path.name}:{number}", _parsed(line, where, first=number == 1))


def _parsed(line: bytes, where: str, first: bool) -> dict[str, Any] | InputError:
    """The object of a line, or what is wrong with it."""
    text = _text(line, where, first)
    if isinstance(text, InputError):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return InputError(f"{where}: expected a JSON object a line; found {_malformed(error, text)}")
    return value if isinstance(value, dict) else unexpected(where, "", "a JSON object a line", value)


def _text(data: bytes, where: str, first: bool) -> str | InputError:
    """The text of a line, or what is wrong with it."""
    try:
        return data.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x} at byte {error.start + 1} of the line"
        return InputError(f"{where}: expected UTF-8 text; found {found}")


def _whole(path: Path, lines: Iterable[bytes]) -> str:
    texts = []
    for number, line in enumerate(lines, start=1):
        text = _text(line, f"{path}:{number}", first=number == 1)
        if isinstance(text, InputError):
            raise text
        texts.append(text)
    return "".join(texts)


def _malformed(error: BaseException, text: str) -> str:
    if isinstance(error, json.JSONDecodeError):
        what = f"{error.msg.removesuffix(' at')} at column {error.pos + 1}"
        return f"malformed JSON ({what}): {cut(ascii(text.strip())[1:-1])}"
    if isinstance(error, RecursionError):
        return "values nested too deeply"
    return "a number with thousands of digits"


def _values(path: Path, text: str) -> Iterator[Row]:
    """The values of one JSON list, or objects that follow each other, one at a time."""
    at = _after_space(text, 0)
    in_list = text[at] == "["
    at = _after_space(text, at + in_list)
    for number in itertools.count():
        if text[at : at + 1] == ("]" if in_list else ""):
            break
        where = f"{path}[{number}]"
        try:
            value, at = _decode(text, at)
        except (ValueError, RecursionError) as error:
            raise _broken(path, text, getattr(error, "pos", at), error) from None
        if not isinstance(value, dict):
            value = unexpected(where, "", "a JSON object", value)
        yield Row(where, f"{path.name}[{number}]", value)
        at = _after_space(text, at)
        if in_list and text[at : at + 1] == ",":
            at = _after_space(text, at + 1)
        elif in_list and text[at : at + 1] != "]":
            raise _broken(path, text, at, json.JSONDecodeError("Expecting ',' delimiter", text, at))
    if in_list and _after_space(text, at + 1) < len(text):
        raise _broken(path, text, at + 1, json.JSONDecodeError("Extra data", text, at + 1))


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _broken(path: Path, text: str, at: int, error: BaseException) -> InputError:
    """The refusal of a whole file, which is read no further than to its fault."""
    line, begins = text.count("\n", 0, at) + 1, text.rfind("\n", 0, at) + 1
    shown = text[begins : begins + 200]
    if isinstance(error, json.JSONDecodeError):
        error = json.JSONDecodeError(error.msg, shown, min(at - begins, len(shown)))
        error.pos = at - begins
    found = _malformed(error, shown)
    return InputError(f"{path}:{line}: expected JSON objects, or one list of them; found {found}")


# --- tables of text -----------------------------------------------------------------------------------


def _table_rows(path: Path, lines: Iterator[bytes], delimiter: str | None) -> Iterator[Row]:
    """Rows as dicts by the names of the first line; what is empty is absent, and everything else is text."""
    where, number = f"{path}:1", 0

    def texts() -> Iterator[str]:
        for i, line in enumerate(lines):
            text = _text(line, f"{path}:{i + 1}", first=i == 0)
            if isinstance(text, InputError):
                raise text
            yield text

    header = texts()
    first = next(header, "")
    if delimiter is None:
        delimiter = max(",;\t", key=first.count)  # spreadsheets of half the world write semicolons
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(itertools.chain([first], header), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise unexpected(where, "", "a first line of different names of columns", f"{twice} twice")
        while True:
            number = reader.line_num + 1
            where = f"{path}:{number}"
            cells = next(reader, None)
            if cells is None:
                return
            if not any(cells):
                continue
            value: Any
            if len(cells) == len(names):
                value = {name: cell for name, cell in zip(names, cells, strict=True) if name and cell}
            else:
                value = InputError(
                    f"{where}: expected {len(names)} columns, as in the first line; found {len(cells)}"
                )
            yield Row(where, f"{path.name}:{number}", value)
    except csv.Error as error:
        raise InputError(f"{where}: expected a table of text; found {one_line(error)}") from None


# --- Arrow --------------------------------------------------------------------------------------------


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        expected = "expected the package pyarrow, which reads Parquet"
        raise InputError(f"{path}: {expected}; {NOT_INSTALLED}") from None
    try:
        with parquet.ParquetFile(path, buffer_size=_BUFFERED, pre_buffer=False) as file:
            yield from arrow_rows(str(path), path.name, _batches(file))
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: expected a Parquet file; found {one_line(error)}") from None


def _batches(file: Any) -> Iterator[Any]:
    """The rows of a Parquet file, some at a time, in the memory that these take.

    Asked for all groups of rows, pyarrow reads ahead until it holds the file. Asked for one group after the
    other, without a buffer, it holds whole columns of the group. What it frees it keeps, until it is told.
    """
    import pyarrow

    for group in range(file.num_row_groups):
        for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group], use_threads=False):
            yield batch
            pyarrow.default_memory_pool().release_unused()


def arrow_rows(label: str, name: str, batches: Iterable[Any]) -> Iterator[Row]:
    """The rows of Arrow's record batches or tables."""
    first = 1
    for batch in batches:
        try:
            rows = iter(batch.to_pylist())
        except ValueError:  # text that is not UTF-8, for one: row by row, to name the row
            rows = _row_by_row(batch, label, first)
        for number, row in enumerate(rows, start=first):
            yield Row(f"{label}:{number}", f"{name}:{number}", row)
        first += len(batch)


def _row_by_row(batch: Any, label: str, first: int) -> Iterator[Any]:
    for i in range(len(batch)):
        try:
            yield batch.slice(i, 1).to_pylist()[0]
        except ValueError as error:
            yield InputError(f"{label}:{first + i}: expected UTF-8 text; found {one_line(error)}")
