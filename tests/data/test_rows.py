"""Rows on disk are the rows in memory; every conversation is encoded once."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from turnwise.algorithms.logs.mc import whole_returns
from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue
from turnwise.data.rows import ChangedRows, continues, decision_counts, lengths, token_rows, turn_counts
from turnwise.data.tokens import Tokens, segments
from turnwise.envs.dialogue import Message

CONTEXT = 24


def talk(name: str, *said: str, terminated: bool = True, **turn) -> Dialogue:
    """User and assistant by turns."""
    roles = ("user", "assistant")
    given = [turn if i % 2 else {} for i in range(len(said))]
    return Dialogue(
        tuple(Message(roles[i % 2], text, **given[i]) for i, text in enumerate(said)), terminated, name
    )


TALKS = [
    talk("short", "hello", "hello", reward=-1.5, behavior_logp=-0.25, act_logp=-0.125),
    talk("long", *["hello there, my friend"] * 9, terminated=False, reward=0.5),
    talk("cut", "it works", "hello", "it", terminated=False),
    talk("said", "it", "now", terminated=False),
    talk("much", "hello it works now " * 9, "hello", "it", "now", reward=2.0),
]


@pytest.fixture(scope="module")
def chat(tokenizers) -> ChatFormat:
    return ChatFormat(tokenizers["own"])


def in_memory(chat: ChatFormat) -> list[Tokens]:
    """The slow twin: arrays of every conversation, then its segments."""
    return [row for t in chat.encode(TALKS, CONTEXT // 2) for row in segments(t, CONTEXT)]


def same(a: Tokens, b: Tokens) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(Tokens)]
    return all(
        type(x) is type(y) and (np.array_equal(x, y, equal_nan=True) if isinstance(x, np.ndarray) else x == y)
        for x, y in pairs
    ) and all(x.dtype == y.dtype for x, y in pairs if isinstance(x, np.ndarray))


def test_rows_on_disk_are_the_rows_in_memory(chat: ChatFormat) -> None:
    rows, twin = token_rows(TALKS, chat, CONTEXT), in_memory(chat)
    assert len(twin) > len(TALKS), "the long one has to be cut for this to test anything"
    assert len(rows) == len(twin) and all(map(same, rows, twin))
    assert same(rows[-1], twin[-1]) and all(map(same, rows[1:4], twin[1:4]))
    for known in (lengths, decision_counts, turn_counts, continues):
        assert known(rows).tolist() == known(twin).tolist(), known.__name__
        assert known(rows[2:]).tolist() == known(twin)[2:].tolist(), known.__name__
    with pytest.raises(IndexError):
        rows[len(rows)]


def test_rows_of_some_conversations(chat: ChatFormat) -> None:
    rows, twin = token_rows(TALKS, chat, CONTEXT), in_memory(chat)
    chosen = rows.of(np.array([4, 1]))
    assert all(map(same, chosen, [t for name in ("much", "long") for t in twin if t.id == name]))
    assert len(rows.of(np.zeros(0, np.int64))) == 0 and len(lengths([])) == 0


def test_lengths_of_whole_conversations_need_no_second_encoding(chat: ChatFormat) -> None:
    """The card counts every token that was said, those included that no row holds."""
    found = token_rows(TALKS, chat, CONTEXT).conversation_lengths
    assert found.tolist() == [len(t) for t in chat.encode(TALKS)]
    assert found[4] > sum(len(t) for t in in_memory(chat) if t.id == "much"), "this one was cut"


def test_progress_says_how_many_are_encoded(chat: ChatFormat) -> None:
    said: list[int] = []
    token_rows(TALKS * 60, chat, CONTEXT, said.append)
    assert said == [256, 300]


def test_changed_rows_are_made_when_asked_for(chat: ChatFormat) -> None:
    """Returns across cuts are those of the twin in memory, row by row, and nothing else changes."""
    rows, twin = token_rows(TALKS, chat, CONTEXT), in_memory(chat)
    changed = ChangedRows(rows, lambda i, t: replace(t, rewards=t.rewards + i))
    assert changed[-1].rewards[0] == len(rows) - 1 and len(changed[1:3]) == 2
    assert lengths(changed).tolist() == lengths(twin).tolist()
    assert all(map(same, whole_returns(rows, 0.9, 0.5), whole_returns(twin, 0.9, 0.5)))
