"""Rows through a parser, and all that is wrong with them told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from turnwise.data.dataset import Dataset, Reading
from turnwise.data.dialogue import Dialogue
from turnwise.data.feedback import Feedback
from turnwise.data.files.fields import unexpected
from turnwise.data.files.formats import Row
from turnwise.data.files.sources import Source, passed_over
from turnwise.run.errors import InputError, SettingError

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

    def note(self, fault: InputError) -> None:
        """One more."""
        self.count += 1
        if self.count <= TOLD:
            self.told.append(str(fault))

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
    for row in rows:
        try:
            if isinstance(row.value, InputError):
                raise row.value
            item = parse(row)
        except SettingError:  # no fault of the row
            raise
        except InputError as error:
            faults.note(error)
        except RecursionError:
            faults.note(InputError(f"{row.where}: expected a {faults.what}; found values nested too deeply"))
        else:
            yield item


def items_of(rows: Iterable[Row], parse: Callable[[Row], Item], faults: Faults) -> Iterator[Item]:
    """The same for what has an id: its own or its row's. That two have one is a fault of the second."""
    places: dict[str, str] = {}

    def with_id(row: Row) -> Item:
        item = parse(row)
        item = item if item.id else replace(item, id=row.id)
        earlier = places.get(item.id)
        if earlier is not None:
            raise unexpected(row.where, "id", f"an id of its own ({earlier} has it too)", item.id)
        places[item.id] = row.where
        return item

    return parsed(rows, with_id, faults)
