"""Feedback as token rows: each judgement beside the rows of its replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from turnwise.data.chat.format import ChatFormat
from turnwise.data.feedback import Feedback, Like, Pair, Prompt, Ranking, Score, kind_of, shortened
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.run.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """A pair or a ranking with its replies as rows, the best first; in a tie their order says nothing."""

    item: Pair | Ranking
    rows: tuple[Tokens, ...]
    weight: float = 1.0
    """How much it counts: 0 if it is read and teaches nothing."""

    def idle(self) -> Comparison:
        """The same, teaching nothing."""
        return replace(self, weight=0.0)

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
    weight: float = 1.0
    """How much it counts: 0 if it is read and teaches nothing."""

    def idle(self) -> JudgedReply[Judgement]:
        """The same, teaching nothing."""
        return replace(self, weight=0.0)

    @property
    def prompt(self) -> Prompt:
        """What it replies to."""
        return self.item.prompt

    @property
    def size(self) -> int:
        """Tokens of the row."""
        return len(self.row)


FeedbackRows = Comparison | JudgedReply[Like] | JudgedReply[Score]


def replies_of(item: FeedbackRows) -> int:
    """Rows that it is made of."""
    return len(item.rows) if isinstance(item, Comparison) else 1


Rows = TypeVar("Rows", bound=Comparison | JudgedReply[Any])


def weights_of(items: Sequence[Comparison | JudgedReply[Any]], like: Tensor) -> Tensor:
    """[P], how much each item counts, as numbers like those of a tensor."""
    return torch.tensor([x.weight for x in items], dtype=like.dtype, device=like.device)


def comparison_rows(items: Sequence[Pair | Ranking], chat: ChatFormat, context: int) -> list[Comparison]:
    """Rows of the pairs and rankings that fit the context; InputError if none does."""
    return _all_or_refused(items, fit_comparisons(items, chat, context), context)


def reply_rows(items: Sequence[Judgement], chat: ChatFormat, context: int) -> list[JudgedReply[Judgement]]:
    """Rows of the likes or scores that fit the context; InputError if none does."""
    return _all_or_refused(items, fit_replies(items, chat, context), context)


def feedback_rows(items: Sequence[Feedback], chat: ChatFormat, context: int) -> list[FeedbackRows]:
    """Rows of the judgements, all of one kind, that fit the context; InputError if none does."""
    return _all_or_refused(items, fit_feedback(items, chat, context), context)


@dataclass(frozen=True)
class Fitted(Generic[Rows]):
    """What fits a context. The items of the rows have the prompts that are read."""

    rows: list[Rows]
    shortened: int = 0
    """items whose prompts lost their earliest messages (`data.feedback.shortened`)"""
    left_out: int = 0
    """items whose last message and reply do not fit"""
    shortest: tuple[str, int] | None = None
    """id and tokens of the shortest of these"""


def fit_comparisons(items: Sequence[Pair | Ranking], chat: ChatFormat, context: int) -> Fitted[Comparison]:
    """Rows of the pairs and rankings, prompts shortened where needed."""

    def row(item: Pair | Ranking) -> Comparison:
        replies = item.replies if isinstance(item, Pair) else tuple(item.replies[i] for i in item.order)
        return Comparison(item, tuple(chat.reply(item.prompt, r, id=item.id) for r in replies))

    return _fitted(items, row, context)


def fit_replies(items: Sequence[Judgement], chat: ChatFormat, context: int) -> Fitted[JudgedReply[Judgement]]:
    """Rows of the likes or scores, prompts shortened where needed."""
    return _fitted(
        items, lambda item: JudgedReply(item, chat.reply(item.prompt, item.completion, id=item.id)), context
    )


def fit_feedback(items: Sequence[Feedback], chat: ChatFormat, context: int) -> Fitted[FeedbackRows]:
    """Rows of the judgements, all of one kind, prompts shortened where needed."""
    kinds = sorted({kind_of(item) for item in items})
    if len(kinds) > 1:
        raise InputError(f"feedback of several kinds ({', '.join(kinds)}); expected one")
    fit: Any = fit_comparisons if kinds in (["pairs"], ["rankings"]) else fit_replies
    return fit(items, chat, context)


def fit_split(
    learnt: Sequence[Feedback], held: Sequence[Feedback], chat: ChatFormat, context: int, source: str
) -> tuple[Fitted[FeedbackRows], Fitted[FeedbackRows]]:
    """Both parts of a split. InputError, naming `source`, if nothing is left to learn from."""
    parts = fit_feedback(learnt, chat, context), fit_feedback(held, chat, context)
    if not parts[0].rows and parts[1].rows:
        raise InputError(f"{source}: only held-out items fit the context of {context}")
    if not parts[0].rows:
        nothing = [part for part in parts if part.shortest is not None]
        least = min(nothing, key=lambda part: part.shortest[1] if part.shortest else 0)
        _all_or_refused([*learnt, *held], least, context)
    return parts


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


def _fitted(items: Sequence[Any], row_of: Callable[[Any], Rows], context: int) -> Fitted[Rows]:
    rows, cut, out = list[Rows](), 0, list[tuple[str, int]]()
    for item in items:
        row = row_of(item)
        if row.size > context:
            prompt = shortened(item.prompt, lambda p, x=item: row_of(replace(x, prompt=p)).size <= context)
            if prompt is None:
                out.append((item.id, row.size))
                continue
            row, cut = row_of(replace(item, prompt=prompt)), cut + 1
        rows.append(row)
    return Fitted(rows, cut, len(out), min(out, key=lambda x: x[1], default=None))


def _all_or_refused(items: Sequence[Any], found: Fitted[Rows], context: int) -> list[Rows]:
    if items and not found.rows:
        assert found.shortest is not None
        name, size = found.shortest
        raise InputError(
            f"none of {len(items):,} items fits the context of {context} tokens (the shortest, {name!r}, has "
            f"{size}, prompt included), not even with the last message of its prompt alone; expected shorter "
            "ones, or a model with a larger context"
        )
    return found.rows
