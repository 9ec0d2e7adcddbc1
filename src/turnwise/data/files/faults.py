"""Rows through a parser, and all that is wrong with them told at once."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from turnwise.data.dataset import Dataset, Reading
from turnwise.data.dialogue import Dialogue
from turnwise.data.disk.buckets import Buckets
from turnwise.data.disk.columns import BLOCK, Column
from turnwise.data.disk.wheres import Wheres
from turnwise.data.feedback import Feedback
from turnwise.data.files.fields import unexpected
from turnwise.data.files.formats import Row
from turnwise.data.files.sources import Source, passed_over
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.hashing import hash_of

T = TypeVar("T")
Item = TypeVar("Item", bound=Dialogue | Feedback)

TOLD = 10
"""faults that are told word for word; of the others there is the count"""


@dataclass
class Faults:
    """What is wrong with the rows of a source, as it is read."""

    name: str
    """What the source is called."""
    what: str
    """One of its rows in words."""
    count: int = 0
    told: list[str] = field(default_factory=list)
    """The first of them, `file:line: field: expected ...; found ...`."""
    row: int = 0
    """Which row is being read, counted from 0."""
    _places: list[int] = field(default_factory=list)
    """which rows those that are told stand in"""

    def note(self, fault: InputError, place: int | None = None) -> None:
        """One more, of the row at a place among all rows (the one being read); earlier rows come first."""
        place = self.row if place is None else place
        self.count += 1
        at = bisect_right(self._places, place)
        if at < TOLD:
            self._places.insert(at, place)
            self.told.insert(at, str(fault))
            del self._places[TOLD:], self.told[TOLD:]

    def judge(self, good: int, skip_bad: bool) -> None:
        """InputError for a source without rows; or with bad ones, unless `skip_bad` and some are `good`."""
        if not good + self.count:
            raise InputError(f"{self.name}: expected at least one {self.what}; found nothing (it is empty)")
        if not self.count or (skip_bad and good):
            return
        rows = f"{good + self.count:,} rows"
        if self.count == 1:
            (fault,) = self.told
            raise InputError(fault if not good else f"{fault} (1 of {rows}; skip_bad leaves it out)")
        remedy = "skip_bad leaves them out" if good else "nothing would be left without them"
        which = f"the first {TOLD}" if self.count > TOLD else "they are"
        head = f"{self.name}: expected {rows} that are each a {self.what}; found {self.count:,} that are not"
        raise InputError("\n  ".join([f"{head} ({remedy}); {which}:", *self.told]))

    def reading(self, source: Source, by: str | None = None) -> Reading:
        """What is to be told of a source that was read in spite of them."""
        earlier = source.reading if isinstance(source, Dataset) else Reading()
        return replace(
            earlier,
            skipped=earlier.skipped + self.count,
            faults=(*earlier.faults, *self.told),
            passed_over=earlier.passed_over or passed_over(source),
            gathered_by=earlier.gathered_by or by,
        )


def parsed(rows: Iterable[Row], parse: Callable[[Row], T], faults: Faults) -> Iterator[T]:
    """What `parse` makes of the rows, one at a time; those that it refuses are noted."""
    for faults.row, row in enumerate(rows):
        try:
            if isinstance(row.value, InputError):
                raise row.value
            item = parse(row)
        except SettingError:  # no fault of the row
            raise
        except InputError as error:
            faults.note(error)
        except RecursionError:
            told = f"{row.where}: expected a {faults.what}; found values nested too deeply"
            faults.note(InputError(told))
        else:
            yield item


class Names:
    """The ids of items, to find those that two have; they may be too many for memory."""

    def __init__(self) -> None:
        self._hashes, self._where, self._rows = Column(np.uint64), Wheres(), Column(np.int64)
        self._waiting, self._waiting_rows = array("Q"), array("q")

    def add(self, id: str, where: str, place: int) -> None:
        """The id of the next item, of the row at `where`, which is the `place`-th of all rows."""
        self._waiting.append(hash_of(id.encode(errors="surrogatepass")))
        self._waiting_rows.append(place)
        self._where.add(where)
        if len(self._waiting) == BLOCK:
            self._settle()

    def _settle(self) -> None:
        self._hashes.extend(np.array(self._waiting, np.uint64))
        self._rows.extend(np.array(self._waiting_rows, np.int64))
        del self._waiting[:], self._waiting_rows[:]

    def repeated(self, id_of: Callable[[int], str], faults: Faults) -> np.ndarray:
        """Places, in order, of items whose id an earlier one has; each is noted as a fault of its row."""
        self._settle()
        pair = np.dtype([("hash", np.uint64), ("at", np.int64)])
        buckets, at = Buckets(pair, len(self._hashes)), 0
        for block in self._hashes.blocks():
            records = np.empty(len(block), pair)
            records["hash"], records["at"] = block, np.arange(at, at + len(block))
            buckets.add(block, records)
            at += len(block)
        found = Column(np.int64)
        for records in buckets:
            _, first, count = np.unique(records["hash"], return_index=True, return_counts=True)
            if len(first) == len(records):
                continue
            order = np.argsort(records["hash"], kind="stable")  # of equal ones the earliest first
            starts = np.cumsum(count) - count
            for start, size in zip(starts[count > 1].tolist(), count[count > 1].tolist(), strict=True):
                earliest, *others = records["at"][order[start : start + size]].tolist()
                name = id_of(earliest)
                has = f"an id of its own ({self._where[earliest]} has it too)"
                others = [other for other in others if id_of(other) == name]  # hashes may be equal by chance
                for other in others:
                    faults.note(unexpected(self._where[other], "id", has, name), int(self._rows[other]))
                found.extend(others)
        return np.sort(found.array())


def items_of(
    rows: Iterable[Row], parse: Callable[[Row], Item], faults: Faults, names: Names
) -> Iterator[Item]:
    """The same for what has an id, its own or its row's; `names` gets it."""

    def with_id(row: Row) -> Item:
        item = parse(row)
        item = item if item.id else replace(item, id=row.id)
        names.add(item.id, row.where, faults.row)
        return item

    return parsed(rows, with_id, faults)
