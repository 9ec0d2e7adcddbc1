"""What the system says of a file, in one line: no room, no right, no such place."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

_EXPECTED = {
    errno.ENOSPC: "more room on its disk",
    errno.EDQUOT: "more room: the quota is used up",
    errno.EFBIG: "a place that takes files of this size",
    errno.EROFS: "a place that may be written to",
    errno.EACCES: "a place that this user may use",
    errno.EPERM: "a place that this user may use",
    errno.ENAMETOOLONG: "a shorter name",
    errno.ENOTDIR: "a folder where a file is",
    errno.EISDIR: "a file where a folder is",
    errno.ENOENT: "a place that exists",
    errno.EEXIST: "a name that is not taken",
    errno.EIO: "a disk that works",
    errno.EMFILE: "fewer open files, or a higher limit (ulimit -n)",
    errno.ELOOP: "a link that leads to a file",
    errno.ENXIO: "a file",
    errno.EINVAL: "a name that the system takes",
}


def in_words(error: OSError) -> str | None:
    """`runs/x/result.json: no space left on device; expected more room on its disk`; None for other trouble.

    A connection that breaks or a time that runs out is an OSError as well, and says nothing of a file.
    """
    if error.errno not in _EXPECTED:
        return None
    where = "" if error.filename is None else f"{_plain(os.fsdecode(error.filename))}: "
    what = (error.strerror or os.strerror(error.errno)).lower()
    return f"{where}{what}; expected {_EXPECTED[error.errno]}"


def _plain(name: str) -> str:
    """The name as the user knows it: not that of the unfinished file beside it. Long ones are cut."""
    name = re.sub(r"\.part(?=/|$)", "", name)
    name = re.sub(r"(^|/)\.([^/]+)\.\d+$", r"\1\2", name)
    return name if len(name) <= 200 else f"{name[:100]}...{name[-60:]}"


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """An OSError from inside names `path` if it names nothing, and is one if a library made text of it."""
    try:
        yield
    except OSError as e:
        if e.filename is None and e.errno is not None:
            e.filename = str(path)
        raise
    except Exception as e:
        # Libraries written in Rust (safetensors, tokenizers) raise kinds of their own.
        if code := re.search(r"\(os error (\d+)\)", str(e)):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from e
        raise
