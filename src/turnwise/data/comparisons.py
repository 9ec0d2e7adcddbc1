"""Feedback as token rows: each judgement beside the rows of its replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from turnwise.data.chat import ChatFormat
from turnwise.data.feedback import Feedback, Like, Pair, Prompt, Ranking, Score, kind_of
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.run.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """A pair or a ranking with its replies as rows, the best first; in a tie their order says nothing."""

    item: Pair | Ranking
    rows: tuple[Tokens, ...]

    @property
    def prompt(self) -> Prompt:
        """What both or all reply to."""
        return self.item.prompt

    @property
    def tie(self) -> bool:
        """No reply is preferred to another."""
        return self.item.tie

    @property
    def margin(self) -> float | None:
        """By how much the first reply is preferred, in units of reward; rankings do not say."""
        return self.item.margin if isinstance(self.item, Pair) else None

    @property
    def size(self) -> int:
        """Tokens of the longest row."""
        return max(map(len, self.rows))


Judgement = TypeVar("Judgement", bound=Like | Score)


@dataclass(frozen=True)
class JudgedReply(Generic[Judgement]):
    """A like or a score with its reply as a row."""

    item: Judgement
    row: Tokens

    @property
    def prompt(self) -> Prompt:
        """What it replies to."""
        return self.item.prompt

    @property
    def size(self) -> int:
        """Tokens of the row."""
        return len(self.row)


FeedbackRows = Comparison | JudgedReply[Like] | JudgedReply[Score]
Rows = TypeVar("Rows", bound=Comparison | JudgedReply[Any])


def comparison_rows(items: Sequence[Pair | Ranking], chat: ChatFormat, context: int) -> list[Comparison]:
    """Rows of the pairs and rankings that fit the context; InputError if none does."""
    found = []
    for item in items:
        replies = item.replies if isinstance(item, Pair) else tuple(item.replies[i] for i in item.order)
        found.append(Comparison(item, tuple(chat.reply(item.prompt, r, id=item.id) for r in replies)))
    return _fitting(found, context)


def reply_rows(items: Sequence[Judgement], chat: ChatFormat, context: int) -> list[JudgedReply[Judgement]]:
    """Rows of the likes or scores that fit the context; InputError if none does."""
    rows = [JudgedReply(item, chat.reply(item.prompt, item.completion, id=item.id)) for item in items]
    return _fitting(rows, context)


def feedback_rows(items: Sequence[Feedback], chat: ChatFormat, context: int) -> list[FeedbackRows]:
    """Rows of the judgements, all of one kind, that fit the context; InputError if none does."""
    kinds = sorted({kind_of(item) for item in items})
    if len(kinds) > 1:
        raise InputError(f"feedback of several kinds ({', '.join(kinds)}); expected one")
    if kinds in (["pairs"], ["rankings"]):
        return list(comparison_rows(items, chat, context))  # pyright: ignore[reportArgumentType]
    return list(reply_rows(items, chat, context))  # pyright: ignore[reportArgumentType]


def mismatched(rows: Sequence[Tokens], context: int) -> list[Tokens]:
    """Each prompt with the reply to the next one, by which KTO estimates a policy's divergence.

    The last prompt gets the reply to the first. A reply is cut at the end of the context. A single row has no
    next one, so there is none.
    """
    found = []
    for row, other in zip(rows, [*rows[1:], *rows[:1]], strict=True) if len(rows) > 1 else ():
        prompt = row.ids[: int(row.action.argmax())].tolist()  # all before the first action
        writer = TokenWriter()
        writer.read(prompt)
        writer.act(other.ids[other.action][: context - len(prompt)].tolist(), 0.0, None)
        found.append(writer.tokens(terminated=True, next_known=True, id=row.id))
    return found


def _fitting(items: list[Rows], context: int) -> list[Rows]:
    fit = [item for item in items if item.size <= context]
    if items and not fit:
        shortest = min(items, key=lambda item: item.size)
        raise InputError(
            f"none of {len(items):,} items fits the context of {context} tokens (the shortest, "
            f"{shortest.item.id!r}, has {shortest.size}, prompt included); expected shorter ones, or a model "
            "with a larger context"
        )
    return fit
