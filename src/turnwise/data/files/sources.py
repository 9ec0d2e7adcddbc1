"""Where rows come from: a file, a folder of files, `datasets`, or memory."""

from __future__ import annotations

import difflib
import glob
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from turnwise.data.dataset import IN_MEMORY, Dataset
from turnwise.data.dialogue import chat_message
from turnwise.data.files.fields import one_line, unexpected
from turnwise.data.files.formats import NOT_INSTALLED, SUFFIXES, Row, arrow_rows, file_rows
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import rehearsing

Source = str | os.PathLike[str] | Iterable[Any]
"""A path, the name of a dataset, or rows in memory."""

FOLDER_SUFFIXES = tuple(s for s in SUFFIXES if not s.startswith(".json.") and s != ".json")
"""Of the files in a folder. A .json beside others is more often a description than data."""

SHOWN_FROM = 20
"""MiB of files from which reading shows progress: about two seconds"""
REHEARSED = 200
"""rows of a rehearsal"""
_BATCH = 1024  # rows of a dataset that Arrow turns into Python objects at a time
_NUMBERS = ("outcome", "score", "margin")  # of rows in memory: fields in which a NaN is a broken number


@runtime_checkable
class _Table(Protocol):
    """A table of pandas. To iterate over one gives the names of its columns, which would pass for prompts."""

    def iterrows(self) -> Any: ...
    def to_dict(self, orient: Any) -> Any: ...


def name_of(source: Source) -> str:
    """What a data set is called that was read from `source`."""
    if isinstance(source, Dataset):
        return source.source
    return os.fspath(source) if isinstance(source, str | os.PathLike) else IN_MEMORY


def read_rows(source: Source, *, quiet: bool = False) -> Iterator[Row]:
    """The rows of a path or of an iterable.

    A path is a file, a folder of files, a pattern of files (`logs/2026-*.parquet`), a folder that `datasets`
    saved or the name of a dataset (the last two with `:split` unless it is train). Raises InputError for what
    is not there or cannot be read. A rehearsal reads the first 200 rows. Large files show progress, unless
    `quiet`.
    """
    yield from itertools.islice(_all_rows(source, quiet), REHEARSED if rehearsing() else None)


def _all_rows(source: Source, quiet: bool) -> Iterator[Row]:
    if isinstance(source, str | os.PathLike):
        yield from _rows_at(os.fspath(source), quiet)
        return
    expected = "expected a path, the name of a dataset, or an iterable of rows"
    if isinstance(source, _Table):
        yield from _memory_rows(source.to_dict("records"), numbers=())  # NaN is its only word for nothing
        return
    if isinstance(source, Mapping):
        raise InputError(f"{expected}; found a dict (one row goes into a list, of splits name one)")
    if not isinstance(source, Iterable) or isinstance(source, bytes | np.ndarray):
        raise InputError(f"{expected}; found {type(source).__name__}")
    yield from _memory_rows(source)


def _rows_at(text: str, quiet: bool) -> Iterator[Row]:
    if not text.strip():
        raise InputError("no name is given; expected a file, a folder or a dataset")
    try:
        before, colon, after = text.partition(":")
        name, split = (before, after) if colon and not Path(text).exists() else (text, None)
        path = Path(name)
        if is_pattern(text):
            files = _matching(text)[0]
            if not files:
                expected = f"files of rows that match it ({', '.join(SUFFIXES)})"
                raise InputError(f"{text}: expected {expected}; found none")
        elif path.is_dir():
            if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
                yield from _dataset_rows(name, split, on_disk=True)
                return
            files, others = _files_in(path)
            if not files:
                found = f"only {', '.join(others[:5])}" if others else "none"
                raise InputError(
                    f"{text}: expected files of rows in it ({', '.join(SUFFIXES)}); found {found}"
                )
        elif split is None and path.exists():
            files = [path]
            if not name.endswith(SUFFIXES):
                raise unexpected(text, "", f"a name that ends in {', '.join(SUFFIXES)}", path.name)
        elif re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name) and not _names_a_file(path):
            yield from _dataset_rows(name, split, on_disk=False)
            return
        else:
            found = f"no such file{_like(path)}"
            raise InputError(f"{text}: expected a file, a folder or a dataset; found {found}")
        sizes = [file.stat().st_size for file in files]
        total = sum(sizes) >> 20
        with Progress("reading MiB", total, quiet=quiet or total < SHOWN_FROM) as bar:
            for i, file in enumerate(files):
                before = sum(sizes[:i])
                yield from file_rows(
                    file, lambda read, before=before: bar.at(min(total, before + read >> 20))
                )
            bar.at(total)
    except OSError as error:
        raise InputError(f"{text}: expected what can be read; found {one_line(error)}") from None


def is_pattern(text: str) -> bool:
    """Whether a path is a pattern of many: `logs/2026-*.parquet`, `logs/**/*.jsonl`."""
    return glob.has_magic(text) and not Path(text).exists()


def _matching(pattern: str) -> tuple[list[Path], list[str]]:
    """The files of rows that match, in the order of their names, and what else does."""
    found = sorted(Path(p) for p in glob.glob(pattern, recursive=True))
    rows = [p for p in found if p.name.endswith(SUFFIXES) and p.is_file()]
    return rows, [str(p) for p in found if p not in rows and not p.is_dir()]


def _names_a_file(path: Path) -> bool:
    """Whether a name is one of a file and of no dataset: an ending in a folder that is there.

    Else a slip in it would wait for the hub, which is asked for datasets.
    """
    ending = re.search(r"\.[A-Za-z]\w*$", path.name) is not None
    return path.name.endswith(SUFFIXES) or (ending and path.parent.is_dir())


def _like(path: Path) -> str:
    """What is there under a name that is nearly the same."""
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, names, 1)
    return f" (there is {path.parent / close[0]})" if close else ""


def _dataset_rows(name: str, split: str | None, on_disk: bool) -> Iterator[Row]:
    expected = "a folder saved by datasets" if on_disk else "a file, a folder or the name of a dataset"
    try:
        import datasets
    except ImportError:
        where = name if on_disk else f"{name}: no such file or folder, so perhaps the name of a dataset"
        raise InputError(f"{where}: expected the package datasets, which reads it; {NOT_INSTALLED}") from None
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
    yield from arrow_rows(f"{name}:{split}" if split else name, Path(name).name, batches)


def passed_over(source: Source) -> tuple[str, ...]:
    """Names of the files that were not read, of a folder of files or a pattern."""
    if not isinstance(source, str | os.PathLike):
        return ()
    if is_pattern(os.fspath(source)):
        return tuple(_matching(os.fspath(source))[1])
    if not (path := Path(source)).is_dir():
        return ()
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return ()
    return tuple(_files_in(path)[1])


def _files_in(folder: Path) -> tuple[list[Path], list[str]]:
    """The files that hold rows, in the order of their names, and the names of all else that is not hidden."""
    shown = sorted(p for p in folder.iterdir() if p.name[0] != ".")
    files = [p for p in shown if not p.is_dir()]
    rows = [p for p in files if p.name.endswith(FOLDER_SUFFIXES)]
    rows = rows or [p for p in files if p.name.endswith(SUFFIXES)]
    return rows, [p.name + "/" * p.is_dir() for p in shown if p not in rows]


# --- memory -------------------------------------------------------------------------------------------


def _memory_rows(rows: Iterable[Any], numbers: Collection[str] = _NUMBERS) -> Iterator[Row]:
    for number, row in enumerate(rows):
        where = f"row {number}"
        try:
            value = _plain_row(row, where, numbers) if isinstance(row, Mapping) else _plain(row)
        except RecursionError:
            value = InputError(f"{where}: expected a row; found values nested too deeply")
        except InputError as error:
            value = error
        yield Row(where, where, value)


def _plain_row(row: Mapping[Any, Any], where: str, numbers: Collection[str]) -> dict[str, Any]:
    """A copy in the types that JSON has, without the NaNs by which pandas fills what a row lacks.

    A NaN in one of `numbers` is kept, to be refused: a computation failed.
    """
    found = {}
    for name, value in row.items():
        if not isinstance(name, str):
            raise unexpected(where, "", "columns whose names are text", name)
        value = _plain(value)
        if name in numbers or not _is_nan(value):
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
    given = {"behavior_logp": m.behavior_logp, "act": m.act, "act_logp": m.act_logp}
    return {**chat_message(m), "reward": m.reward, **{k: v for k, v in given.items() if v is not None}}


def _is_nan(value: Any) -> bool:
    """Whether a value is one of pandas' words for nothing: NaN, NaT, NA."""
    try:
        return bool(value != value)
    except TypeError:  # NA compares to NA, which is neither true nor false
        return True
