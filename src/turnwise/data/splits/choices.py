"""Conversations as a whole, be they objects in a list or in compact form, which makes them anew each time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from turnwise.data.compact import RATED, CompactDialogues, Known, packed
from turnwise.data.dataset import Dataset
from turnwise.data.dialogue import Dialogue
from turnwise.data.disk.columns import Column
from turnwise.data.disk.places import Places


def compact_of(dialogues: Iterable[Dialogue]) -> CompactDialogues | None:
    """The compact form of conversations, if they are in it."""
    items = dialogues.items if isinstance(dialogues, Dataset) else dialogues
    return items if isinstance(items, CompactDialogues) else None


def returns_of(dialogues: Iterable[Dialogue]) -> np.ndarray:
    """Undiscounted return of each conversation, in the units of the task, all in memory."""
    compact = compact_of(dialogues)
    return np.array([d.undiscounted_return() for d in dialogues]) if compact is None else compact.returns


def known_of(dialogues: Iterable[Dialogue]) -> Iterator[Known]:
    """Returns, ends and what rates them, of some conversations after the other."""
    compact = compact_of(dialogues)
    if compact is not None:
        yield from compact.known()
        return
    found = [(d.undiscounted_return(), d.terminated, RATED.index(d.rated_by)) for d in dialogues]
    yield Known(*(np.array([x[k] for x in found], t) for k, t in enumerate((np.float64, bool, np.uint8))))


def chosen(dialogues: Sequence[Dialogue], places: Places | range | Column | np.ndarray) -> Sequence[Dialogue]:
    """The conversations at these places, in this order; no copies, if they are in compact form."""
    compact = compact_of(dialogues)
    if compact is not None:
        return compact.select(places)
    return [dialogues[i] for block in Places.of(places).blocks() for i in block.tolist()]


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


@dataclass(frozen=True)
class Ratings:
    """How conversations are rated as a whole, which decides what a single one's rating means."""

    count: np.ndarray
    """[2, 3] conversations by whether they came to an end, and by what rates them (places in `RATED`)"""

    @classmethod
    def of(cls, dialogues: Sequence[Dialogue]) -> Ratings:
        """Counted, some at a time."""
        count = np.zeros(6, np.int64)
        for known in known_of(dialogues):
            count += np.bincount(3 * known.terminated + known.rated_by, minlength=6)
        return cls(count.reshape(2, 3))

    def unrated(self, known: Known) -> np.ndarray:
        """Of some of them, whether their returns say nothing of how they went (see `unrated`)."""
        found = known.rated_by == _NOTHING
        if not self.count[:, _OUTCOME].any():
            return found
        return found | (known.terminated & (known.rated_by != _OUTCOME))

    def lacks_outcome(self, known: Known) -> np.ndarray:
        """Of some of them, whether they ended without the outcome that others have (see `lacks_outcome`)."""
        if self.all_unrated:
            return np.zeros(len(known.rated_by), bool)
        return self.unrated(known) & known.terminated

    @property
    def all_unrated(self) -> bool:
        """Whether nobody said of any conversation how it went."""
        return not self.count[:, [r for r in range(3) if r != _NOTHING]].any()

    @property
    def missing(self) -> int:
        """Conversations that ended without the outcome that others have."""
        ended = self.count[1]
        if self.all_unrated:
            return 0
        return int(ended.sum() - ended[_OUTCOME] if self.count[:, _OUTCOME].any() else ended[_NOTHING])


_OUTCOME, _NOTHING = RATED.index("outcome"), RATED.index("nothing")


def unrated(dialogues: Sequence[Dialogue]) -> np.ndarray:
    """Of each conversation, whether its return says nothing of how it went.

    It says nothing if the log said nothing, and if others have an outcome where this one came to its end
    without: rewards of its messages are then only a part. A cut conversation has no outcome yet.
    """
    ratings = Ratings.of(dialogues)
    found = [ratings.unrated(known) for known in known_of(dialogues)]
    return np.concatenate(found) if found else np.zeros(0, bool)


def lacks_outcome(dialogues: Sequence[Dialogue]) -> np.ndarray:
    """Of each conversation, whether it should have an outcome and has none: it ended, and others are rated.

    Its outcome is not 0 for that, and somebody has to say what becomes of it.
    """
    ratings = Ratings.of(dialogues)
    found = [ratings.lacks_outcome(known) for known in known_of(dialogues)]
    return np.concatenate(found) if found else np.zeros(0, bool)
