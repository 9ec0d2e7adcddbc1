"""One process writes a run folder at a time, and a run that has not ended says so.

The lock is a file `.lock` in the folder that names the process. The system itself holds it (flock) and lets
go when the process ends, however it ends. Where a file system cannot do that, as some that are shared by many
machines, the file alone is the lock: it is taken over if its process is gone, which only its own machine can
tell.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from turnwise.run.errors import InputError, SettingError

LOCK, RESULT = ".lock", "result.json"


def has_ended(run: Path) -> bool:
    """Whether a run came to its end. `result.json` alone says so: it is written when all else is."""
    return (run / RESULT).is_file()


def expect_ended(run: Path) -> None:
    """InputError for a run that has not come to its end: what it trained is not all there."""
    if has_ended(run):
        return
    found = holder(run)
    raise InputError(
        f"{run}: this run has not ended; "
        + (f"{found} is at work on it" if found else "resume it, with the settings that it began with")
    )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one who writes `folder`. SettingError, at once, if another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    opened = _take(path, folder)
    try:
        yield
    finally:
        # Taken away before it is let go: who waits for this very file then sees that it is none any more.
        path.unlink(missing_ok=True)
        os.close(opened)


def expect_unlocked(folder: Path) -> None:
    """SettingError if another process writes `folder` now."""
    if found := holder(folder):
        raise _taken(folder, found)


def _taken(folder: Path, who: str) -> SettingError:
    expected = (
        f"a folder that no other run writes; {who} is at work on it (if that is not so, delete "
        f"{folder / LOCK})"
    )
    return SettingError("out", str(folder), expected)


def holder(folder: Path) -> str | None:
    """Who writes `folder` now, in words; None if nobody does."""
    path = folder / LOCK
    try:
        opened = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        free = _flock(opened)
        if free or (free is None and _gone(path)):
            return None
        return _words(_read(path))
    finally:
        os.close(opened)


def _take(path: Path, folder: Path) -> int:
    while True:
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        free = _flock(opened)
        if free is None:  # no such locks here: what the file says has to do
            free = _gone(path)
        if not free:
            os.close(opened)
            raise _taken(folder, _words(_read(path)))
        # Another process may have taken the file away between the two calls above.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(opened).st_ino == path.stat().st_ino:
                break
        os.close(opened)
    about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.truncate(opened, 0)
    os.write(opened, json.dumps(about).encode())
    return opened


def _flock(opened: int) -> bool | None:
    """Whether the file is ours now; None if there are no such locks here."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _gone(path: Path) -> bool:
    """Whether the process that a lock names has ended, as far as this machine can tell."""
    about = _read(path)
    if not about:
        return True
    if about.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(about["pid"]), 0)
    except (ProcessLookupError, ValueError, KeyError):
        return True
    except OSError:
        return False
    return int(about["pid"]) == os.getpid()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _words(about: dict[str, Any]) -> str:
    if not about:
        return "another process"
    return f"process {about.get('pid')} on {about.get('host')}, since {about.get('since')},"
