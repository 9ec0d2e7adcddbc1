"""Sequences of rows that remember where they came from: logs, feedback, prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Self, TypeVar, overload

from turnwise.data.dialogue import Dialogue
from turnwise.data.feedback import Feedback, Kind, Prompt, kind_of

T = TypeVar("T")

IN_MEMORY = "rows in memory"


@dataclass(frozen=True)
class Reading:
    """What came of reading a source beside its rows: what was left out, and how it was understood."""

    skipped: int = 0
    """Bad rows that were left out."""
    faults: tuple[str, ...] = ()
    """What is wrong with the first of them."""
    passed_over: tuple[str, ...] = ()
    """Files of a folder that were not read."""
    gathered_by: str | None = None
    """Column by which rows that are messages became conversations."""
    cut_as_ended: int = 0
    """Truncated conversations that count as ended."""
    without_outcome: int = 0
    """Conversations without an outcome of their own, of which `missing_outcome` says what became."""
    missing_outcome: str | float | None = None
    """"leave-out", or the number that they count as."""

    def facts(self) -> dict[str, Any]:
        """How many rows are not there, and what was assumed: what the config of a run records."""
        found: dict[str, Any] = {} if not self.skipped else {"skipped": self.skipped}
        if self.gathered_by is not None:
            found["gathered_by"] = self.gathered_by
        if self.cut_as_ended:
            found["cut_as_ended"] = self.cut_as_ended
        if self.without_outcome:
            found |= {"without_outcome": self.without_outcome, "missing_outcome": self.missing_outcome}
        return found

    def notes(self) -> list[str]:
        """One sentence for each thing that a reader should know."""
        found = []
        if self.gathered_by is not None:
            found.append(f"Rows are messages: those of equal {self.gathered_by!r} became one conversation.")
        if self.skipped:
            rows = "1 bad row was" if self.skipped == 1 else f"{self.skipped:,} bad rows were"
            found.append(f"{rows} left out; the first: {self.faults[0]}")
        if self.cut_as_ended:
            found.append(f"{_count(self.cut_as_ended, 'truncated conversation')} counted as ended.")
        if self.without_outcome:
            became = "were left out"
            if self.missing_outcome != "leave-out":
                became = f"count as {self.missing_outcome:g}"
            found.append(f"{_count(self.without_outcome, 'conversation')} without an outcome {became}.")
        if self.passed_over:
            names = ", ".join(self.passed_over[:5]) + (", ..." if len(self.passed_over) > 5 else "")
            found.append(f"{_count(len(self.passed_over), 'file')} of the folder not read: {names}.")
        return found


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Sequence[T], Generic[T]):
    """Rows in a fixed order, and the name of what they were read from.

    `items`: the rows. `source`: the path or name that was read, or "rows in memory". `reading`: what was left
    out on the way. A slice is a data set of the same kind and source. Two data sets are equal if their rows
    are, wherever they came from; a list or a tuple of the same rows is equal too.
    """

    items: Sequence[T]
    source: str = IN_MEMORY
    reading: Reading = Reading()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> T | Self:
        return replace(self, items=self.items[index]) if isinstance(index, slice) else self.items[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Dataset | list | tuple):
            return NotImplemented
        # One pair at a time: rows may be made anew each time that they are looked at.
        return len(self) == len(other) and all(x is y or x == y for x, y in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # rows carry metadata, which is a dict

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._what()})"

    def _what(self) -> str:
        return f"{_count(len(self), 'row')} from {self.source}"


@dataclass(frozen=True, eq=False, repr=False)
class Logs(Dataset[Dialogue]):
    """Logged conversations."""

    def _what(self) -> str:
        """How many, how much was said, and the undiscounted returns, in the units of the task."""
        said = f"{_count(len(self), 'conversation')} from {self.source}"
        if not self.items:
            return said
        turns = sum(len(d.turns) for d in self)
        said += f": {_count(turns, 'turn')} of the agent"
        from turnwise.data.splits.choices import returns_of, unrated  # which imports this module

        without = unrated(self)
        if without.all():
            return f"{said}, no outcomes"
        returns = returns_of(self)[~without]
        mean = math.fsum(returns) / len(returns)
        spread = f"mean return {mean:.3g} ({min(returns):.3g} to {max(returns):.3g})"
        unknown = f" of {len(returns):,}, {without.sum():,} without an outcome" if without.any() else ""
        return f"{said}, {spread}{unknown}"


@dataclass(frozen=True, eq=False, repr=False)
class FeedbackSet(Dataset[Feedback]):
    """Judgements of replies, all of one kind.

    `text`: every prompt was written as plain text and not as messages; reward functions then get plain text.
    """

    text: bool = False

    @property
    def kind(self) -> Kind:
        """What they are; ValueError if there are none."""
        if not self.items:
            raise ValueError("no judgement, so no kind")
        return kind_of(self.items[0])

    def _what(self) -> str:
        if not self.items:
            return f"no judgements from {self.source}"
        prompts = len({item.prompt for item in self})
        return f"{_count(len(self), self.kind[:-1])} from {self.source}: {_count(prompts, 'prompt')}"


@dataclass(frozen=True)
class PromptRow:
    """A prompt and the other columns of its row, which reward functions get."""

    prompt: Prompt
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Prompts(Dataset[PromptRow]):
    """Prompts to reply to, each once.

    `text`: every prompt was written as plain text and not as messages; reward functions then get plain text.
    `repeated`: rows that were left out because they repeat an earlier prompt with other columns.
    """

    text: bool = False
    repeated: int = 0

    def split(self, fraction: float) -> tuple[Self, Self]:
        """(to learn from, held out), by the prompts' words alone, as feedback is split.

        If all of so few were held out, none is: there would be nothing to learn from.
        """
        from turnwise.data.splits.heldout import split_by_prompt  # which knows data sets

        learnt, held = split_by_prompt(self, fraction)
        if not learnt:
            learnt, held = held, []
        return replace(self, items=tuple(learnt)), replace(self, items=tuple(held))

    def _what(self) -> str:
        columns = sorted({name for row in self for name in row.columns})
        named = f": columns {', '.join(columns)}" if columns else ""
        return f"{_count(len(self), 'prompt')} from {self.source}{named}"


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"
