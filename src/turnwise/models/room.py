"""Whether this machine has the memory that a module needs: asked before any of it is taken."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from turnwise.run.errors import InputError

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""where a container says how much of the machine's memory it may have"""
_TAKEN = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")
"""where it says how much of that it has taken, files that it remembers included"""
_FILES = ("file ", "cache ")
"""how the line of `memory.stat` beside it begins that says how much those files are"""


def expect_room(what: str, build: Callable[[], nn.Module]) -> None:
    """InputError if the module that `build` makes has more bytes than this machine has memory.

    It is built without its numbers, on PyTorch's meta device, which takes no memory whatever the sizes are.
    The generator that the true weights will be drawn from stays where it is.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        module = build()
    needed, here = bytes_of(module), memory()
    if here is not None and needed > here:
        raise InputError(
            f"{what}: its weights would need {_gib(needed)} of memory, and this machine has {_gib(here)}"
        )


def bytes_of(module: nn.Module) -> int:
    """Bytes of weights, in single precision, and of buffers."""
    weights = sum(4 * p.numel() for p in module.parameters())
    return weights + sum(b.numel() * b.element_size() for b in module.buffers())


def memory() -> int | None:
    """Bytes of memory that this process may have; None if the system does not say."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, OSError, ValueError):
        return None
    for name in _LIMITS:
        text = Path(name).read_text().strip() if Path(name).is_file() else ""
        found += [int(text)] if text.isdigit() else []
    return min(found)


def free() -> int | None:
    """Bytes that this process may still take; None if the system does not say."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(x.split()[1] for x in lines if x.startswith("MemAvailable:"))))
    for limit, taken, files in zip(_LIMITS, _TAKEN, _FILES, strict=True):
        with contextlib.suppress(OSError, ValueError, StopIteration):  # no such file, or "max"
            most, used = int(Path(limit).read_text()), int(Path(taken).read_text())
            stat = Path(taken).with_name("memory.stat").read_text().splitlines()
            used -= next(int(x.removeprefix(files)) for x in stat if x.startswith(files))
            found.append(max(0, most - used))
    return min(found, default=None)


def _gib(n: int) -> str:
    return f"{n / 2**30:,.1f} GiB"
