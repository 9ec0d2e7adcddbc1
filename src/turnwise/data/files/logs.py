"""Logged conversations from anyone's files or from memory; and back to JSONL.

Every row passes one parser, whatever it was read from, so that the same conversation gives the same
`Dialogue` and the same error everywhere. `docs/how-to/logs.md` has the format and all errors.
"""

from __future__ import annotations

import datetime
import gzip
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from turnwise.data.dataset import Logs
from turnwise.data.dialogue import ROLES, Dialogue, chat_message
from turnwise.data.files.fields import one_line, read_name, read_number, unexpected, without_nulls
from turnwise.data.files.messages import read_message
from turnwise.data.files.sources import Row, Source, name_of, read_items
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError, SettingError

FIELDS = ("messages", "outcome", "terminated", "truncated", "id")


def read_logs(source: Source, *, agent_role: str = "assistant", credit_partner_rewards: bool = False) -> Logs:
    """All conversations of a path, or of rows in memory.

    `source` is a file, a folder of files, a `datasets` folder or name (`name:split`); or any iterable of
    rows: dicts with the fields of a row of a file, or `Dialogue`s, which are taken as they are.
    `agent_role` is whose messages are learnt from. With `credit_partner_rewards` a reward on a partner's
    message is added to the agent's message before it; without, it is refused. Anything wrong is an
    `InputError` in one line: `file:line: field: expected ...; found ...`, or `row 3: field: ...` with rows in
    memory counted from 0.
    """
    if agent_role not in ROLES:
        raise SettingError("agent_role", agent_role, f"one of {', '.join(ROLES)}")

    def parse(row: Row) -> Dialogue:
        if isinstance(row.value, Dialogue):
            return row.value
        return _dialogue(row, agent_role, credit_partner_rewards)

    return Logs(tuple(read_items(source, parse, "conversation")), name_of(source))


def to_row(dialogue: Dialogue) -> dict[str, Any]:
    """The row that `read_logs` turns into `dialogue` again; rewards stand on the messages, no outcome.

    Raises ValueError if a metadata key is a field of the format.
    """
    clash = sorted(set(dialogue.metadata) & set(FIELDS))
    if clash:
        raise ValueError(f"metadata keys {clash} are fields of the log format")
    messages = []
    for m in dialogue.messages:
        item = chat_message(m)
        if m.role == dialogue.agent_role:
            item["reward"] = m.reward
        if m.behavior_logp is not None:
            item["behavior_logp"] = m.behavior_logp
        messages.append(item)
    row: dict[str, Any] = {"id": dialogue.id} if dialogue.id else {}
    row |= {"messages": messages, ("terminated" if dialogue.terminated else "truncated"): True}
    return row | dict(dialogue.metadata)


def write_logs(path: str | Path, logs: Iterable[Dialogue], *, overwrite: bool = False) -> int:
    """Write conversations in the log format, whole or not at all, and return how many (see `write_jsonl`)."""
    return write_jsonl(path, map(to_row, logs), overwrite=overwrite)


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
            raise InputError(f"{place}: expected values that JSON holds; found {one_line(error)}") from None
        file.write(line + b"\n")
    return count


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__}")


# --- one conversation ---------------------------------------------------------------------------------


def _dialogue(found: Row, agent_role: str, credit: bool) -> Dialogue:
    where, row = found.where, found.value
    if not isinstance(row, dict):
        raise unexpected(where, "", "a dict, which is one conversation", row)
    messages = _messages(row.get("messages"), where, agent_role, credit)
    outcome = row.get("outcome")
    if outcome is not None:
        last = max(i for i, m in enumerate(messages) if m.role == agent_role)
        messages[last] = _rewarded(messages[last], read_number(outcome, where, "outcome"))
    return Dialogue(
        messages=tuple(messages),
        terminated=_terminated(row, where),
        id=read_name(row.get("id"), where, "id") or found.id,
        agent_role=agent_role,
        metadata={k: without_nulls(v) for k, v in row.items() if v is not None and k not in FIELDS},
    )


def _messages(items: Any, where: str, agent_role: str, credit: bool) -> list[Message]:
    if not isinstance(items, list):
        raise unexpected(where, "messages", "a list of messages, each with role and content", items)
    messages: list[Message] = []
    last = None  # index of the agent's latest message
    for i, item in enumerate(items):
        message = read_message(item, where, "messages", i)
        role = message.role
        reward, logp = item.get("reward"), item.get("behavior_logp")
        reward = 0.0 if reward is None else read_number(reward, where, f"messages[{i}].reward")
        if logp is not None:
            logp = read_number(logp, where, f"messages[{i}].behavior_logp")
            if logp > 0:
                expected = "the log of a probability, 0 or below"
                raise unexpected(where, f"messages[{i}].behavior_logp", expected, logp)
        if role == agent_role:
            last = i
        elif reward:
            if not credit or last is None:
                expected = f"expected a message of the agent ({agent_role}) before it"
                if not credit:
                    expected = f"expected rewards on messages of the agent ({agent_role}) alone"
                    expected += " (credit_partner_rewards gives them to its message before)"
                found = f"found {reward:g} on a message of the {role}"
                raise InputError(f"{where}: messages[{i}].reward: {expected}; {found}")
            messages[last] = _rewarded(messages[last], reward)
            reward = 0.0
        if reward or logp is not None:
            rest = (message.name, message.tool_calls, message.tool_call_id)
            message = Message(role, message.content, reward, logp, *rest)
        messages.append(message)
    if last is None:
        found = f"only {', '.join(sorted({m.role for m in messages}))}" if messages else "no messages"
        raise InputError(f"{where}: messages: expected a message of the agent ({agent_role}); found {found}")
    return messages


def _rewarded(m: Message, reward: float) -> Message:
    return replace(m, reward=m.reward + reward)


def _terminated(row: Mapping[str, Any], where: str) -> bool:
    terminated, truncated = row.get("terminated"), row.get("truncated")
    for field, value in (("terminated", terminated), ("truncated", truncated)):
        if value is not None and not isinstance(value, bool):
            raise unexpected(where, field, "true or false", value)
    if terminated is not None and terminated is truncated:
        found = "true" if terminated else "false"
        raise InputError(f"{where}: terminated: expected either terminated or truncated; found both {found}")
    return not truncated if terminated is None else terminated
