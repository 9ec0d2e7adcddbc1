"""One message of a row: its role, its words, the functions that it calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from turnwise.data.dialogue import ROLES
from turnwise.data.files.fields import is_text, read_name, unexpected, without_nulls
from turnwise.envs.dialogue import Message, ToolCall

_CALLS = "a list of calls, each with the name and the arguments of a function"


def read_message(item: Any, where: str, field: str, i: int) -> Message:
    """Message `i` of the list in `field`, without a reward; InputError if it is none."""
    if not isinstance(item, dict):
        raise unexpected(where, f"{field}[{i}]", "an object with role and content", item)
    role, content = item.get("role"), item.get("content")
    if role not in ROLES:
        raise unexpected(where, f"{field}[{i}].role", f"one of {', '.join(ROLES)}", role)
    calls = _calls(item, where, field, i)
    if content is None and calls is not None:
        content = ""
    if not isinstance(content, str) or not is_text(content):
        raise unexpected(where, f"{field}[{i}].content", "a string", content)
    name = answers = None
    if item.get("name") not in (None, ""):
        name = read_name(item["name"], where, f"{field}[{i}].name")
    if item.get("tool_call_id") not in (None, ""):
        answers = read_name(item["tool_call_id"], where, f"{field}[{i}].tool_call_id")
    return Message(role, content, name=name, tool_calls=calls, tool_call_id=answers)


def _calls(item: Mapping[str, Any], where: str, field: str, i: int) -> tuple[ToolCall, ...] | None:
    """What the message calls: `tool_calls`, or the one `function_call` of older logs."""
    given, name = item.get("tool_calls"), "tool_calls"
    if given is None or given == []:
        if item.get("function_call") is None:
            return None
        given, name = [item["function_call"]], "function_call"
    if not isinstance(given, list):
        raise unexpected(where, f"{field}[{i}].{name}", _CALLS, given)
    found = []
    for k, call in enumerate(given):
        place = f"{field}[{i}].{name}" + (f"[{k}]" if name == "tool_calls" else "")
        nested = call.get("function") if isinstance(call, dict) else None
        function = call if nested is None else nested
        if not isinstance(call, dict) or not isinstance(function, dict):
            raise unexpected(where, place, "a call with the name and the arguments of a function", call)
        called = read_name(function.get("name"), where, f"{place}.name")
        if called is None:
            raise unexpected(where, f"{place}.name", "the name of a function", None)
        id = None if call.get("id") in (None, "") else read_name(call["id"], where, f"{place}.id")
        found.append(ToolCall(id, called, _arguments(function.get("arguments"), where, f"{place}.arguments")))
    return tuple(found)


def _arguments(value: Any, where: str, field: str) -> str:
    """Text as it is, for nobody knows that it is JSON; anything else as JSON text."""
    if value is None:
        return "{}"
    text = (
        value if isinstance(value, str) else json.dumps(without_nulls(value), ensure_ascii=False, default=str)
    )
    if not is_text(text):
        raise unexpected(where, field, "a string", value)
    return text
