"""Progress that a person can follow: a live bar in a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from turnwise.run.terminal import console, say

PLAIN_EVERY = 15.0
"""Seconds between lines if stderr is no terminal."""
NOTEBOOK_EVERY = 3.0
"""The same in a notebook, where somebody is watching."""


class Progress:
    """A count from `done` up to `total` on stderr, with the time left and a few live numbers.

    If stderr is no terminal, work of less than two seconds is not shown.
    """

    def __init__(self, what: str, total: int, *, done: int = 0, quiet: bool = False):
        self.what, self.total, self.quiet = what, total, quiet
        self.first = done
        self.began = self.spoke = time.monotonic()
        self._every = NOTEBOOK_EVERY if "ipykernel" in sys.modules else PLAIN_EVERY
        self._bar = None
        self._task = None

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description:<12}", markup=False),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[live]}", markup=False),
                console=console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, completed=self.first, live="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def at(self, done: int, live: Mapping[str, float] | None = None) -> None:
        """Show that `done` of `total` are done; `live` are numbers to show beside it."""
        numbers = "  ".join(f"{k} {v:.4g}" for k, v in (live or {}).items())
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, live=numbers)
            return
        now = time.monotonic()
        if self.quiet or (now - self.spoke < self._every and done < self.total):
            return
        if done >= self.total and now - self.began < 2:
            return
        self.spoke = now
        pace = (now - self.began) / max(1, done - self.first)
        left = pace * (self.total - done)
        say(f"{self.what}: {done}/{self.total}  left {_clock(left)}  {numbers}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
