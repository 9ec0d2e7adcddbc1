"""Conversations as a whole, be they objects in a list or in compact form, which makes them anew each time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from turnwise.data.compact import RATED, CompactDialogues, packed
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


def evenly(n: int, most: int) -> np.ndarray:
    """Places of so many of n at most, evenly spaced from the first to the last."""
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(np.int64)


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


def unrated(dialogues: Iterable[Dialogue]) -> np.ndarray:
    """Of each conversation, whether its return says nothing of how it went.

    It says nothing if the log said nothing, and if others have an outcome where this one came to its end
    without: rewards of its messages are then only a part. A cut conversation has no outcome yet.
    """
    rated_by, terminated = _rated_by(dialogues)
    found = rated_by == RATED.index("nothing")
    outcome = rated_by == RATED.index("outcome")
    return found | (terminated & ~outcome) if outcome.any() else found


def lacks_outcome(dialogues: Iterable[Dialogue]) -> np.ndarray:
    """Of each conversation, whether it should have an outcome and has none: it ended, and others are rated.

    Its outcome is not 0 for that, and somebody has to say what becomes of it.
    """
    _, terminated = _rated_by(dialogues)
    without = unrated(dialogues)
    return np.zeros_like(without) if without.all() else without & terminated


def _rated_by(dialogues: Iterable[Dialogue]) -> tuple[np.ndarray, np.ndarray]:
    """Where the rewards of each conversation come from, as a place in `RATED`, and whether it ended."""
    compact = compact_of(dialogues)
    if compact is not None:
        return compact.rated_by, compact.terminated
    pairs = [(RATED.index(d.rated_by), d.terminated) for d in dialogues]
    return np.array([r for r, _ in pairs], np.uint8), np.array([t for _, t in pairs], bool)
