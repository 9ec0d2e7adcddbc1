"""Which conversations and prompts are held out: decided by what they are, never by their order or number.

So every algorithm, on any order or subset of the same data, holds out the same ones.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from turnwise.data.dialogue import Dialogue
from turnwise.data.feedback import Prompt
from turnwise.run.errors import SettingError


class HasPrompt(Protocol):
    """What can be split by its prompt: feedback, or a row with a prompt."""

    @property
    def prompt(self) -> Prompt:
        """Messages before the reply."""
        ...


P = TypeVar("P", bound=HasPrompt)
T = TypeVar("T")


def split_heldout(
    dialogues: Sequence[Dialogue], fraction: float, by: str | None = None
) -> tuple[list[Dialogue], list[Dialogue]]:
    """(learnt from, held out), decided by each conversation's id alone, or by its column `by`.

    With `by`, conversations that belong together (those of one customer, the two sides of one talk) are
    never torn apart. SettingError if a conversation has no such column.
    """
    keys = [d.id if by is None else _key(d, by) for d in dialogues]
    return _split(dialogues, [_is_out(key, fraction) for key in keys])


def split_by_prompt(items: Iterable[P], fraction: float) -> tuple[list[P], list[P]]:
    """(learnt from, held out): all items of a prompt are on one side, by the prompt's words alone."""
    items = list(items)
    return _split(items, [is_held_out(item.prompt, fraction) for item in items])


def is_held_out(prompt: Prompt, fraction: float) -> bool:
    """Whether a prompt is among the `fraction` that is held out, by its words alone."""
    return _is_out("\0".join(f"{m.role}\1{m.content}" for m in prompt), fraction)


def _is_out(key: str, fraction: float) -> bool:
    # A checksum and no random draw: it needs no seed and no list of what was drawn before.
    return zlib.crc32(key.encode()) % 10_000 < fraction * 10_000


def _split(items: Sequence[T], out: Sequence[bool]) -> tuple[list[T], list[T]]:
    pairs = list(zip(items, out, strict=True))
    return [x for x, held in pairs if not held], [x for x, held in pairs if held]


def _key(dialogue: Dialogue, column: str) -> str:
    if column == "id":
        return dialogue.id
    if dialogue.metadata.get(column) is None:
        known = ", ".join(["id", *sorted(dialogue.metadata)])
        expected = f"a column of every conversation; {dialogue.id!r} has {known}"
        raise SettingError("heldout_by", column, expected)
    return json.dumps(dialogue.metadata[column], sort_keys=True, default=str)
