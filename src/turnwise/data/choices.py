"""Conversations as a whole, be they objects in a list or in compact form, which makes them anew each time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from turnwise.data.compact import CompactDialogues, packed
from turnwise.data.dataset import Dataset
from turnwise.data.dialogue import Dialogue


def compact_of(dialogues: Iterable[Dialogue]) -> CompactDialogues | None:
    """The compact form of conversations, if they are in it."""
    items = dialogues.items if isinstance(dialogues, Dataset) else dialogues
    return items if isinstance(items, CompactDialogues) else None


def returns_of(dialogues: Iterable[Dialogue]) -> np.ndarray:
    """Undiscounted return of each conversation, in the units of the task."""
    compact = compact_of(dialogues)
    return np.array([d.undiscounted_return() for d in dialogues]) if compact is None else compact.returns


def chosen(dialogues: Sequence[Dialogue], places: np.ndarray) -> Sequence[Dialogue]:
    """The conversations at these places, in this order; no copies, if they are in compact form."""
    compact = compact_of(dialogues)
    return [dialogues[i] for i in places.tolist()] if compact is None else compact.select(places)


def together(*parts: Sequence[Dialogue]) -> Sequence[Dialogue]:
    """Conversations of several sources, one after the other."""
    if all(compact_of(part) is None for part in parts):
        return list(chain(*parts))
    return CompactDialogues.of(chain(*parts))


def records_of(dialogues: Iterable[Dialogue]) -> Iterator[bytes]:
    """What each conversation says and earned, as bytes: equal for equal ones, wherever they are held."""
    compact = compact_of(dialogues)
    if compact is not None:
        return compact.records()
    return (packed(d) or repr(d).encode(errors="surrogatepass") for d in dialogues)
