"""Feedback as rows: which reply stands where, what is left out, and what a row knows of its item."""

from __future__ import annotations

from typing import Any

import pytest

from turnwise.data.chat import ChatFormat
from turnwise.data.comparisons import Comparison, comparison_rows, feedback_rows, mismatched, reply_rows
from turnwise.data.feedback import Like, Pair, Ranking, Score
from turnwise.data.heldout import split_by_prompt
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


def test_refusals(chat: ChatFormat) -> None:
    with pytest.raises(InputError, match=r"several kinds \(likes, pairs\); expected one"):
        feedback_rows([Pair(WHY, "one", "two"), Like(WHY, "one", True)], chat, 32)
    with pytest.raises(InputError, match=r"none of 1 items fits the context of 8 tokens \(the shortest, 'x'"):
        feedback_rows([Like(WHY, "one " * 40, True, id="x")], chat, 8)
    assert feedback_rows([], chat, 32) == []


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
