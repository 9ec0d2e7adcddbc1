"""Which conversations and prompts are held out: decided by what they are, never by their order or number.

So every algorithm on the same data, in any order, holds out the same ones. A conversation without a twin, in
logs whose outcomes are not few, is held out or not by its own words alone: also in any part of these logs,
and if more are added. If outcomes are few, each gives its share, so that what is added can move some across.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.data.disk.columns import BLOCK, Column
from turnwise.data.disk.hashes import Hashes
from turnwise.data.disk.places import Places
from turnwise.data.feedback import Prompt
from turnwise.data.splits.choices import chosen, together
from turnwise.data.splits.groups import Strata, by_group, held_groups
from turnwise.data.splits.twins import Twins, find_twins
from turnwise.run.errors import SettingError


class HasPrompt(Protocol):
    """What can be split by its prompt: feedback, or a row with a prompt."""

    @property
    def prompt(self) -> Prompt:
        """Messages before the reply."""
        ...


P = TypeVar("P", bound=HasPrompt)
T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """Conversations to learn from and conversations held out, each in the order given, and their twins."""

    learnt: Sequence[Dialogue]
    held: Sequence[Dialogue]
    twins: int | None = 0
    """conversations that have a twin (`find_twins`); None if nobody looked"""
    across: int = 0
    """held-out conversations with a twin among those learnt from"""
    outcomes: int = 0
    """different outcomes of which each gave its share; 0 if they were not looked at"""
    keys: Column = field(default_factory=lambda: Column(np.uint64))
    """what each held-out conversation says, whoever says it, as a hash (`Twins.keys`)"""


def split_heldout(
    dialogues: Sequence[Dialogue],
    fraction: float,
    by: str | None = None,
    apart: Sequence[Dialogue] | None = None,
    like: Hashes | Iterable[int] = (),
) -> Split:
    """Hold out a `fraction`, or what the caller says.

    Without `by` twins stay on one side, and if returns are few (or nearly all the same) each gives its share.
    `by` is a column, whose conversations of one value stay on one side (those of one customer, say); or a
    column and values, `split=test` or `split=val,test`, whose conversations are held out. `apart` are
    conversations held out beside all of `dialogues`. With these two the caller decides, and twins across the
    sides are only counted. `like` are keys of what another run held out by words: the same is held out here,
    although the shares of outcomes may be others by now (some were left out, say). If they are less than half
    of what is to be held out, these are other logs, and they decide nothing.

    SettingError if a conversation has no such column, if no conversation has such a value, and if `apart` and
    `by` are both given.
    """
    if apart is not None:
        if by is not None:
            raise SettingError("heldout_by", by, "none beside heldout_logs, which says what is held out")
        everything = together(dialogues, apart)
        return _given(everything, np.arange(len(everything)) >= len(dialogues))
    if by is not None:
        return _given(dialogues, _by_column(dialogues, by, fraction))
    if not fraction:
        return Split(dialogues, [], twins=None)
    twins = find_twins(dialogues)
    if known := Hashes(like):
        out = np.concatenate([known.isin(block) for block in twins.keys.blocks()])
        # Fewer are chance: short talks of other logs are alike.
        if 2 * out.sum() >= fraction * len(dialogues):
            return _counted(dialogues, out, twins, 0)
    strata = Strata.of(dialogues)
    out = held_groups(twins, dialogues, fraction, strata)
    return _counted(dialogues, out, twins, 0 if strata is None else len(strata.classes))


def split_by_prompt(items: Iterable[P], fraction: float) -> tuple[list[P], list[P]]:
    """(learnt from, held out): all items of a prompt are on one side, by the prompt's words alone."""
    items = list(items)
    return _split(items, [is_held_out(item.prompt, fraction) for item in items])


def is_held_out(prompt: Prompt, fraction: float) -> bool:
    """Whether a prompt is among the `fraction` that is held out, by its words alone.

    Prompts that differ in case and spaces alone are one.
    """
    words = (f"{m.role}\1{' '.join(m.content.casefold().split())}" for m in prompt)
    return _is_out("\0".join(words), fraction)


def _is_out(key: str, fraction: float) -> bool:
    # A checksum and no random draw: it needs no seed and no list of what was drawn before.
    return zlib.crc32(key.encode(errors="surrogatepass")) % 10_000 < fraction * 10_000


def _split(items: Sequence[T], out: Sequence[bool]) -> tuple[list[T], list[T]]:
    pairs = list(zip(items, out, strict=True))
    return [x for x, held in pairs if not held], [x for x, held in pairs if held]


def _given(dialogues: Sequence[Dialogue], out: np.ndarray) -> Split:
    return _counted(dialogues, out, find_twins(dialogues), 0)


def _counted(dialogues: Sequence[Dialogue], out: np.ndarray, twins: Twins, outcomes: int) -> Split:
    """`out` [n] bool: who is held out."""
    learnt, held = (
        chosen(dialogues, Places.where(out[at : at + BLOCK] == side for at in range(0, len(out), BLOCK)))
        for side in (False, True)
    )
    keys, at = Column(np.uint64), 0
    for block in twins.keys.blocks():
        keys.extend(block[out[at : at + len(block)]])
        at += len(block)
    return Split(learnt, held, twins.count, _across(twins, out), outcomes, keys)


def _across(twins: Twins, out: np.ndarray) -> int:
    """Held-out conversations with a twin among those learnt from."""
    found, n = 0, len(out)
    for members in by_group(twins, n, lambda at, size: {"held": out[at : at + size]}, [("held", bool)]):
        _, group = np.unique(members["group"], return_inverse=True)
        group, held = group.reshape(-1), members["held"]
        learnt = np.bincount(group[~held], minlength=int(group.max(initial=0)) + 1) > 0
        found += int((held & learnt[group]).sum())
    return found


# --- what the caller says -----------------------------------------------------------------------------


def _by_column(dialogues: Sequence[Dialogue], by: str, fraction: float) -> np.ndarray:
    """[n] bool: who is held out."""
    column, equals, wanted = by.partition("=")
    n = len(dialogues)
    if not equals or any(by in d.metadata for d in dialogues):  # a column may have such a name
        return np.fromiter((_is_out(_key(d, by), fraction) for d in dialogues), bool, n)
    known = sorted({_as_typed(_value(d, column, by)) for d in dialogues})
    names = {wanted} if wanted in known else set(wanted.split(","))
    if missing := sorted(names - set(known)):
        shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        expected = f"values of the column {column}, which has {shown}; none is {', '.join(missing)}"
        raise SettingError("heldout_by", by, expected)
    return np.fromiter((_as_typed(_value(d, column, by)) in names for d in dialogues), bool, n)


def _as_typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _key(dialogue: Dialogue, column: str) -> str:
    if column == "id":
        return dialogue.id
    return json.dumps(_value(dialogue, column, column), sort_keys=True, default=str)


def _value(dialogue: Dialogue, column: str, given: str) -> Any:
    if column == "id":
        return dialogue.id
    if dialogue.metadata.get(column) is None:
        known = ", ".join(["id", *sorted(dialogue.metadata)])
        expected = f"a column of every conversation; {dialogue.id!r} has {known}"
        raise SettingError("heldout_by", given, expected)
    return dialogue.metadata[column]
