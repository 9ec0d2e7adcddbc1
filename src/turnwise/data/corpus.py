"""Conversations to learn from and conversations held out, as rows that a model can read."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence

from turnwise.data.dialogue import Dialogue
from turnwise.data.tokens import ChatFormat, Tokens, segments
from turnwise.run.errors import InputError


def split_heldout(
    dialogues: Sequence[Dialogue], fraction: float, by: str | None = None
) -> tuple[list[Dialogue], list[Dialogue]]:
    """(learnt from, held out), decided by each conversation's id alone, or by its column `by`.

    So every algorithm, on any order or subset of the same log, holds out the same conversations; and with
    `by` conversations that belong together (of one customer, two sides of one talk) are never torn apart.
    """
    keys = [d.id if by is None else _key(d, by) for d in dialogues]
    out = [zlib.crc32(key.encode()) % 10_000 < fraction * 10_000 for key in keys]
    return (
        [d for d, held in zip(dialogues, out, strict=True) if not held],
        [d for d, held in zip(dialogues, out, strict=True) if held],
    )


def _key(dialogue: Dialogue, column: str) -> str:
    if column == "id":
        return dialogue.id
    if dialogue.metadata.get(column) is None:
        known = ", ".join(["id", *sorted(dialogue.metadata)])
        raise InputError(
            f"--heldout-by {column}: conversation {dialogue.id!r} has no such column, but {known}"
        )
    return json.dumps(dialogue.metadata[column], sort_keys=True, default=str)


def rows_of(dialogues: Sequence[Dialogue], chat: ChatFormat, context: int) -> list[Tokens]:
    """Token rows of at most `context` positions; long conversations become several neighbouring rows."""
    return [row for t in chat.encode(dialogues, context // 2) for row in segments(t, context)]
