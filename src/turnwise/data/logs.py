"""Logged conversations from files of anyone's: JSONL, Parquet, `datasets`; and back to JSONL.

Every row passes one parser, whatever it was read from, so that the same conversation gives the same
`Dialogue` and the same error everywhere. `docs/logs.md` has the format and all errors.
"""

from __future__ import annotations

import datetime
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from turnwise.data.dialogue import ROLES, Dialogue
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError

FIELDS = ("messages", "outcome", "terminated", "truncated", "id")
SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
FOLDER_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")  # a .json in a folder is more often a description
LARGEST = 1e30  # float32, which training runs in, holds nothing above 3.4e38, sums and products included

_MISSING = "found it not installed: pip install 'turnwise[data]'"
_BATCH = 1024  # rows that Arrow turns into Python objects at a time


def read_logs(
    path: str | Path, *, agent_role: str = "assistant", credit_partner_rewards: bool = False
) -> list[Dialogue]:
    """All conversations of a file, a folder of files, or a `datasets` folder or name (`name:split`).

    `agent_role` is whose messages are learnt from. With `credit_partner_rewards` a reward on a partner's
    message is added to the agent's message before it; without, it is refused. Anything wrong is an
    `InputError` in one line: `file:line: field: expected ...; found ...`.
    """
    if agent_role not in ROLES:
        raise _error("agent_role", "", f"one of {', '.join(ROLES)}", agent_role)
    dialogues: list[Dialogue] = []
    places: dict[str, str] = {}
    for where, default_id, row in _rows(str(path)):
        try:
            dialogue = _dialogue(row, where, default_id, agent_role, credit_partner_rewards)
        except RecursionError:
            raise InputError(f"{where}: expected a conversation; found values nested too deeply") from None
        earlier = places.get(dialogue.id)
        if earlier is not None:
            raise _error(where, "id", f"an id of its own ({earlier} has it too)", dialogue.id)
        places[dialogue.id] = where
        dialogues.append(dialogue)
    if not dialogues:
        raise InputError(f"{path}: expected at least one conversation; found nothing (it is empty)")
    return dialogues


def to_row(dialogue: Dialogue) -> dict[str, Any]:
    """The row that `read_logs` turns into `dialogue` again; rewards stand on the messages, no outcome.

    Raises ValueError where a metadata key is a field of the format.
    """
    clash = sorted(set(dialogue.metadata) & set(FIELDS))
    if clash:
        raise ValueError(f"metadata keys {clash} are fields of the log format")
    messages = []
    for m in dialogue.messages:
        item: dict[str, Any] = {"role": m.role, "content": m.content}
        if m.role == dialogue.agent_role:
            item["reward"] = m.reward
        if m.behavior_logp is not None:
            item["behavior_logp"] = m.behavior_logp
        messages.append(item)
    row: dict[str, Any] = {"id": dialogue.id} if dialogue.id else {}
    row |= {"messages": messages, ("terminated" if dialogue.terminated else "truncated"): True}
    return row | dict(dialogue.metadata)


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]], *, overwrite: bool = False) -> int:
    """Write one JSON object a line (gzipped where the name ends in .gz) and return how many.

    The rows go to a hidden file beside `path` that is renamed when complete: whatever happens on the way,
    `path` holds all of them or what it held before. Raises InputError where `path` exists (unless
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
        with part.open("wb") as file:
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
            raise InputError(f"{place}: expected values that JSON holds; found {_line(error)}") from None
        file.write(line + b"\n")
    return count


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__}")


# --- one conversation ---------------------------------------------------------------------------------


def _dialogue(row: Any, where: str, default_id: str, agent_role: str, credit: bool) -> Dialogue:
    if not isinstance(row, dict):
        raise _error(where, "", "a JSON object (one conversation a line)", row)
    name = row.get("id")
    if name is None:
        name = default_id
    elif isinstance(name, bool) or not isinstance(name, str | int) or name == "" or not _is_text(str(name)):
        raise _error(where, "id", "text or a whole number", name)
    messages = _messages(row.get("messages"), where, agent_role, credit)
    outcome = row.get("outcome")
    if outcome is not None:
        last = max(i for i, m in enumerate(messages) if m.role == agent_role)
        messages[last] = _rewarded(messages[last], _number(outcome, where, "outcome"))
    return Dialogue(
        messages=tuple(messages),
        terminated=_terminated(row, where),
        id=str(name),
        agent_role=agent_role,
        metadata={k: _present(v) for k, v in row.items() if v is not None and k not in FIELDS},
    )


def _messages(items: Any, where: str, agent_role: str, credit: bool) -> list[Message]:
    if not isinstance(items, list):
        raise _error(where, "messages", "a list of messages, each with role and content", items)
    messages: list[Message] = []
    last = None  # where the agent spoke last
    for i, item in enumerate(items):
        if not isinstance(item, dict):
            raise _error(where, f"messages[{i}]", "an object with role and content", item)
        role, content = item.get("role"), item.get("content")
        if role not in ROLES:
            raise _error(where, f"messages[{i}].role", f"one of {', '.join(ROLES)}", role)
        if not isinstance(content, str) or not _is_text(content):
            hint = " (write tool calls out as text)" if item.get("tool_calls") else ""
            raise _error(where, f"messages[{i}].content", f"a string{hint}", content)
        reward, logp = item.get("reward"), item.get("behavior_logp")
        reward = 0.0 if reward is None else _number(reward, where, f"messages[{i}].reward")
        if logp is not None:
            logp = _number(logp, where, f"messages[{i}].behavior_logp")
            if logp > 0:
                expected = "the log of a probability, 0 or below"
                raise _error(where, f"messages[{i}].behavior_logp", expected, logp)
        if role == agent_role:
            last = i
        elif reward:
            if not credit or last is None:
                expected = f"expected a message of the agent ({agent_role}) before it"
                if not credit:
                    expected = f"expected rewards on messages of the agent ({agent_role}) alone"
                    expected += " (--credit-partner-rewards gives them to its message before)"
                found = f"found {reward:g} on a message of the {role}"
                raise InputError(f"{where}: messages[{i}].reward: {expected}; {found}")
            messages[last] = _rewarded(messages[last], reward)
            reward = 0.0
        messages.append(Message(role, content, reward, logp))
    if last is None:
        found = f"only {', '.join(sorted({m.role for m in messages}))}" if messages else "no messages"
        raise InputError(f"{where}: messages: expected a message of the agent ({agent_role}); found {found}")
    return messages


def _rewarded(m: Message, reward: float) -> Message:
    return Message(m.role, m.content, m.reward + reward, m.behavior_logp)


def _terminated(row: Mapping[str, Any], where: str) -> bool:
    terminated, truncated = row.get("terminated"), row.get("truncated")
    for field, value in (("terminated", terminated), ("truncated", truncated)):
        if value is not None and not isinstance(value, bool):
            raise _error(where, field, "true or false", value)
    if terminated is not None and terminated is truncated:
        found = "true" if terminated else "false"
        raise InputError(f"{where}: terminated: expected either terminated or truncated; found both {found}")
    return not truncated if terminated is None else terminated


def _number(value: Any, where: str, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise _error(where, field, f"a finite number (at most {LARGEST:g} in size)", value)
    return float(value)


def _present(value: Any) -> Any:
    """Metadata without nulls in its objects: Arrow fills in every key that any row has."""
    if isinstance(value, dict):
        return {k: _present(v) for k, v in value.items() if v is not None}
    return [_present(v) for v in value] if isinstance(value, list) else value


def _is_text(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON can smuggle in half a character (a lone surrogate)."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True


# --- where rows come from: each with its place and the id it gets if it has none -----------------------


def _rows(text: str) -> Iterator[tuple[str, str, Any]]:
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
                raise _error(text, "", f"a name that ends in {', '.join(SUFFIXES)}", path.name)
        elif re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name) and not name.endswith(SUFFIXES):
            yield from _dataset_rows(name, split, on_disk=False)
            return
        else:
            raise InputError(f"{text}: expected a file or folder with logs; found no such file")
        for file in files:
            yield from _parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file)
    except OSError as error:
        raise InputError(f"{text}: expected logs that can be read; found {_line(error)}") from None


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
            raise InputError(f"{where}: expected a whole gzip file; found {_line(error)}") from None


def _parse(line: bytes, where: str, first: bool) -> Any:
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")  # a byte-order mark is no part of the text
    except UnicodeDecodeError as error:
        found = f"byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line"
        raise InputError(f"{where}: expected UTF-8 text; found {found}") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        found = f"malformed JSON ({error.msg} at column {error.pos + 1}): {_cut(ascii(text.strip())[1:-1])}"
    except ValueError:
        found = "a number with thousands of digits"
    except RecursionError:
        found = "values nested too deeply"
    raise InputError(f"{where}: expected a JSON object (one conversation a line); found {found}")


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
        raise InputError(f"{path}: expected a Parquet file; found {_line(error)}") from None


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
        raise InputError(f"{name}: expected {expected}; found {_line(error)}") from None
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
            raise InputError(f"{label}:{first + i}: expected UTF-8 text; found {_line(error)}") from None


# --- words of errors ----------------------------------------------------------------------------------


def _error(where: str, field: str, expected: str, value: Any) -> InputError:
    place = f"{where}: {field}" if field else where
    return InputError(f"{place}: expected {expected}; found {_short(value)}")


def _short(value: Any) -> str:
    """A value as JSON, cut to one short line of printable characters; a missing one is `nothing`."""
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return _cut(text if text.isprintable() else json.dumps(value, default=repr))


def _line(error: BaseException) -> str:
    return _cut(" ".join(str(error).split()) or type(error).__name__, 160)


def _cut(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
