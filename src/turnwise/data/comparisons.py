"""Feedback as token rows: the replies of an item side by side, the better ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from turnwise.data.chat import ChatFormat
from turnwise.data.feedback import Feedback, Like, Pair, Ranking, Score
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.run.errors import InputError

F = TypeVar("F", bound=Feedback)


@dataclass(frozen=True)
class Compared:
    """Replies to one prompt as rows, the best first; in a tie the order says nothing."""

    rows: tuple[Tokens, ...]
    tie: bool = False
    margin: float | None = None

    @property
    def size(self) -> int:
        """Tokens of the longest row."""
        return max(map(len, self.rows))

    @property
    def id(self) -> str:
        """Of the item that they are the rows of."""
        return self.rows[0].id


@dataclass(frozen=True)
class Liked:
    """One reply as a row, liked or not."""

    row: Tokens
    liked: bool

    @property
    def size(self) -> int:
        """Tokens of the row."""
        return len(self.row)

    @property
    def id(self) -> str:
        """Of the item that it is the row of."""
        return self.row.id


@dataclass(frozen=True)
class Scored:
    """One reply as a row, and its score."""

    row: Tokens
    score: float

    @property
    def size(self) -> int:
        """Tokens of the row."""
        return len(self.row)

    @property
    def id(self) -> str:
        """Of the item that it is the row of."""
        return self.row.id


Row = TypeVar("Row", bound=Compared | Liked | Scored)


def compared(items: Sequence[Pair | Ranking], chat: ChatFormat, context: int) -> list[Compared]:
    """Rows of the pairs and rankings that fit the context; InputError where none does."""
    found = []
    for item in items:
        replies = item.replies if isinstance(item, Pair) else tuple(item.replies[i] for i in item.order)
        rows = tuple(chat.reply(item.prompt, r, id=item.id) for r in replies)
        tie = item.tie if isinstance(item, Pair) else len(set(item.ranks)) == 1
        found.append(Compared(rows, tie, item.margin if isinstance(item, Pair) else None))
    return _fitting(found, context)


def liked(items: Sequence[Like], chat: ChatFormat, context: int) -> list[Liked]:
    """Rows of the likes that fit the context; InputError where none does."""
    return _fitting([Liked(chat.reply(i.prompt, i.completion, id=i.id), i.liked) for i in items], context)


def scored(items: Sequence[Score], chat: ChatFormat, context: int) -> list[Scored]:
    """Rows of the scores that fit the context; InputError where none does."""
    return _fitting([Scored(chat.reply(i.prompt, i.completion, id=i.id), i.score) for i in items], context)


def mismatched(rows: Sequence[Tokens], context: int) -> list[Tokens]:
    """Each prompt with the reply to the next one, for a policy's divergence from its reference (KTO).

    Replies are cut where the context ends. A row alone has no next one: empty.
    """
    found = []
    for row, other in zip(rows, [*rows[1:], *rows[:1]], strict=True) if len(rows) > 1 else ():
        prompt = row.ids[: int(row.action.argmax())].tolist()
        writer = TokenWriter()
        writer.read(prompt)
        writer.act(other.ids[other.action][: context - len(prompt)].tolist(), 0.0, None)
        found.append(writer.tokens(True, next_known=True, id=row.id))
    return found


def with_rows(items: Sequence[F], rows: Sequence[Row]) -> tuple[list[F], list[Row]]:
    """The items of which there are rows (those that fit), and these in the same order."""
    of = {row.id: row for row in rows}
    kept = [item for item in items if item.id in of]
    return kept, [of[item.id] for item in kept]


def _fitting(items: list[Row], context: int) -> list[Row]:
    fit = [item for item in items if item.size <= context]
    if items and not fit:
        shortest = min(items, key=lambda item: item.size)
        raise InputError(
            f"none of {len(items):,} items fits the context of {context} tokens (the shortest, "
            f"{shortest.id!r}, has {shortest.size}, prompt included); expected shorter ones, or a model with "
            "a larger context"
        )
    return fit
