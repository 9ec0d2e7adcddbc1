"""Where rows come from: JSONL, gzipped or not, Parquet, `datasets`, or memory."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from turnwise.data.dataset import IN_MEMORY, Dataset
from turnwise.data.dialogue import Dialogue, chat_message
from turnwise.data.feedback import Feedback
from turnwise.data.files.fields import cut, one_line, unexpected
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError
from turnwise.run.rehearsal import rehearsing

Source = str | os.PathLike[str] | Iterable[Any]
"""A path, the name of a dataset, or rows in memory."""

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
FOLDER_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")  # a .json in a folder is more often a description

_MISSING = "found it not installed: pip install 'turnwise[data]'"
REHEARSED = 200
"""rows of a rehearsal"""
_BATCH = 1024  # rows that Arrow turns into Python objects at a time
_NUMBERS = ("outcome", "score", "margin")  # fields in which a NaN is no missing value but a broken number


class Row(NamedTuple):
    """A row as it was found: nothing of it is checked yet."""

    where: str
    """The place that errors name: `logs.jsonl:3`, lines from 1; or `row 3`, from 0."""
    id: str
    """Its id, unless it has one of its own."""
    value: Any


@runtime_checkable
class _Table(Protocol):
    """A table of pandas. To iterate over one gives the names of its columns, which would pass for prompts."""

    def iterrows(self) -> Any: ...
    def to_dict(self, orient: Any) -> Any: ...


Item = TypeVar("Item", bound=Dialogue | Feedback)


def read_items(source: Source, parse: Callable[[Row], Item], what: str) -> list[Item]:
    """All rows of `source` through `parse`; `what` is one of them in words.

    InputError if there is none, or if two have the same id.
    """
    found: list[Item] = []
    places: dict[str, str] = {}
    for row in read_rows(source):
        try:
            item = parse(row)
        except RecursionError:
            raise InputError(f"{row.where}: expected a {what}; found values nested too deeply") from None
        item = item if item.id else replace(item, id=row.id)
        earlier = places.get(item.id)
        if earlier is not None:
            raise unexpected(row.where, "id", f"an id of its own ({earlier} has it too)", item.id)
        places[item.id] = row.where
        found.append(item)
    if not found:
        raise nothing_in(source, what)
    return found


def name_of(source: Source) -> str:
    """What a data set is called that was read from `source`."""
    if isinstance(source, Dataset):
        return source.source
    return os.fspath(source) if isinstance(source, str | os.PathLike) else IN_MEMORY


def nothing_in(source: Source, what: str) -> InputError:
    """The refusal of a source without rows, to be raised."""
    return InputError(f"{name_of(source)}: expected at least one {what}; found nothing (it is empty)")


def read_rows(source: Source) -> Iterator[Row]:
    """The rows of a path or of an iterable.

    A path is a file, a folder of files, a folder that `datasets` saved or the name of a dataset (the last
    two with `:split` unless it is train). Raises InputError for what is not there or cannot be read. A
    rehearsal reads the first 200 rows.
    """
    yield from itertools.islice(_all_rows(source), REHEARSED if rehearsing() else None)


def _all_rows(source: Source) -> Iterator[Row]:
    if isinstance(source, str | os.PathLike):
        yield from _rows_at(os.fspath(source))
        return
    expected = "expected a path, the name of a dataset, or an iterable of rows"
    if isinstance(source, _Table):
        source = source.to_dict("records")
    if isinstance(source, Mapping):
        raise InputError(f"{expected}; found a dict (one row goes into a list, of splits name one)")
    if not isinstance(source, Iterable) or isinstance(source, bytes | np.ndarray):
        raise InputError(f"{expected}; found {type(source).__name__}")
    yield from _memory_rows(source)


def _rows_at(text: str) -> Iterator[Row]:
    if not text.strip():
        raise InputError("no name is given; expected a file, a folder or a dataset")
    try:
        before, colon, after = text.partition(":")
        name, split = (before, after) if colon and not Path(text).exists() else (text, None)
        path = Path(name)
        if path.is_dir():
            if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
                yield from _dataset_rows(name, split, on_disk=True)
                return
            files = sorted(p for p in path.iterdir() if p.name.endswith(FOLDER_SUFFIXES) and p.name[0] != ".")
            if not files:
                raise InputError(f"{text}: expected {', '.join(FOLDER_SUFFIXES)} files in it; found none")
        elif split is None and path.exists():
            files = [path]
            if not name.endswith(SUFFIXES):
                raise unexpected(text, "", f"a name that ends in {', '.join(SUFFIXES)}", path.name)
        elif re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name) and not name.endswith(SUFFIXES):
            yield from _dataset_rows(name, split, on_disk=False)
            return
        else:
            raise InputError(f"{text}: expected a file, a folder or a dataset; found no such file")
        for file in files:
            yield from _parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file)
    except OSError as error:
        raise InputError(f"{text}: expected what can be read; found {one_line(error)}") from None


def _json_rows(path: Path) -> Iterator[Row]:
    number = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if not line.isspace():
                    where = f"{path}:{number}"
                    value = _parse(line, where, first=number == 1)
                    if not isinstance(value, dict):
                        raise unexpected(where, "", "a JSON object a line", value)
                    yield Row(where, f"{path.name}:{number}", value)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            where = f"{path}:{number + 1}"
            raise InputError(f"{where}: expected a whole gzip file; found {one_line(error)}") from None


def _parse(line: bytes, where: str, first: bool) -> Any:
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")  # a byte-order mark is no part of the text
    except UnicodeDecodeError as error:
        found = f"byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line"
        raise InputError(f"{where}: expected UTF-8 text; found {found}") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        what = f"{error.msg.removesuffix(' at')} at column {error.pos + 1}"
        found = f"malformed JSON ({what}): {cut(ascii(text.strip())[1:-1])}"
    except ValueError:
        found = "a number with thousands of digits"
    except RecursionError:
        found = "values nested too deeply"
    raise InputError(f"{where}: expected a JSON object a line; found {found}")


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise InputError(f"{path}: expected the package pyarrow, which reads Parquet; {_MISSING}") from None
    try:
        with parquet.ParquetFile(path) as file:
            yield from _arrow_rows(str(path), path.name, file.iter_batches(batch_size=_BATCH))
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: expected a Parquet file; found {one_line(error)}") from None


def _dataset_rows(name: str, split: str | None, on_disk: bool) -> Iterator[Row]:
    expected = "a folder saved by datasets" if on_disk else "a file, a folder or the name of a dataset"
    try:
        import datasets
    except ImportError:
        where = name if on_disk else f"{name}: no such file or folder, so perhaps the name of a dataset"
        raise InputError(f"{where}: expected the package datasets, which reads it; {_MISSING}") from None
    wanted = split or "train"
    try:
        data: Any = datasets.load_from_disk(name) if on_disk else datasets.load_dataset(name, split=wanted)
        if isinstance(data, datasets.DatasetDict):
            if wanted not in data:
                raise ValueError(f"no split {wanted} among {', '.join(map(str, data))}")
            data = data[wanted]
        elif on_disk and split:
            raise ValueError(f"no splits, so none called {split}")
    except Exception as error:  # the hub, the disk and the network each raise kinds of their own
        raise InputError(f"{name}: expected {expected}; found {one_line(error)}") from None
    batches = data.with_format("arrow").iter(batch_size=_BATCH)
    yield from _arrow_rows(f"{name}:{split}" if split else name, Path(name).name, batches)


def _arrow_rows(label: str, name: str, batches: Iterable[Any]) -> Iterator[Row]:
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
            raise InputError(f"{label}:{first + i}: expected UTF-8 text; found {one_line(error)}") from None


# --- memory -------------------------------------------------------------------------------------------


def _memory_rows(rows: Iterable[Any]) -> Iterator[Row]:
    for number, row in enumerate(rows):
        where = f"row {number}"
        try:
            value = _plain_row(row, where) if isinstance(row, Mapping) else _plain(row)
        except RecursionError:
            raise InputError(f"{where}: expected a row; found values nested too deeply") from None
        yield Row(where, where, value)


def _plain_row(row: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """A copy in the types that JSON has, without the NaNs by which pandas fills what a row lacks."""
    found = {}
    for name, value in row.items():
        if not isinstance(name, str):
            raise unexpected(where, "", "columns whose names are text", name)
        value = _plain(value)
        if name in _NUMBERS or not _is_nan(value):
            found[name] = value
    return found


def _plain(value: Any) -> Any:
    """Containers copied, so that the caller may change theirs; values of numpy as Python's."""
    if isinstance(value, Message):
        return _message_row(value)
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _message_row(m: Message) -> dict[str, Any]:
    given = {} if m.behavior_logp is None else {"behavior_logp": m.behavior_logp}
    return {**chat_message(m), "reward": m.reward, **given}


def _is_nan(value: Any) -> bool:
    """Whether a value is one of pandas' words for nothing: NaN, NaT, NA."""
    try:
        return bool(value != value)
    except TypeError:  # NA compares to NA, which is neither true nor false
        return True
