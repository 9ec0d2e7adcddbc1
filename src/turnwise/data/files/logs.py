"""Logged conversations from anyone's files or from memory; and back to JSONL.

Every row passes one parser, whatever it was read from, so that the same conversation gives the same
`Dialogue` and the same error everywhere. `docs/how-to/logs.md` has the format and all errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from turnwise.data.compact import RATED, CompactDialogues
from turnwise.data.dataset import Logs
from turnwise.data.dialogue import ROLES, Dialogue, chat_message
from turnwise.data.disk.places import Places
from turnwise.data.files.faults import Faults, Names, items_of
from turnwise.data.files.fields import (
    read_flag,
    read_name,
    read_number,
    read_worth,
    unexpected,
    without_nulls,
)
from turnwise.data.files.formats import Row
from turnwise.data.files.gather import CONVERSATION, gathered, is_message
from turnwise.data.files.messages import MESSAGES, MapRole, Roles, listed, read_message
from turnwise.data.files.sources import Source, name_of, read_rows
from turnwise.data.files.writing import write_jsonl
from turnwise.data.splits.choices import Ratings
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError, SettingError

_ENDS = ("terminated", "truncated")
TRUNCATIONS = ("cut", "end")
"""what a truncated conversation is: one that could have gone on, or one that had come to its end"""
FIELDS = ("messages", "outcome", *_ENDS, "id")


def read_logs(
    source: Source,
    *,
    agent_role: str = "assistant",
    credit_partner_rewards: bool = False,
    outcome_column: str | None = None,
    missing_outcome: str | float | None = None,
    truncation: str = "cut",
    map_role: MapRole = (),
    skip_bad: bool = False,
    quiet: bool = False,
) -> Logs:
    """All conversations of a path, or of rows in memory.

    `source` is a file, a folder of files, a `datasets` folder or name (`name:split`); or any iterable of
    rows: dicts with the fields of a row of a file, or values of `Dialogue`, taken as they are. A row is a
    conversation, or else a message with a column that says to which conversation it belongs.

    `agent_role` is whose messages are learnt from. With `credit_partner_rewards` a reward on a partner's
    message is added to the agent's message before it; without, it is refused. `outcome_column` is the column
    with the outcome, if it has another name. `missing_outcome` says what becomes of conversations that ended
    without an outcome where others have one: "leave-out", or a number that they count as; without it they are
    kept as what they are, and what learns from outcomes refuses them. `truncation` says what a conversation
    is that was truncated: "cut", so that what would have followed is still worth something, or "end", where
    the limit that cut it is a rule of the talk and nothing can follow. `map_role` says whose messages a role
    of another name has: `{"rep": "assistant"}`.

    Anything wrong is an `InputError`: `file:line: field: expected ...; found ...`, or `row 3: field: ...`
    with rows in memory counted from 0. It tells the first ten faults and how many there are. With `skip_bad`
    bad rows are left out instead, and `reading` of what is returned says how many and why. Large files show
    progress, unless `quiet`.
    """
    if agent_role not in ROLES:
        raise SettingError("agent_role", agent_role, f"one of {', '.join(ROLES)}")
    missing = _missing_outcome(missing_outcome)
    if truncation not in TRUNCATIONS:
        raise SettingError("truncation", truncation, f"{TRUNCATIONS[0]} or {TRUNCATIONS[1]}")
    form = _Form(agent_role, credit_partner_rewards, outcome_column or "outcome", Roles(map_role))
    rows = gathered(read_rows(source, quiet=quiet), form.outcome)
    faults, names = Faults(name_of(source), "conversation"), Names()
    items = items_of(rows.rows, lambda row: dialogue_of(row, form), faults, names)
    dialogues = CompactDialogues.of(items)
    twice = names.repeated(lambda i: dialogues[i].id, faults)
    if len(twice):
        dialogues = dialogues.select(np.setdiff1d(np.arange(len(dialogues)), twice))
    faults.judge(len(dialogues), skip_bad)
    ratings = Ratings.of(dialogues)
    if outcome_column is not None and not ratings.count[:, RATED.index("outcome")].any():
        expected = f"a column of {faults.name}; no conversation has a value in one of that name"
        raise SettingError("outcome_column", outcome_column, expected)
    reading = faults.reading(source, rows.by)
    if truncation == "end" and ratings.count[0].any():
        reading = replace(reading, cut_as_ended=int(ratings.count[0].sum()))
        dialogues = CompactDialogues.of(d if d.terminated else replace(d, terminated=True) for d in dialogues)
        ratings = Ratings.of(dialogues)
    if missing is not None and ratings.missing:
        without = (ratings.lacks_outcome(known) for known in dialogues.known())
        if isinstance(missing, str):
            dialogues = dialogues.select(Places.where(~block for block in without))
        else:
            lacks = (bool(x) for block in without for x in block)
            pairs = zip(dialogues, lacks, strict=True)
            dialogues = CompactDialogues.of(_counted_as(d, missing) if x else d for d, x in pairs)
        reading = replace(reading, without_outcome=ratings.missing, missing_outcome=missing)
    return Logs(dialogues, faults.name, reading)


def to_row(dialogue: Dialogue) -> dict[str, Any]:
    """The row that `read_logs` turns into `dialogue` again; rewards stand on the messages.

    If the conversation has an outcome, what the agent's last message earned is written as that. Raises
    ValueError if a metadata key is a field of the format.
    """
    clash = sorted(set(dialogue.metadata) & set(FIELDS))
    if clash:
        raise ValueError(f"metadata keys {clash} are fields of the log format")
    messages = []
    for m in dialogue.messages:
        item = chat_message(m)
        if m.role == dialogue.agent_role and dialogue.rated_by != "nothing":
            item["reward"] = m.reward
        if m.behavior_logp is not None:
            item["behavior_logp"] = m.behavior_logp
        if m.act is not None:
            item["act"] = m.act
        if m.act_logp is not None:
            item["act_logp"] = m.act_logp
        messages.append(item)
    row: dict[str, Any] = {"id": dialogue.id} if dialogue.id else {}
    row |= {"messages": messages, ("terminated" if dialogue.terminated else "truncated"): True}
    if dialogue.rated_by == "outcome":
        row["outcome"] = next(item for item in reversed(messages) if "reward" in item).pop("reward")
    return row | dict(dialogue.metadata)


def write_logs(path: str | Path, logs: Iterable[Dialogue], *, overwrite: bool = False) -> int:
    """Write conversations in the log format, whole or not at all, and return how many (see `write_jsonl`)."""
    return write_jsonl(path, map(to_row, logs), overwrite=overwrite)


# --- one conversation ---------------------------------------------------------------------------------


class _Form(NamedTuple):
    """How the rows of a source are understood."""

    agent_role: str
    credit: bool
    outcome: str
    roles: Roles


def dialogue_of(found: Row, form: _Form) -> Dialogue:
    """The conversation of a row; InputError if it has none."""
    where, row = found.where, found.value
    if isinstance(row, Dialogue):
        return row
    if not isinstance(row, dict):
        raise unexpected(where, "", "a dict, which is one conversation", row)
    column, items, used = _items(row, where)
    messages, rewarded = _messages(items, where, column, form)
    outcome = row.get(form.outcome)
    if isinstance(outcome, str) and not outcome.strip():  # an empty cell of somebody's export
        outcome = None
    if outcome is not None:
        last = max(i for i, m in enumerate(messages) if m.role == form.agent_role)
        messages[last] = _rewarded(messages[last], read_worth(outcome, where, form.outcome))
    used |= {form.outcome, *_ENDS, "id"}
    metadata = {k: without_nulls(v) for k, v in row.items() if v is not None and k not in used}
    if "outcome" in metadata:  # another column has the outcome
        metadata["logged_outcome"] = metadata.pop("outcome")
    return Dialogue(
        messages=tuple(messages),
        terminated=_terminated(row, where),
        id=read_name(row.get("id"), where, "id") or found.id,
        agent_role=form.agent_role,
        metadata=metadata,
        rated_by="outcome" if outcome is not None else "rewards" if rewarded else "nothing",
    )


def _items(row: Mapping[str, Any], where: str) -> tuple[str, list[Any], set[str]]:
    """The column that holds the messages, what is in it, and the columns that it was taken from."""
    column = next((name for name in MESSAGES if row.get(name) is not None), MESSAGES[0])
    items = listed(row.get(column))
    if not isinstance(items, list):
        expected = "a list of messages, each with role and content"
        if items is None and is_message(row):
            expected += f"; or, where a row is a message, a column {CONVERSATION[0]}"
        raise unexpected(where, column, expected, items)
    if column != MESSAGES[0] and isinstance(row.get("system"), str):  # ShareGPT writes it beside the others
        return column, [{"role": "system", "content": row["system"]}, *items], {column, "system"}
    return column, items, {column}


def _messages(items: list[Any], where: str, column: str, form: _Form) -> tuple[list[Message], bool]:
    """The messages with their rewards, and whether any of them says a reward."""
    messages: list[Message] = []
    agent_role, rewarded = form.agent_role, False
    last = None  # index of the agent's latest message
    for i, item in enumerate(items):
        message = read_message(item, where, column, i, form.roles)
        role = message.role
        reward = item.get("reward")
        logp = _log_probability(item, "behavior_logp", where, f"{column}[{i}]")
        act_logp = _log_probability(item, "act_logp", where, f"{column}[{i}]")
        if reward is None:
            reward = 0.0
        else:
            reward, rewarded = read_worth(reward, where, f"{column}[{i}].reward"), True
        if role == agent_role:
            last = i
        elif reward:
            if not form.credit or last is None:
                expected = f"expected a message of the agent ({agent_role}) before it"
                if not form.credit:
                    expected = f"expected rewards on messages of the agent ({agent_role}) alone"
                    expected += " (credit_partner_rewards gives them to its message before)"
                found = f"found {reward:g} on a message of the {role}"
                raise InputError(f"{where}: {column}[{i}].reward: {expected}; {found}")
            messages[last] = _rewarded(messages[last], reward)
            reward = 0.0
        if reward or logp is not None or act_logp is not None:
            rest = (message.name, message.tool_calls, message.tool_call_id, message.act)
            message = Message(role, message.content, reward, logp, *rest, act_logp)
        messages.append(message)
    form.roles.expect_one_name_a_side(items, where, column)
    if last is None:
        found = f"only {', '.join(sorted({m.role for m in messages}))}" if messages else "no messages"
        raise InputError(f"{where}: {column}: expected a message of the agent ({agent_role}); found {found}")
    return messages, rewarded


def _log_probability(item: Mapping[str, Any], name: str, where: str, field: str) -> float | None:
    """A field that is the log of a probability; None if it is not there, InputError above 0."""
    if item.get(name) is None:
        return None
    logp = read_number(item[name], where, f"{field}.{name}")
    if logp > 0:
        raise unexpected(where, f"{field}.{name}", "the log of a probability, 0 or below", logp)
    return logp


def _rewarded(m: Message, reward: float) -> Message:
    return replace(m, reward=m.reward + reward)


def _terminated(row: Mapping[str, Any], where: str) -> bool:
    terminated, truncated = (
        None if row.get(field) is None else read_flag(row[field], where, field) for field in _ENDS
    )
    if terminated is not None and terminated is truncated:
        found = "true" if terminated else "false"
        raise InputError(f"{where}: terminated: expected either terminated or truncated; found both {found}")
    return not truncated if terminated is None else terminated


# --- conversations without an outcome -----------------------------------------------------------------


def _missing_outcome(choice: str | float | None) -> str | float | None:
    """ "leave-out" or a number, which text may spell. SettingError for anything else."""
    if choice is None or choice == "leave-out":
        return choice
    try:
        return read_number(choice, "", "")
    except InputError:
        expected = "leave-out, or the number that conversations without an outcome count as"
        raise SettingError("missing_outcome", choice, expected) from None


def _counted_as(d: Dialogue, outcome: float) -> Dialogue:
    """The conversation with an outcome that the log does not have."""
    last = max(i for i, m in enumerate(d.messages) if m.role == d.agent_role)
    messages = [*d.messages]
    messages[last] = _rewarded(messages[last], outcome)
    return replace(d, messages=tuple(messages), rated_by="outcome")
