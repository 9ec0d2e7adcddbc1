"""Files and folders that are there whole or not at all, also after a kill or a power cut.

What is written goes to a place beside its own, `NAME.part`. Only when every byte is on the disk does it take
its name, in one step; then the folder's entry is forced to the disk too. A `.part` that a kill left behind is
nobody's, and the next write takes its place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from turnwise.run.errors import InputError
from turnwise.run.files.trouble import named

PART = ".part"
"""what ends the name of something unfinished"""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write that becomes `path` once it is complete; after an error nothing is left of it."""
    part = path.with_name(path.name + PART)
    try:
        with named(path):
            yield part
            to_disk(part)
            os.replace(part, path)
            to_disk(path.parent)
    finally:
        with contextlib.suppress(OSError):  # what could not be made cannot be removed either
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path, mark: str) -> Iterator[Path]:
    """An empty folder that becomes `path` once it is complete.

    It takes the place of an empty folder, or of one that holds a file called `mark`, which an earlier call
    wrote; InputError for a folder of other files. After an error `path` is what it was. It is missing for an
    instant while an old folder makes room; a kill in that instant leaves that as `NAME.old`.
    """
    part, old = (path.with_name(path.name + end) for end in (PART, ".old"))
    if path.exists() and not (path / mark).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: expected a new folder, or one that holds a saved model")
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in (part, old):
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir()
    try:
        with named(path):
            yield part
            for place in (*part.rglob("*"), part):
                to_disk(place)
            if path.is_dir() and any(path.iterdir()):
                os.rename(path, old)
            os.rename(part, path)
            to_disk(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def whole_files(folder: Path, texts: Mapping[str, str | None], last: str) -> None:
    """Write files that belong together, by name; None takes one away.

    `last` goes first and comes last. So after a kill on the way it is missing, and who reads it is never
    shown one thing in this file and another in the rest.
    """
    (folder / last).unlink(missing_ok=True)
    to_disk(folder)
    for name in (*(n for n in texts if n != last), last):
        text = texts[name]
        if text is None:
            (folder / name).unlink(missing_ok=True)
            continue
        with whole_file(folder / name) as part:
            part.write_text(text, encoding="utf-8")


def to_disk(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    folder = path.is_dir()
    try:
        opened = os.open(path, os.O_RDONLY)
    except OSError:
        if folder:  # some systems open no folders; there renaming is as durable as it gets
            return
        raise
    try:
        os.fsync(opened)
    except OSError:
        if not folder:
            raise
    finally:
        os.close(opened)
