"""Feedback as rows: which reply stands where, what is left out, and what a row knows of its item."""

from __future__ import annotations

from typing import Any

import pytest

from turnwise.data.chat.format import ChatFormat
from turnwise.data.comparisons import (
    Comparison,
    comparison_rows,
    feedback_rows,
    fit_feedback,
    fit_split,
    mismatched,
    reply_rows,
)
from turnwise.data.feedback import Like, Pair, Prompt, Ranking, Score, shortened
from turnwise.data.splits.heldout import split_by_prompt
from turnwise.envs.dialogue import Message
from turnwise.models.lm.fresh import train_tokenizer
from turnwise.run.errors import InputError

WHY = (Message("user", "why"),)
WHO = (Message("user", "who"),)
REPLIES = ("one", "two", "three")


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(train_tokenizer(["why who one two three"], vocab=300, context=64))


def said(chat: ChatFormat, item: Any) -> list[str]:
    rows = item.rows if isinstance(item, Comparison) else [item.row]
    return [chat.text(row.ids[row.action]) for row in rows]


def test_better_replies_come_first(chat: ChatFormat) -> None:
    """Ranks 3, 1, 2 of one, two, three: two is the best, then three, then one."""
    pair, ranking = Pair(WHY, "two", "one", margin=0.5), Ranking(WHO, REPLIES, (3, 1, 2))
    first, second = comparison_rows([pair, ranking], chat, 64)
    assert (first.item, said(chat, first), first.margin, first.tie) == (pair, ["two", "one"], 0.5, False)
    assert (second.item, said(chat, second)) == (ranking, ["two", "three", "one"])
    assert (second.margin, second.tie, second.prompt) == (None, False, WHO)


def test_a_tie_is_one_in_both_shapes(chat: ChatFormat) -> None:
    """A ranking is a tie if all ranks are equal, and not if two of three are."""
    items = [
        Pair(WHY, "two", "one", tie=True),
        Ranking(WHY, REPLIES, (2, 2, 2)),
        Ranking(WHY, REPLIES, (1, 1, 2)),
    ]
    assert [row.tie for row in comparison_rows(items, chat, 64)] == [True, True, False]


def test_judged_replies(chat: ChatFormat) -> None:
    like, score = Like(WHY, "one", False), Score(WHO, "three", 2.5)
    (row,) = reply_rows([like], chat, 64)
    assert (row.item, said(chat, row), row.size) == (like, ["one"], len(row.row))
    (row,) = reply_rows([score], chat, 64)
    assert row.item.score == 2.5 and said(chat, row) == ["three"]


@pytest.mark.parametrize(
    "items",
    [
        [Pair(WHY, "one " * 40, "two"), Pair(WHO, "one", "two")],
        [Like(WHY, "one " * 40, True), Like(WHO, "one", True)],
        [Score(WHY, "one " * 40, 1.0), Score(WHO, "one", 1.0)],
    ],
)
def test_what_is_too_long_is_left_out_with_its_item(chat: ChatFormat, items: Any) -> None:
    (row,) = feedback_rows(items, chat, 32)
    assert row.item is items[1]
    learnt, held = split_by_prompt([row], 0.5)
    assert [*learnt, *held] == [row], "rows are split by their items' prompts"


def talk(*roles: str) -> Prompt:
    return tuple(Message(role, str(i)) for i, role in enumerate(roles))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("roles", "most", "kept"),
    [
        ("system user assistant user assistant user", 6, "012345"),
        ("system user assistant user assistant user", 5, "0345"),
        ("system user assistant user assistant user", 3, "05"),
        ("system user assistant user assistant user", 2, "05"),
        ("system user assistant user assistant user", 1, None),
        ("user assistant user", 2, "2"),
        ("assistant user assistant user", 3, "123"),
        ("user assistant user assistant tool", 3, "234"),
        ("user assistant user assistant tool", 2, None),
        ("user", 0, None),
        ("system", 0, None),
        ("assistant tool", 1, "1"),
    ],
)
def test_the_earliest_messages_of_a_prompt_go_first(roles: str, most: int, kept: str | None) -> None:
    """The system message and the user's last one, with what follows it, stay; a user speaks first."""
    found = shortened(talk(*roles.split()), lambda p: len(p) <= most)
    assert (None if found is None else "".join(m.content for m in found)) == kept


LONG = (Message("system", "one"), Message("user", "why " * 30), Message("assistant", "two"), *WHO)


@pytest.mark.parametrize(
    "item",
    [
        Pair(LONG, "one", "two", id="x"),
        Ranking(LONG, REPLIES, (2, 1, 3), id="x"),
        Like(LONG, "one", True, id="x"),
        Score(LONG, "one", 1.0, id="x"),
    ],
)
def test_an_item_longer_than_the_context_loses_its_earliest_messages_and_is_counted(
    chat: ChatFormat, item: Any
) -> None:
    """The system message and the last question fit 32 tokens, and the item says what is read. An item whose
    reply is too long by itself is left out."""
    far = Like(WHO, "one " * 40, True) if isinstance(item, Like) else None
    found = fit_feedback([item, *([far] if far else [])], chat, 32)
    assert (len(found.rows), found.shortened, found.left_out) == (1, 1, int(far is not None))
    (row,) = found.rows
    assert row.item.prompt == (LONG[0], *WHO) and row.item.id == "x" and row.size <= 32
    assert said(chat, row) == said(chat, fit_feedback([item], chat, 64).rows[0])
    assert fit_feedback([item], chat, 64).shortened == 0
    learnt, held = fit_split([item], [item, item], chat, 32, "f")
    assert (learnt.shortened, held.shortened) == (1, 2)


def test_refusals(chat: ChatFormat) -> None:
    with pytest.raises(InputError, match=r"several kinds \(likes, pairs\); expected one"):
        feedback_rows([Pair(WHY, "one", "two"), Like(WHY, "one", True)], chat, 32)
    with pytest.raises(InputError, match=r"none of 1 items fits the context of 8 tokens \(the shortest, 'x'"):
        feedback_rows([Like(WHY, "one " * 40, True, id="x")], chat, 8)
    assert feedback_rows([], chat, 32) == []
    far = Like(WHY, "one " * 40, True, id="x")
    with pytest.raises(InputError, match="f: only held-out items fit the context of 32"):
        fit_split([far], [Like(WHO, "one", True)], chat, 32, "f")
    with pytest.raises(
        InputError, match=r"none of 2 items fits the context of 32 tokens \(the shortest, 'x'"
    ):
        fit_split([far], [far], chat, 32, "f")


def test_mismatched_replies_go_round(chat: ChatFormat) -> None:
    """The reply to the next prompt, and to the last one the first's; cut at a context of prompt and 1."""
    rows = [chat.reply(WHY, "one"), chat.reply(WHO, "two"), chat.reply(WHY, "three")]
    found = mismatched(rows, 64)
    assert [chat.text(row.ids[row.action]) for row in found] == ["two", "three", "one"]
    before = [int(row.action.argmax()) for row in rows]
    assert [row.ids[:n].tolist() for row, n in zip(found, before, strict=True)] == [
        row.ids[:n].tolist() for row, n in zip(rows, before, strict=True)
    ]
    assert [int(row.action.sum()) for row in mismatched(rows, max(before) + 1)] == [1, 1, 1]
    assert mismatched(rows[:1], 64) == []
