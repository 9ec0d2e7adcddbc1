"""Where logged rows come from: JSONL, gzipped or not, Parquet, `datasets`; and the words of refusals."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from turnwise.run.errors import InputError

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
FOLDER_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")  # a .json in a folder is more often a description

_MISSING = "found it not installed: pip install 'turnwise[data]'"
_BATCH = 1024  # rows that Arrow turns into Python objects at a time


def rows_of(text: str) -> Iterator[tuple[str, str, Any]]:
    """The rows of logs: (place to name in errors, id if the row has none of its own, row).

    `text` is a file, a folder of files, a folder that `datasets` saved or the name of a dataset (the last
    two with `:split` where it is not train). Raises InputError for what is not there or cannot be read.
    """
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


def _json_rows(path: Path) -> Iterator[tuple[str, str, Any]]:
    number = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if not line.isspace():
                    where = f"{path}:{number}"
                    yield where, f"{path.name}:{number}", _parse(line, where, first=number == 1)
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
        found = f"malformed JSON ({what}): {_cut(ascii(text.strip())[1:-1])}"
    except ValueError:
        found = "a number with thousands of digits"
    except RecursionError:
        found = "values nested too deeply"
    raise InputError(f"{where}: expected a JSON object a line; found {found}")


def _parquet_rows(path: Path) -> Iterator[tuple[str, str, Any]]:
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


def _dataset_rows(name: str, split: str | None, on_disk: bool) -> Iterator[tuple[str, str, Any]]:
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


def _arrow_rows(label: str, name: str, batches: Iterable[Any]) -> Iterator[tuple[str, str, Any]]:
    first = 1
    for batch in batches:
        try:
            rows = iter(batch.to_pylist())
        except ValueError:  # text that is not UTF-8, for one: row by row, to name the row
            rows = _row_by_row(batch, label, first)
        for number, row in enumerate(rows, start=first):
            yield f"{label}:{number}", f"{name}:{number}", row
        first += len(batch)


def _row_by_row(batch: Any, label: str, first: int) -> Iterator[Any]:
    for i in range(len(batch)):
        try:
            yield batch.slice(i, 1).to_pylist()[0]
        except ValueError as error:
            raise InputError(f"{label}:{first + i}: expected UTF-8 text; found {one_line(error)}") from None


# --- words of errors ----------------------------------------------------------------------------------


def unexpected(where: str, field: str, expected: str, value: Any) -> InputError:
    """The refusal of `value` in a field (empty: all of it), to be raised: `where: field: expected ...`."""
    place = f"{where}: {field}" if field else where
    return InputError(f"{place}: expected {expected}; found {_short(value)}")


def _short(value: Any) -> str:
    """A value as JSON, cut to one short line of printable characters; a missing one is `nothing`."""
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return _cut(text if text.isprintable() else json.dumps(value, default=repr))


def one_line(error: BaseException) -> str:
    """What an error of somebody else's says, without its line breaks and cut to 160 characters."""
    return _cut(" ".join(str(error).split()) or type(error).__name__, 160)


def _cut(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
