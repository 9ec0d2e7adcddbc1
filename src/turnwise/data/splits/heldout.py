"""Which conversations and prompts are held out: decided by what they are, never by their order or number.

So every algorithm on the same data, in any order, holds out the same ones. A conversation without a twin, in
logs whose outcomes are not few, is held out or not by its own words alone: also in any part of these logs,
and if more are added. If outcomes are few, each gives its share, so that what is added can move some across.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.data.feedback import Prompt
from turnwise.data.splits.choices import chosen, returns_of, together
from turnwise.data.splits.twins import Twins, find_twins, hash_of
from turnwise.run.errors import SettingError

FEW = 5
"""different returns, at most, of which each gives its share to what is held out"""
COMMON = 10
"""copies of a conversation, at most, that stay together even if so few are held out"""


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
    keys: tuple[int, ...] = ()
    """what each held-out conversation says, whoever says it, as a hash (`Twins.keys`)"""


def split_heldout(
    dialogues: Sequence[Dialogue],
    fraction: float,
    by: str | None = None,
    apart: Sequence[Dialogue] | None = None,
    like: Collection[int] = (),
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
        return _given(together(dialogues, apart), [False] * len(dialogues) + [True] * len(apart))
    if by is not None:
        return _given(dialogues, _by_column(dialogues, by, fraction))
    if not fraction:
        return Split(dialogues, [], twins=None)
    twins = find_twins(dialogues)
    out = [key in like for key in twins.keys.tolist()]
    if 2 * sum(out) >= fraction * len(dialogues):  # fewer are chance: short talks of other logs are alike
        return _counted(dialogues, out, twins, 0)
    groups = _groups(twins, dialogues, fraction)
    strata = _strata(dialogues)
    if strata is None:
        out = [unit < fraction and size * 2 <= len(dialogues) for unit, size in groups.members()]
    else:
        out = _stratified(groups, strata, fraction)
    return _counted(dialogues, out, twins, len(set(strata or ())))


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


def _given(dialogues: Sequence[Dialogue], out: Sequence[bool]) -> Split:
    return _counted(dialogues, out, find_twins(dialogues), 0)


def _counted(dialogues: Sequence[Dialogue], out: Sequence[bool], twins: Twins, outcomes: int) -> Split:
    is_held = np.array(out, bool)
    learnt, held = (chosen(dialogues, np.flatnonzero(side)) for side in (~is_held, is_held))
    known = {g for g, o in zip(twins.group.tolist(), out, strict=True) if not o}
    across = sum(o and g in known for g, o in zip(twins.group.tolist(), out, strict=True))
    return Split(learnt, held, twins.count, across, outcomes, tuple(twins.keys[is_held].tolist()))


# --- groups that stay together ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Groups:
    """What goes to one side as a whole."""

    group: np.ndarray
    """[n], which group each conversation is in, counted from 0"""
    unit: np.ndarray
    """[G], a number from 0 to 1 that the group's words decide"""
    size: np.ndarray
    """[G], conversations of the group"""

    def members(self) -> Iterable[tuple[float, int]]:
        """(unit, size) of each conversation's group."""
        return zip(self.unit[self.group].tolist(), self.size[self.group].tolist(), strict=True)


def _groups(twins: Twins, dialogues: Sequence[Dialogue], fraction: float) -> _Groups:
    """Twins together; but the copies of what has more copies than are held out in all go one by one, by id.

    Where a handful of short conversations comes again and again, a copy on the other side is no leak: it is
    how often they occur.
    """
    n = len(twins.group)
    sizes = np.bincount(twins.group)[twins.group]
    loose = np.flatnonzero(sizes > max(COMMON, fraction * n))
    keys = twins.keys.copy()
    seen = Counter[str]()
    for i in loose.tolist():
        # Without ids, or with equal ones, the number of the copy tells it apart from the others.
        name = f"{keys[i]} {dialogues[i].id}"
        keys[i] = hash_of(f"{name} {seen[name]}".encode(errors="surrogatepass"))
        seen[name] += 1
    labels = twins.group.copy()
    labels[loose] = n + loose
    _, group = np.unique(labels, return_inverse=True)
    group = group.reshape(-1)
    smallest = np.full(int(group.max()) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, group, keys)
    return _Groups(group, smallest.astype(np.float64) / 2.0**64, np.bincount(group))


# --- outcomes in their share --------------------------------------------------------------------------


def _strata(dialogues: Sequence[Dialogue]) -> list[float] | None:
    """The class of each conversation's return, if there are few; None if returns are many, or all one.

    The classes are the returns themselves; or, if more than half of many returns are one, that one, what is
    below it and what is above it.
    """
    returns = [round(r, 9) for r in returns_of(dialogues).tolist()]
    counts = Counter(returns)
    if len(counts) == 1:
        return None
    if len(counts) <= FEW:
        return returns
    usual, often = max(counts.items(), key=lambda item: (item[1], -item[0]))
    return [float(np.sign(r - usual)) for r in returns] if 2 * often > len(returns) else None


def _stratified(groups: _Groups, strata: Sequence[float], fraction: float) -> list[bool]:
    """Whether each conversation is held out: of every class its share, in the order of the groups' units.

    Groups that hold several classes count in the rarest.
    """
    counts = Counter(strata)
    rarity = sorted(counts, key=lambda c: (counts[c], c))  # the rarest first
    rank = {c: i for i, c in enumerate(rarity)}
    ranks = np.array([rank[c] for c in strata])
    of_group = np.full(len(groups.size), len(rarity))
    np.minimum.at(of_group, groups.group, ranks)
    sizes = np.bincount(of_group, weights=groups.size, minlength=len(rarity))
    out = np.zeros(len(groups.size), bool)
    for stratum, wanted in enumerate(_quotas(sizes, fraction)):
        taken = 0
        mine = np.flatnonzero(of_group == stratum)
        for g in mine[np.argsort(groups.unit[mine], kind="stable")].tolist():
            size = int(groups.size[g])
            # Closer to what is wanted with it than without it.
            if taken + size / 2 <= wanted and 2 * size <= len(strata):
                out[g], taken = True, taken + size
            if taken >= wanted:
                break
    return out[groups.group].tolist()


def _quotas(sizes: np.ndarray, fraction: float) -> list[int]:
    """How many conversations of each class are held out: whole numbers that sum to the share of all.

    The largest remainders are rounded up (Hamilton's method), of equal ones the rarer class's.
    """
    exact = sizes * fraction
    quotas = np.floor(exact + 1e-9).astype(int)
    left = int(np.floor(sizes.sum() * fraction + 0.5)) - int(quotas.sum())
    best = sorted(range(len(sizes)), key=lambda i: (-round(float(exact[i] - quotas[i]), 9), i))
    for i in best[: max(0, left)]:
        quotas[i] += 1
    return quotas.tolist()


# --- what the caller says -----------------------------------------------------------------------------


def _by_column(dialogues: Sequence[Dialogue], by: str, fraction: float) -> list[bool]:
    column, equals, wanted = by.partition("=")
    if not equals or any(by in d.metadata for d in dialogues):  # a column may have such a name
        return [_is_out(_key(d, by), fraction) for d in dialogues]
    texts = [_as_typed(_value(d, column, by)) for d in dialogues]
    names = {wanted} if wanted in texts else set(wanted.split(","))
    known = sorted(set(texts))
    if missing := sorted(names - set(known)):
        shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        expected = f"values of the column {column}, which has {shown}; none is {', '.join(missing)}"
        raise SettingError("heldout_by", by, expected)
    return [text in names for text in texts]


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
