"""Gymnasium's spaces as values that JSON can hold, so that a saved agent knows how its world speaks."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space, spaces

from turnwise.run.errors import InputError


def written(space: Space) -> dict[str, Any]:
    """A space as JSON. InputError for a kind of space that has no numbers or symbols."""
    kind = type(space).__name__
    if isinstance(space, spaces.Discrete):
        return {"Discrete": {"n": int(space.n), "start": int(space.start)}}
    if isinstance(space, spaces.Box):
        ends = {"low": _numbers(space.low), "high": _numbers(space.high)}
        return {"Box": {**ends, "shape": list(space.shape), "dtype": str(space.dtype)}}
    if isinstance(space, spaces.MultiDiscrete):
        return {"MultiDiscrete": {"nvec": space.nvec.tolist(), "start": space.start.tolist()}}
    if isinstance(space, spaces.MultiBinary):
        return {"MultiBinary": {"n": space.n if isinstance(space.n, int) else list(space.shape)}}
    if isinstance(space, spaces.Text):
        lengths = {"min_length": space.min_length, "max_length": space.max_length}
        return {"Text": {**lengths, "charset": space.characters}}
    if isinstance(space, spaces.Dict):
        return {"Dict": [[key, written(part)] for key, part in space.spaces.items()]}
    if isinstance(space, spaces.Tuple | spaces.OneOf):
        return {kind: [written(part) for part in space.spaces]}
    raise InputError(f"a space is {space}; expected one of Gymnasium's own kinds with a fixed size")


def space_of(found: dict[str, Any]) -> Space:
    """The space that `written` gave."""
    ((kind, told),) = found.items()
    if kind == "Box":
        shape, dtype = tuple(told["shape"]), np.dtype(told["dtype"])
        low, high = (np.broadcast_to(_array(told[end], dtype), shape) for end in ("low", "high"))
        return spaces.Box(low, high, shape, dtype)  # type: ignore[arg-type]
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.array(told["nvec"]), start=np.array(told["start"]))
    if kind == "Dict":
        return spaces.Dict([(key, space_of(part)) for key, part in told])  # in this very order
    if kind in ("Tuple", "OneOf"):
        return getattr(spaces, kind)(tuple(map(space_of, told)))
    return {"Discrete": spaces.Discrete, "MultiBinary": spaces.MultiBinary, "Text": spaces.Text}[kind](**told)


def _numbers(bounds: np.ndarray) -> Any:
    """One number if all are the same; infinities as text, which JSON has not."""
    if bounds.size and (bounds == bounds.reshape(-1)[0]).all():
        return _number(bounds.reshape(-1)[0])
    flat = [_number(x) for x in bounds.reshape(-1)]
    return np.array(flat, object).reshape(bounds.shape).tolist()


def _number(x: Any) -> Any:
    return x.item() if np.isfinite(x) else str(float(x))


def _array(told: Any, dtype: np.dtype) -> np.ndarray:
    """Numbers again, "inf" among them."""
    if dtype.kind != "f":
        return np.array(told, dtype)
    return (
        np.vectorize(float, otypes=[dtype])(np.array(told, object)) if np.size(told) else np.zeros(0, dtype)
    )
