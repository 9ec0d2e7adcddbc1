"""Pieces of work in processes of their own, one CPU thread each: a pool, and its lines in one terminal."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TextIO

from turnwise.run.errors import Interrupted


def result_of(done: Future[Any]) -> Any:
    """What a worker returned, or its error; the second Ctrl-C kills workers."""
    try:
        return done.result()
    except KeyboardInterrupt:
        raise Interrupted("stopped") from None


class Here(Executor):
    """Does each piece of work at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The work, done."""
        found: Future[Any] = Future()
        try:
            found.set_result(fn(*args, **kwargs))
        except Exception as error:
            found.set_exception(error)
        return found


@contextmanager
def workers(count: int, *, quiet: bool = False) -> Iterator[Executor]:
    """Processes with one CPU thread each; 0: this process does the work itself.

    Ctrl-C reaches them all; this one waits for their checkpoints.
    """
    if not count:
        yield Here()
        return
    context = multiprocessing.get_context("spawn")
    before = signal.getsignal(signal.SIGINT)
    pool = ProcessPoolExecutor(count, context, initializer=_begin_worker, initargs=(quiet,))
    try:
        with pool:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            yield pool
    finally:
        signal.signal(signal.SIGINT, before)


def named(name: str) -> None:
    """Say in front of each line what this process does from now on."""
    _Named.name = name


def _begin_worker(quiet: bool) -> None:
    """Lines of several processes share a terminal: no live bars, and each line says whose it is."""
    # Children of a process that ignores Ctrl-C ignore it too, and they are to leave a checkpoint.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.stderr = _Nowhere(sys.stderr) if quiet else _Named(sys.stderr)


class _Named:
    """A stream that is no terminal and begins each line with the name of what this process does."""

    name = ""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.rest = ""

    def write(self, text: str) -> int:
        """Pass on whole lines, each in one piece."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.stream.write(f"  {self.name:<11}{line}\n")
        return len(text)

    def flush(self) -> None:
        """Pass on."""
        self.stream.flush()

    def isatty(self) -> bool:
        """No live bars."""
        return False


class _Nowhere(_Named):
    """A stream that nobody reads."""

    def write(self, text: str) -> int:
        """Drop it."""
        return len(text)
