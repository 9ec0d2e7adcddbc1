"""Prompts and replies of feedback: from text, transcripts and lists of messages to messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from turnwise.data.feedback import Prompt
from turnwise.data.files.fields import read_text, unexpected
from turnwise.data.files.messages import Roles, holds_messages, listed, read_message
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError

PROMPT = "text or a list of messages, each with role and content"


def read_prompt(value: Any, where: str, field: str, roles: Roles) -> Prompt:
    """A prompt from text (one message of the user, or a transcript) or from a list of messages."""
    value = _given(value)
    if isinstance(value, str):
        talk = _transcript(value)
        if talk and talk[-1] == Message("assistant", ""):  # "Assistant:" at the end invites the reply
            talk = talk[:-1]
        messages = talk or (Message("user", read_text(value, where, field)),)
    else:
        messages = _messages(value, where, field, roles)
    _expect_reply(messages, where, field)
    return messages


def split_replies(
    prompt: Prompt | None, given: Mapping[str, Any], where: str, roles: Roles
) -> tuple[Prompt, tuple[str, ...]]:
    """The prompt and the reply of each field.

    A reply may be text, the messages after the prompt, or the whole conversation. The prompt is the longest
    beginning that all of them share, and exactly one message of the assistant must remain of each.
    """
    # Two texts share no beginning here, unlike in TRL: if the question is in another column, their common
    # beginning is only the first words of two answers.
    whole = [_conversation(_given(value), prompt, where, field, roles) for field, value in given.items()]
    shared = min(map(len, whole)) - 1  # a reply remains, even if there is only one or all are equal
    for i in range(shared):
        if any(messages[i] != whole[0][i] for messages in whole):
            shared = i
            break
    for field, messages in zip(given, whole, strict=True):
        rest = [m.role for m in messages[shared:]]
        if rest != ["assistant"]:
            expected = "expected one message of the assistant at its end"
            expected += (
                " (what comes before is the prompt, the same for every reply)" if len(given) > 1 else ""
            )
            found = ", ".join(rest[:4]) + (", ..." if len(rest) > 4 else "")
            raise InputError(f"{where}: {field}: {expected}; found {found}")
        if messages[-1].tool_calls is not None:
            expected = "expected a reply in words (tool calls are read in prompts alone)"
            raise InputError(f"{where}: {field}: {expected}; found tool calls")
    before = whole[0][:shared]
    if not before:
        raise unexpected(where, "prompt", PROMPT, None)
    if before != prompt:
        _expect_reply(before, where, next(iter(given)))
    return before, tuple(messages[-1].content for messages in whole)


def _conversation(value: Any, prompt: Prompt | None, where: str, field: str, roles: Roles) -> Prompt:
    """Prompt and reply together."""
    if isinstance(value, str):
        reply = Message("assistant", read_text(value, where, field))
        talk = _transcript(value)
        if talk and (prompt is None or talk[: len(prompt)] == prompt):
            return talk
        if prompt is not None:
            return (*prompt, reply)
        raise unexpected(where, "prompt", PROMPT, None)
    messages = _messages(value, where, field, roles)
    if prompt is None or messages[: len(prompt)] == prompt:
        return messages
    if messages[0].role != "assistant":
        expected = "expected what the assistant says after the prompt, or the prompt and then that"
        raise InputError(f"{where}: {field}[0].role: {expected}; found a message of the {messages[0].role}")
    return (*prompt, *messages)


def _transcript(text: str) -> Prompt:
    """The messages of a text in which `Human:` and `Assistant:` follow empty lines; none for any other text.

    Bai et al. 2022, arXiv:2204.05862, publish conversations in this form, which the human begins.
    """
    before, *turns = re.split(r"(?:\A|\n\n)\s*(Human|Assistant):", text)
    if before.strip() or not turns or turns[0] != "Human":
        return ()
    said = zip(turns[::2], turns[1::2], strict=True)
    return tuple(Message("user" if who == "Human" else "assistant", words.strip()) for who, words in said)


def _messages(items: Any, where: str, field: str, roles: Roles) -> Prompt:
    if isinstance(items, dict) and holds_messages([items]):
        items = [items]  # one message by itself
    if not isinstance(items, list) or not items:
        raise unexpected(where, field, PROMPT, items)
    messages = tuple(read_message(item, where, field, i, roles) for i, item in enumerate(items))
    roles.expect_one_name_a_side(items, where, field)
    return messages


def _given(value: Any) -> Any:
    """The messages that a table holds as text; every other text is itself."""
    found = listed(value)
    return found if holds_messages(found) else value


def _expect_reply(prompt: Prompt, where: str, field: str) -> None:
    if prompt[-1].role == "assistant":
        expected = "expected the message that is answered at the end of the prompt"
        found = "found one of the assistant, who would speak twice"
        raise InputError(f"{where}: {field}[{len(prompt) - 1}].role: {expected}; {found}")
