"""Calls of functions, as chat templates are given them and write them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from turnwise.envs.dialogue import Message, ToolCall

CALL_NAME = "look_up"
CALL = Message("assistant", "", tool_calls=(ToolCall("call00001", CALL_NAME, '{"place": "Paris"}'),))
WITH_WORDS = replace(CALL, content="Let me see.")
RESULT = Message("tool", "Sunny.", name=CALL_NAME, tool_call_id="call00001")
FORMS = tuple(itertools.product((True, False), (False, True)))
"""how calls are given to a template: arguments parsed or as text, no words as "" or as None"""


class Call(NamedTuple):
    """A message that calls functions, as a template writes it."""

    text: str
    """What stands between the prompt, or the lead, and the end."""
    lead: bool
    """Whether the lead of replies stands before it."""
    ended: bool
    """Whether it ends as replies do; if not, its own end is the last of `text`."""


def as_dict(call: ToolCall, parsed: bool) -> dict[str, Any]:
    """A call as templates take it. ValueError for arguments that are to be parsed and are no object."""
    arguments: Any = call.arguments
    if parsed:
        arguments = json.loads(arguments or "{}")
        if not isinstance(arguments, dict):
            raise ValueError("arguments that are no object")
    row: dict[str, Any] = {} if call.id is None else {"id": call.id}
    return row | {"type": "function", "function": {"name": call.name, "arguments": arguments}}


def called(messages: Sequence[Message]) -> list[Message]:
    """The messages of a talk under way, where what the agent said and a tool answers stands as a call.

    A policy speaks text, in which a call is what its template makes of one, and nobody reads it back into
    `tool_calls`. What follows a call depends on its name and id alone, which the tool's answer has: so the
    words are left out, for these messages serve to write what follows. A call that was written plainly, since
    the template would have lost a part of it, stays words.
    """
    found = list(messages)
    for i, m in enumerate(found):
        answers = itertools.takewhile(lambda a: a.role == "tool", found[i + 1 :])
        known = [(a.tool_call_id, a.name) for a in answers if a.tool_call_id is not None]
        plain = any(f"call {name}(" in m.content for _, name in known)  # as `spoken` has it
        if m.role == "assistant" and m.tool_calls is None and known and not plain:
            calls = tuple(ToolCall(id, name or CALL_NAME, "{}") for id, name in known)
            found[i] = replace(m, content="", tool_calls=calls)
    return found


def holds(text: str, m: Message) -> bool:
    """Whether a text has all that the message says: its words, its calls' names and every argument."""

    def leaves(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from (key, *leaves(inner))
        elif isinstance(value, list):
            for inner in value:
                yield from leaves(inner)
        else:
            yield value

    def there(value: Any) -> bool:
        if isinstance(value, str):
            return value in text or json.dumps(value, ensure_ascii=False)[1:-1] in text
        return json.dumps(value) in text or str(value) in text

    calls = m.tool_calls or ()
    if m.content.strip() not in text or any(call.name not in text for call in calls):
        return False
    return all(c.arguments in text or all(map(there, leaves(json.loads(c.arguments)))) for c in calls)
