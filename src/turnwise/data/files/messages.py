"""Messages of a row: their roles under any name, their words in any form, the functions that they call."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from turnwise.data.dialogue import ROLES
from turnwise.data.files.fields import is_text, read_name, unexpected, without_nulls
from turnwise.envs.dialogue import Message, ToolCall
from turnwise.run.errors import InputError, SettingError

MESSAGES = ("messages", "conversations", "conversation")
"""names of the column that holds a conversation"""
ROLE = ("role", "from", "speaker", "sender", "author")
WORDS = ("content", "value", "text", "utterance", "message", "body", "parts")
"""names that the role and the words of a message go by; the first are ours"""

_OTHER_NAMES = {
    "developer": "system",
    "human": "user",
    **dict.fromkeys(("ai", "gpt", "bot", "model", "chatgpt", "function_call"), "assistant"),
    **dict.fromkeys(("function", "observation"), "tool"),
}
_TEXT_PARTS = ("text", "input_text", "output_text", None)
_CALLS = "a list of calls, each with the name and the arguments of a function"

MapRole = Mapping[str, str] | Sequence[str]
"""`{"rep": "assistant"}`, or the same as words: `["rep=assistant"]`."""


class Roles:
    """Which of our roles a name in a log stands for."""

    def __init__(self, map_role: MapRole = ()):
        """`map_role` goes before what names usually mean. SettingError if it names no role of ours."""
        self.mapped = _mapped(map_role)
        self.plain = frozenset(ROLES) - set(self.mapped)

    def of(self, name: Any, where: str, field: str) -> str:
        """The role; InputError for a name that could be anybody's."""
        if type(name) is str:
            if name in self.plain:
                return name
            role = self.mapped.get(name)
            if role is not None:
                return role
            plain = name.strip().lower()
            role = plain if plain in self.plain else self.mapped.get(plain) or _OTHER_NAMES.get(plain)
            if role is not None:
                return role
        expected = f"one of {', '.join(ROLES)} (map_role says what another name means)"
        raise unexpected(where, field, expected, name)

    def expect_one_name_a_side(self, items: list[dict[str, Any]], where: str, field: str) -> None:
        """InputError if two names that are not mapped would make one speaker of the agent, or of the user."""
        if all(item.get("role") in self.plain for item in items):
            return
        names = {n for n in map(_role_of, items) if type(n) is str}
        for role in ("assistant", "user"):
            meant = (n for n in names if n not in self.mapped and self.of(n, where, field) == role)
            same = {n.strip().lower() for n in meant} - {"function_call"}  # so the same assistant calls
            if len(same) > 1:
                expected = f"expected one name for the {role} (map_role says who is who)"
                raise InputError(f"{where}: {field}: {expected}; found {' and '.join(sorted(same))}")


def read_message(item: Any, where: str, field: str, i: int, roles: Roles) -> Message:
    """Message `i` of the list in `field`, without a reward; InputError if it is none."""
    if not isinstance(item, dict):
        raise unexpected(where, f"{field}[{i}]", "an object with role and content", item)
    name, words = item.get("role"), item.get("content")
    role = name if type(name) is str and name in roles.plain else None
    if role is None:
        name = _role_of(item)
        role = roles.of(name, where, f"{field}[{i}].role")
    calls = None
    if "tool_calls" in item or "function_call" in item:
        calls = _calls(item, where, f"{field}[{i}]")
    if type(words) is not str:
        words = _first(item, WORDS)
        if calls is None and type(name) is str and name.strip().lower() == "function_call":
            calls = _spelled_calls(words, where, f"{field}[{i}]")
            words = words if calls is None else None
        words = "" if words is None and calls is not None else _words(words, where, f"{field}[{i}].content")
    if not is_text(words):
        raise unexpected(where, f"{field}[{i}].content", "a string", words)
    name = answers = None
    if item.get("name") not in (None, ""):
        name = read_name(item["name"], where, f"{field}[{i}].name")
    if item.get("tool_call_id") not in (None, ""):
        answers = read_name(item["tool_call_id"], where, f"{field}[{i}].tool_call_id")
    act = None
    if item.get("act") not in (None, ""):
        act = read_name(item["act"], where, f"{field}[{i}].act")
    return Message(role, words, name=name, tool_calls=calls, tool_call_id=answers, act=act)


def listed(value: Any) -> Any:
    """A list that a table holds as text, in JSON or as Python prints it; any other value is itself."""
    if not isinstance(value, str) or value.lstrip()[:1] != "[":
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list) else value
    return value


def holds_messages(value: Any) -> bool:
    """Whether a value is a list of objects that have a role, under whatever name."""
    return isinstance(value, list) and bool(value) and all(_role_of(item) is not None for item in value)


# --- roles --------------------------------------------------------------------------------------------


def _role_of(item: Any) -> Any:
    return _first(item, ROLE) if isinstance(item, dict) else None


def _first(item: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value under the first of the names that has one."""
    return next((item[name] for name in names if item.get(name) is not None), None)


def _mapped(map_role: MapRole) -> dict[str, str]:
    pairs: Iterable[Any]
    if isinstance(map_role, Mapping):
        pairs = map_role.items()
    else:
        pairs = [tuple(word.split("=", 1)) for word in map_role]
    found = {}
    for pair in pairs:
        if len(pair) != 2 or not pair[0] or pair[1] not in ROLES:
            shown = "=".join(map(str, pair))
            raise SettingError(
                "map_role", shown, f"a name and one of {', '.join(ROLES)}, as in rep=assistant"
            )
        found[pair[0]] = pair[1]
    return found


# --- words --------------------------------------------------------------------------------------------


def _words(value: Any, where: str, field: str) -> str:
    """Text, or the text of parts, one below the other."""
    if isinstance(value, str):
        return value
    parts = [value] if isinstance(value, dict) else value
    if not isinstance(parts, list):
        raise unexpected(where, field, "a string", value)
    found = []
    for k, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part
        if isinstance(part, dict):
            text = part.get("refusal") if kind == "refusal" else part.get("text")
        if kind not in (*_TEXT_PARTS, "refusal"):
            expected = "text (pictures, sound and files are not read)"
            raise unexpected(where, f"{field}[{k}].type", expected, kind)
        if not isinstance(text, str):
            raise unexpected(where, f"{field}[{k}]", "a part with text", part)
        found.append(text)
    return "\n".join(found)


# --- calls --------------------------------------------------------------------------------------------


def _calls(item: Mapping[str, Any], where: str, field: str) -> tuple[ToolCall, ...] | None:
    """What the message calls: `tool_calls`, or the one `function_call` of older logs."""
    given = item.get("tool_calls")
    if given is None and item.get("function_call") is None:
        return None
    given = listed(given)
    if given is None or given == []:
        call = item.get("function_call")
        return None if call is None else (_call(call, where, f"{field}.function_call"),)
    if not isinstance(given, list):
        raise unexpected(where, f"{field}.tool_calls", _CALLS, given)
    return tuple(_call(call, where, f"{field}.tool_calls[{k}]") for k, call in enumerate(given))


def _call(call: Any, where: str, field: str) -> ToolCall:
    nested = call.get("function") if isinstance(call, dict) else None
    function = call if nested is None else nested
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise unexpected(where, field, "a call with the name and the arguments of a function", call)
    name = read_name(function.get("name"), where, f"{field}.name")
    if name is None:
        raise unexpected(where, f"{field}.name", "the name of a function", None)
    id = None if call.get("id") in (None, "") else read_name(call["id"], where, f"{field}.id")
    return ToolCall(id, name, _arguments(function.get("arguments"), where, f"{field}.arguments"))


def _arguments(value: Any, where: str, field: str) -> str:
    """Text as it is, for nobody knows that it is JSON; anything else as JSON text."""
    if value is None:
        return "{}"
    if not isinstance(value, str):
        value = json.dumps(without_nulls(value), ensure_ascii=False, default=str)
    if not is_text(value):
        raise unexpected(where, field, "a string", value)
    return value


def _spelled_calls(words: Any, where: str, field: str) -> tuple[ToolCall, ...] | None:
    """The calls that the words of a `function_call` spell in JSON; None if they are in another language."""
    if not isinstance(words, str):
        return None
    try:
        found = json.loads(words)
    except (ValueError, RecursionError):
        return None
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return None
    return tuple(_call(call, where, field) for call in calls)
