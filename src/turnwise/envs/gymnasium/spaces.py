"""Gymnasium's spaces as those of ours, whole batches at once: the one translation, for lanes and players.

A `Discrete` observation is a symbol. Everything else is flattened to one vector as `gymnasium.spaces.flatten`
does it: numbers as they are, discrete parts as one-hots, the parts of a Dict in the order of its space. The
vector says which of its parts are images.

Actions that are a few symbols at once (MultiDiscrete, MultiBinary, and a Dict or Tuple of such) become one
symbol for each combination, if there are at most `COMBINATIONS`; the last symbol changes fastest. Actions
that are numbers (Box, and a Dict or Tuple of such) become one vector with the bounds of each number. Where a
Box is of integers, what is nearest is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space as GymSpace
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from turnwise.envs.gymnasium.faults import fault_in
from turnwise.envs.protocol import Discrete, Image, MultiDiscrete, Space, Vector
from turnwise.run.errors import InputError

Read = Callable[[Any], np.ndarray]
"""turns a batch of Gymnasium observations into [N] int64 or [N, d] float32, a copy"""
COMBINATIONS = 64
"""of actions that are symbols, up to which each combination is a symbol of its own"""
SIDE = 5
"""pixels of the shorter side of an image, at least"""


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
        images = tuple(_images(single, 0))
        only = isinstance(single, spaces.Box) and single.dtype == np.uint8 and bool(images)
        parts = list(_parts(single, lambda x: x, np.uint8 if only else np.float32))

        def read(batch: Any) -> np.ndarray:
            if len(parts) == 1:
                return parts[0](batch)
            return np.concatenate([part(batch) for part in parts], axis=1)

        return Observations(Vector(spaces.flatdim(single), images=images), read, single)

    def read_each(self, observations: list[Any]) -> np.ndarray:
        """[n] or [n, d], observations that came one by one, as in `infos["final_obs"]`."""
        empty = create_empty_array(self.single, len(observations))
        return self.read(concatenate(self.single, observations, empty))  # type: ignore[arg-type]

    def read_one(self, observation: Any) -> np.ndarray:
        """[1] or [1, d], one observation. InputError if it is not of the space, bounds of numbers aside."""
        fault = fault_in(self.single, observation)
        if fault is not None:
            raise InputError(f"the observation is {fault}")
        return self.read_each([observation])

    def read_batch(self, batch: Any, n: int) -> np.ndarray:
        """[n] or [n, d], observations as a vector environment gives them. InputError as for `read_one`."""
        try:
            each = list(iterate(batch_space(self.single, n), batch))
        except (TypeError, ValueError, KeyError, IndexError) as e:
            found = type(batch).__name__
            raise InputError(f"observations are one {found}; expected a batch of {n} of {self.single}") from e
        if len(each) != n:
            raise InputError(f"there are {len(each)} observations; expected {n}, one for each lane")
        return np.concatenate([self.read_one(x) for x in each])


def _parts(space: GymSpace, find: Callable[[Any], Any], kind: Any) -> Iterator[Read]:
    """Readers of the leaves of a space, each [N, d] of that kind; `find` maps a batch to its part for it."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for key, part in _items(space):
            yield from _parts(part, lambda x, key=key: find(x)[key], kind)
    elif isinstance(space, spaces.Box | spaces.MultiBinary):
        yield lambda x: np.array(find(x), kind).reshape(len(find(x)), -1)
    elif isinstance(space, spaces.Discrete):
        yield one_hots(find, np.array([space.n]), np.array([space.start]))
    elif isinstance(space, spaces.MultiDiscrete):
        yield one_hots(find, space.nvec.reshape(-1), space.start.reshape(-1))
    else:
        yield lambda x: _one_by_one(space, find(x))


def _items(space: spaces.Dict | spaces.Tuple) -> list[tuple[Any, GymSpace]]:
    """Keys or places, and their spaces, in the order of the space."""
    return list(space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces))


def _images(space: GymSpace, at: int) -> Iterator[Image]:
    """The images among what a space is flattened to, from column `at` on."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for _, part in _items(space):
            yield from _images(part, at)
            at += spaces.flatdim(part)
    elif isinstance(space, spaces.Box) and (found := _image(space, at)) is not None:
        yield found


def _image(box: spaces.Box, at: int) -> Image | None:
    """A Box as an image: bytes of two axes, or anything of three, or several of these.

    The channels are on the shorter one of the first and the last axis. None if a side has less than `SIDE`.
    """
    shape = box.shape
    if not (len(shape) in (3, 4) or (len(shape) == 2 and box.dtype == np.uint8)):
        return None
    one = shape[-3:]
    last = len(shape) > 2 and one[-1] <= one[0]
    sides = one if len(shape) == 2 else one[:2] if last else one[1:]
    if min(sides) < SIDE:
        return None
    return Image(at, tuple(map(int, shape)), last, float(box.low.min()), float(box.high.max()))


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
    """turns [N] or [N, d], within `space`, into a batch as a vector environment takes it"""
    single: GymSpace

    @staticmethod
    def of(single: GymSpace, combinations: int = COMBINATIONS) -> Actions:
        """For the space of one environment's actions.

        Up to so many `combinations` of symbols are one symbol each. InputError for symbols and numbers mixed,
        and for what is neither.
        """
        leaves = list(_leaves(single))
        kinds = {isinstance(leaf, spaces.Box) for leaf in leaves}
        if kinds == {True}:
            return _numbers(single, leaves)
        if kinds == {False}:
            return _symbols(single, leaves, combinations)
        raise InputError(f"actions are {single}; expected symbols alone, or numbers alone")

    def write_one(self, action: np.ndarray) -> Any:
        """One action [] or [d] as the environment takes it; a symbol of a Discrete as an int."""
        written = next(iter(iterate(batch_space(self.single, 1), self.write(action[None]))))
        return int(written) if isinstance(self.single, spaces.Discrete) else written


def _leaves(space: GymSpace) -> Iterator[Any]:
    """The simple spaces that a space is made of, in order."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for _, part in _items(space):
            yield from _leaves(part)
    elif isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        yield space
    else:
        raise InputError(
            f"actions are {space}; expected Discrete, MultiDiscrete, MultiBinary, a Box, or a Dict or Tuple "
            "of such"
        )


def _numbers(single: GymSpace, leaves: list[Any]) -> Actions:
    """Boxes as one vector with the bounds of each number."""
    low, high = (np.concatenate([np.ravel(getattr(x, end)) for x in leaves]) for end in ("low", "high"))
    low, high = low.astype(np.float64), high.astype(np.float64)
    ends = np.cumsum([math.prod(x.shape) for x in leaves])

    def write(actions: np.ndarray) -> Any:
        parts = np.split(np.asarray(actions), ends[:-1], axis=1)
        done = []
        for box, part in zip(leaves, parts, strict=True):
            whole = np.issubdtype(box.dtype, np.integer) or box.dtype == np.bool_
            near = np.rint(part) if whole else part
            done.append(near.astype(box.dtype).reshape(-1, *box.shape))
        return _put_together(single, iter(done))

    return Actions(Vector(len(low), _alike(low), _alike(high)), write, single)


def _alike(bounds: np.ndarray) -> float | tuple[float, ...]:
    """One number if all are the same."""
    return float(bounds[0]) if (bounds == bounds[0]).all() else tuple(bounds.tolist())


def _symbols(single: GymSpace, leaves: list[Any], most: int) -> Actions:
    """Symbols as one symbol for each combination, or as several."""
    sizes, firsts = np.concatenate([_sizes(x) for x in leaves], axis=1)
    ends = np.cumsum([_sizes(x).shape[1] for x in leaves])
    combinations = math.prod(sizes.tolist())
    together = combinations <= most or len(sizes) == 1

    def write(actions: np.ndarray) -> Any:
        found = np.asarray(actions)
        if together:
            found = np.stack(np.unravel_index(found, tuple(sizes)), axis=1)  # [N, symbols]
        parts = np.split(found + firsts, ends[:-1], axis=1)
        done = [
            part.astype(x.dtype).reshape(len(part), *(x.shape or ()))
            for x, part in zip(leaves, parts, strict=True)
        ]
        return _put_together(single, iter(done))

    space = Discrete(combinations) if together else MultiDiscrete(tuple(sizes.tolist()))
    return Actions(space, write, single)


def _sizes(leaf: Any) -> np.ndarray:
    """[2, d], how many values each symbol of a simple space has, and which is the first."""
    if isinstance(leaf, spaces.Discrete):
        return np.array([[leaf.n], [leaf.start]], np.int64)
    if isinstance(leaf, spaces.MultiBinary):
        d = math.prod(leaf.shape)
        return np.stack([np.full(d, 2), np.zeros(d, np.int64)])
    return np.stack([leaf.nvec.reshape(-1), leaf.start.reshape(-1)]).astype(np.int64)


def _put_together(space: GymSpace, parts: Iterator[np.ndarray]) -> Any:
    """Batches of the leaves of a space as a batch of the space."""
    if isinstance(space, spaces.Dict):
        return {key: _put_together(part, parts) for key, part in _items(space)}
    if isinstance(space, spaces.Tuple):
        return tuple(_put_together(part, parts) for _, part in _items(space))
    return next(parts)
