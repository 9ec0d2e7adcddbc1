"""Gymnasium's spaces as the two kinds of ours, symbols and vectors, whole batches at once.

A `Discrete` observation is a symbol. Everything else is flattened to one vector as `gymnasium.spaces.flatten`
does it: numbers as they are (images too: 0 to 255, not scaled), discrete parts as one-hots, the parts of a
Dict in the order of its space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space as GymSpace
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from turnwise.envs.protocol import Discrete, Space, Vector
from turnwise.run.errors import InputError

Read = Callable[[Any], np.ndarray]
"""turns a batch of Gymnasium observations into [N] int64 or [N, d] float32, a copy"""


@dataclass(frozen=True)
class Observations:
    """A reader of observations."""

    space: Space
    read: Read
    single: GymSpace

    @staticmethod
    def of(single: GymSpace) -> Observations:
        """For the space of one environment's observations."""
        if isinstance(single, spaces.Discrete):
            first = int(single.start)
            return Observations(Discrete(int(single.n)), lambda x: np.array(x, np.int64) - first, single)
        if not single.is_np_flattenable:
            raise InputError(f"observations of {single} have no fixed size; expected a space that flattens")
        parts = list(_parts(single, lambda x: x))

        def read(batch: Any) -> np.ndarray:
            if len(parts) == 1:
                return parts[0](batch)
            return np.concatenate([part(batch) for part in parts], axis=1)

        return Observations(Vector(spaces.flatdim(single)), read, single)

    def read_each(self, observations: list[Any]) -> np.ndarray:
        """[n] or [n, d], observations that came one by one, as in `infos["final_obs"]`."""
        empty = create_empty_array(self.single, len(observations))
        return self.read(concatenate(self.single, observations, empty))  # type: ignore[arg-type]


def _parts(space: GymSpace, find: Callable[[Any], Any]) -> Iterator[Read]:
    """Readers of the leaves of a space, each [N, d] float32; `find` maps a batch to its part for `space`."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        items = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in items:
            yield from _parts(part, lambda x, key=key: find(x)[key])
    elif isinstance(space, spaces.Box | spaces.MultiBinary):
        yield lambda x: np.array(find(x), np.float32).reshape(len(find(x)), -1)
    elif isinstance(space, spaces.Discrete):
        yield one_hots(find, np.array([space.n]), np.array([space.start]))
    elif isinstance(space, spaces.MultiDiscrete):
        yield one_hots(find, space.nvec.reshape(-1), space.start.reshape(-1))
    else:
        yield lambda x: _one_by_one(space, find(x))


def one_hots(find: Callable[[Any], Any], sizes: np.ndarray, first: np.ndarray) -> Read:
    """A reader of integers [N, ...] that start at `first`: one-hots of the given sizes, concatenated."""
    places = np.cumsum(sizes) - sizes - first  # column of each part's value 0

    def read(batch: Any) -> np.ndarray:
        values = np.asarray(find(batch)).reshape(-1, len(sizes)).astype(np.int64)
        hot = np.zeros((len(values), int(sizes.sum())), np.float32)
        np.put_along_axis(hot, values + places, 1.0, axis=1)
        return hot

    return read


def _one_by_one(space: GymSpace, batch: Any) -> np.ndarray:
    """The slow way, for spaces without arrays (Text, OneOf)."""
    many = batch if isinstance(batch, tuple) else iterate(space, batch)
    return np.stack([np.asarray(spaces.flatten(space, x), np.float32) for x in many])


@dataclass(frozen=True)
class Actions:
    """A writer of actions into a Gymnasium space."""

    space: Space
    write: Callable[[np.ndarray], Any]

    @staticmethod
    def of(single: GymSpace) -> Actions:
        """For the space of one environment's actions: Discrete, or a Box of numbers.

        A Box whose bounds are the same everywhere keeps them; other finite bounds become -1 to 1.
        """
        if isinstance(single, spaces.Discrete):
            first, dtype = int(single.start), single.dtype
            return Actions(Discrete(int(single.n)), lambda a: (np.asarray(a) + first).astype(dtype))
        if not isinstance(single, spaces.Box) or not np.issubdtype(single.dtype, np.floating):
            raise InputError(f"actions are {single}; expected Discrete, or a Box of floating-point numbers")
        low, high = single.low.reshape(-1), single.high.reshape(-1)
        shape, dtype = single.shape, single.dtype
        size = len(low)
        if (low == low[0]).all() and (high == high[0]).all():
            return Actions(
                Vector(size, float(low[0]), float(high[0])),
                lambda a: np.asarray(a, dtype).reshape(-1, *shape),
            )
        if not np.isfinite([low, high]).all():
            raise InputError(f"actions are {single}; expected bounds that are all finite, or all the same")
        centre, half = (high + low) / 2, (high - low) / 2
        return Actions(
            Vector(size, -1.0, 1.0),
            lambda a: np.clip(centre + half * np.asarray(a), low, high).astype(dtype).reshape(-1, *shape),
        )
