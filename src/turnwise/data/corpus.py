"""Conversations to learn from and conversations held out, as rows that a model can read."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from turnwise.data.dialogue import Dialogue
from turnwise.data.tokens import ChatFormat, Tokens, segments


def split_heldout(dialogues: Sequence[Dialogue], fraction: float) -> tuple[list[Dialogue], list[Dialogue]]:
    """(learnt from, held out), decided by each conversation's id alone.

    So every algorithm, on any order or subset of the same log, holds out the same conversations.
    """
    out = [zlib.crc32(d.id.encode()) % 10_000 < fraction * 10_000 for d in dialogues]
    return (
        [d for d, held in zip(dialogues, out, strict=True) if not held],
        [d for d, held in zip(dialogues, out, strict=True) if held],
    )


def rows_of(dialogues: Sequence[Dialogue], chat: ChatFormat, context: int) -> list[Tokens]:
    """Token rows of at most `context` positions; long conversations become several neighbouring rows."""
    return [row for t in chat.encode(dialogues, context // 2) for row in segments(t, context)]
