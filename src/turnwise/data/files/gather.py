"""Tables with one row a message: the rows of each conversation become one row."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from turnwise.data.files.fields import cut
from turnwise.data.files.formats import Row
from turnwise.data.files.messages import MESSAGES, ROLE, WORDS, listed
from turnwise.run.errors import InputError

CONVERSATION = (
    *("conversation_id", "conversation", "conv_id", "dialogue_id", "dialog_id", "dialogue", "dialog"),
    *("session_id", "session", "thread_id", "thread", "chat_id", "chat", "call_id", "ticket_id", "ticket"),
    "id",
)
"""names of the column that says which conversation a message belongs to; the first that is there counts"""
_OF_A_MESSAGE = (
    *("role", "content", "reward", "behavior_logp", "name", "tool_calls", "function_call", "tool_call_id"),
    *("act", "act_logp"),
    *ROLE,
    *WORDS,
)


class Gathered(NamedTuple):
    """Rows of conversations, and how they came about."""

    rows: Iterator[Row]
    by: str | None
    """The column by which rows of messages were put together; None: every row was a conversation."""


def gathered(rows: Iterable[Row], outcome: str = "outcome") -> Gathered:
    """Rows of conversations. The columns of the first row tell whether rows are conversations or messages.

    Messages of a conversation keep their order and need not be neighbours. A column in which all its rows
    that have a value agree is a column of the conversation; others belong to its messages and are not kept.
    `outcome` is the column that must agree.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return Gathered(iter(()), None)
    everything = itertools.chain([first], rows)
    by = _column_of(first.value)
    if by is None:
        return Gathered(everything, None)
    return Gathered(_conversations(everything, by, (outcome, "terminated", "truncated")), by)


def is_message(row: Mapping[str, Any]) -> bool:
    """Whether a row has the columns of a single message."""
    speaks = any(row.get(name) is not None for name in ROLE)
    return speaks and any(row.get(name) is not None for name in WORDS)


def _column_of(row: Any) -> str | None:
    if not isinstance(row, Mapping) or any(isinstance(listed(row.get(n)), list) for n in MESSAGES):
        return None
    by = next((name for name in CONVERSATION if row.get(name) is not None), None)
    return by if is_message(row) else None


def _conversations(rows: Iterable[Row], by: str, agreed: Sequence[str]) -> Iterator[Row]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if isinstance(row.value, InputError):
            yield row  # nobody knows which conversation lacks it
        elif not isinstance(row.value, Mapping) or row.value.get(by) is None:
            fault = InputError(f"{row.where}: {by}: expected the conversation of the message; found nothing")
            yield row._replace(value=fault)
        else:
            found.setdefault(str(row.value[by]), []).append(row)
    if by == "id" and len(found) > 1 and max(map(len, found.values())) == 1:
        place = next(iter(found.values()))[0].where
        expected = f"expected a column that says which conversation a message belongs to ({CONVERSATION[0]})"
        raise InputError(f"{place}: {expected}; found an id of its own for every message")
    for name, of_one in found.items():
        yield _conversation(name, of_one, by, agreed)


def _conversation(name: str, rows: Sequence[Row], by: str, agreed: Sequence[str]) -> Row:
    where = rows[0].where
    messages: list[dict[str, Any]] = []
    shared: dict[str, Any] = {}
    torn: dict[str, Any] = {}
    for row in rows:
        message = {}
        for column, value in row.value.items():
            if column in _OF_A_MESSAGE:
                message[column] = value
            elif value is not None and column not in (by, "id") and shared.setdefault(column, value) != value:
                torn[column] = value
        if all(message.get(column) is None for column in WORDS):
            message["content"] = ""  # tables have no other word for a message that says nothing
        messages.append(message)
    for column in agreed:
        if column in torn:
            found = f"found {cut(repr(shared[column]))} and {cut(repr(torn[column]))}"
            fault = InputError(f"{where}: {column}: expected one value in all rows of {name!r}; {found}")
            return Row(where, name, fault)
    columns = {column: value for column, value in shared.items() if column not in torn}
    return Row(where, name, {**columns, "id": name, "messages": messages})
