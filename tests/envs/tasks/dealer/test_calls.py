"""A call is understood live as chat templates write it, and a talk that is played reads as the logs do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue
from turnwise.data.files.logs import read_logs
from turnwise.data.tokens import Tokens
from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.dealer.logs import dealer_logs
from turnwise.envs.tasks.dealer.reading import called_cars, read_act
from turnwise.models.lm.fresh import OWN_TEMPLATE

NAMES = ("qwen3", "llama3_1", "deepseekv3", "gptoss", "gemma4", "muse_glimmer", "phi3")
"""templates that write calls in different ways, lose words beside them, or know of none"""


def templates() -> Iterator[str]:
    trl: Any = pytest.importorskip("trl")
    for name in NAMES:
        yield (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text("utf-8")


def played(chat: ChatFormat, row: Tokens, d: Dialogue) -> list[int]:
    """The ids of a logged conversation as a lane reads them, with what the agent said known as text."""
    ids, history, new = list[int](), list[Message](), list[Message]()
    ends = iter(np.flatnonzero(row.turn_end).tolist())
    for m in d.messages:
        if m.role != "assistant":
            new.append(m)
            continue
        ids += chat.continuation(history, new) if history else chat.opening(new)
        end = next(ends) + 1
        assert row.action[len(ids) : end].all()
        text = chat.text(row.ids[len(ids) : end - 1].tolist())
        assert str(read_act(text)) == m.act
        assert not m.tool_calls or called_cars(text) == (1, 2, 3, 4)
        ids += row.ids[len(ids) : end].tolist()
        history, new = [*history, *new, Message("assistant", text)], []
    return ids


def test_logs_are_read_as_they_are_played(tokenizer_with: Any) -> None:
    """In our own template, and in some that write calls in forms of their own."""
    logs = read_logs(list(dealer_logs(40, 2, acts=True)))
    dialogues = [d for d in logs if any(m.role == "tool" for m in d.messages)][:3]
    forms = [OWN_TEMPLATE, *templates()]
    markers = {x for form in forms for x in re.findall(r"<\|?[^<> \']+\|?>|<｜[^｜]+｜>", form)}
    tokenizer = tokenizer_with(
        None, sorted({*markers, "<|user|>", "<|assistant|>", "<|tool|>", "<s>", "</s>"}), "</s>"
    )
    for form in forms:
        tokenizer.chat_template = form
        chat = ChatFormat(tokenizer)
        for d, row in zip(dialogues, chat.encode(dialogues), strict=True):
            ids = played(chat, row, d)
            assert ids == row.ids.tolist()[: len(ids)]
