"""What an environment gives against what its spaces promise: what is wrong, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import Space, spaces

SLACK = 1e-3
"""share of a number's range by which it may leave its bounds in silence: environments round"""


def fault_in(space: Space, given: Any) -> str | None:
    """What `given` is instead of an element of the space: "FOUND; expected EXPECTED"; None if it is one.

    Numbers that are finite may lie outside the bounds of their Box, which `beyond` tells.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(given, Mapping):
            return f"{_shown(given)}; expected a dict with {', '.join(space.spaces)}"
        missing = [key for key in space.spaces if key not in given]
        if missing:
            return f"a dict without {missing[0]}; expected {', '.join(space.spaces)}"
        return _first((key, part, given[key]) for key, part in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        if not isinstance(given, tuple | list) or len(given) != len(space.spaces):
            return f"{_shown(given)}; expected a tuple of {len(space.spaces)}"
        return _first((i, part, x) for i, (part, x) in enumerate(zip(space.spaces, given, strict=True)))
    if isinstance(space, spaces.Discrete):
        last = int(space.start + space.n) - 1
        whole = np.ndim(given) == 0 and _kind(given) in "iub" and space.start <= given <= last
        return None if whole else f"{_shown(given)}; expected a whole number from {space.start} to {last}"
    if isinstance(space, spaces.Box):
        return _in_box(space, given)
    if isinstance(space, spaces.MultiBinary | spaces.MultiDiscrete):
        return _in_symbols(space, given)
    return None if space.contains(given) else f"{_shown(given)}; expected an element of {space}"


def beyond(space: Space, given: Any) -> str | None:
    """A number of a faultless element that lies clearly outside the bounds of its Box, in the same words."""
    if isinstance(space, spaces.Dict):
        found = ((key, beyond(part, given[key])) for key, part in space.spaces.items())
        return next((f"{told} ({key})" for key, told in found if told is not None), None)
    if isinstance(space, spaces.Tuple):
        found = enumerate(map(beyond, space.spaces, given))
        return next((f"{told} (part {i})" for i, told in found if told is not None), None)
    if not isinstance(space, spaces.Box):
        return None
    x = np.asarray(given)
    if ((x >= space.low) & (x <= space.high)).all():
        return None
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    with np.errstate(invalid="ignore"):
        room = np.where(np.isfinite(high - low), SLACK * (high - low), SLACK)
    outside = ((x < low - room) | (x > high + room)).reshape(-1)
    if not outside.any():
        return None
    i = int(np.argmax(outside))
    at = f"{float(x.reshape(-1)[i]):g}"
    return f"{at}; expected {low.reshape(-1)[i]:g} to {high.reshape(-1)[i]:g}, as the space says"


def _first(parts: Any) -> str | None:
    """The first fault among (name, space, given)."""
    for name, space, given in parts:
        fault = fault_in(space, given)
        if fault is not None:
            found, _, expected = fault.partition("; ")
            where = name if isinstance(name, str) else f"part {name}"
            return f"{found} ({where}); {expected}"
    return None


def _in_box(space: spaces.Box, given: Any) -> str | None:
    kind, shape = _kind(given), np.shape(given) if _kind(given) != "O" else None
    if kind not in "fiub" or shape is None:
        return f"{_shown(given)}; expected numbers of shape {space.shape}"
    if shape != space.shape:
        return f"of shape {shape}; expected shape {space.shape}"
    if kind == "f" and not np.isfinite(given).all():
        wrong = np.asarray(given).reshape(-1)
        wrong = wrong[~np.isfinite(wrong)][0]
        return f"{_shown(given) if np.size(given) < 9 else wrong}; expected finite numbers"
    return None


def _in_symbols(space: spaces.MultiBinary | spaces.MultiDiscrete, given: Any) -> str | None:
    if _kind(given) not in "iub" or np.shape(given) != space.shape:
        return f"{_shown(given)}; expected whole numbers of shape {space.shape}"
    binary = isinstance(space, spaces.MultiBinary)
    first = np.zeros(space.shape) if binary else space.start
    size = np.full(space.shape, 2) if binary else space.nvec
    wrong = (np.asarray(given) < first) | (np.asarray(given) >= first + size)
    if not wrong.any():
        return None
    i = int(np.argmax(wrong.reshape(-1)))
    low = int(first.reshape(-1)[i])
    return f"{_shown(given)}; expected {low} to {low + int(size.reshape(-1)[i]) - 1} in place {i}"


def _kind(given: Any) -> str:
    """NumPy's letter for what `given` is made of; O for what makes no array of numbers."""
    try:
        return np.asarray(given).dtype.kind
    except ValueError:  # parts of different lengths
        return "O"


def _shown(given: Any) -> str:
    """A value in a few words."""
    text = " ".join((str(given.tolist()) if isinstance(given, np.ndarray) else repr(given)).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
