"""Rows to JSONL, whole or not at all."""

from __future__ import annotations

import datetime
import gzip
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from turnwise.data.files.fields import one_line
from turnwise.run.errors import InputError
from turnwise.run.files.trouble import named


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]], *, overwrite: bool = False) -> int:
    """Write one JSON object a line (gzipped if the name ends in .gz) and return how many.

    The rows go to a hidden file beside `path` that is renamed when complete: whatever happens on the way,
    `path` holds all of them or what it held before. Raises InputError if `path` exists (unless
    `overwrite`), its folder does not, or a row holds what JSON cannot.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: expected the name of a file to write; found a folder")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: expected a new file; found one that exists (overwrite replaces it)")
    if not path.parent.is_dir():
        raise InputError(f"{path}: expected an existing folder to write in; found no folder {path.parent}")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # Around the whole block: what waits in a buffer meets the full disk when the file is closed.
        with named(path), part.open("wb") as file:
            if path.suffix == ".gz":  # no name and no time inside: the same rows give the same bytes
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as zipped:
                    count = _write_lines(path, rows, zipped)
            else:
                count = _write_lines(path, rows, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]], file: IO[bytes] | gzip.GzipFile) -> int:
    count = 0
    for count, row in enumerate(rows, start=1):
        try:
            line = json.dumps(dict(row), ensure_ascii=False, allow_nan=False, default=_jsonable).encode()
        except (TypeError, ValueError, RecursionError) as error:
            place = f"{path}:{count}"
            raise InputError(f"{place}: expected values that JSON holds; found {one_line(error)}") from None
        file.write(line + b"\n")
    return count


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__}")
