"""How the rows of a step go through a model: in what precision, and how many at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, overload

import numpy as np
import torch

from turnwise.run.distributed import Row, World

R = TypeVar("R", bound=Row)
T = TypeVar("T")


class Lengths(Protocol):
    """Positions of rows, by place."""

    def __getitem__(self, i: int, /) -> int: ...


class Picked(Sequence[T]):
    """Rows at some places, each made when it is asked for."""

    def __init__(self, rows: Sequence[T], places: np.ndarray) -> None:
        self._rows, self._places = rows, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Picked[T]: ...
    def __getitem__(self, index: int | slice) -> T | Picked[T]:
        if isinstance(index, slice):
            return Picked(self._rows, self._places[index])
        return self._rows[int(self._places[index])]


@dataclass(frozen=True)
class Passes:
    """Rows that are read at a time, and the precision of matrix products.

    A step on a batch is the sum of steps on its parts: losses are sums over a constant, so that the gradients
    of parts add up to that of the whole, to rounding. Memory is that of a part.
    """

    autocast: torch.dtype | None = None
    """Matrix products are computed in this precision; None: in that of the weights."""
    rows: int | None = None
    """Most rows at a time; None: `positions` decide."""
    positions: int | None = None
    """Most positions at a time, rows by the longest of them; None: any number."""

    def at_once(self, longest: int) -> int | None:
        """How many rows of at most so many positions are read at a time; None: all."""
        if self.rows is not None:
            return self.rows
        return None if self.positions is None else max(1, self.positions // max(1, longest))

    def precision(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """What the forward pass runs in."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.autocast)

    def parts(self, rows: Sequence[R], longest: int, world: World) -> list[list[R]]:
        """This process's rows of a global batch, in as many parts as any process needs.

        A process that runs out of rows reads one that teaches nothing: all of them take part in every
        exchange.
        """
        mine = world.share(rows)
        most = -(-len(rows) // world.size)  # rows of the largest share
        at_once = self.at_once(longest) or most
        count = -(-most // at_once)
        size = -(-most // count)  # of parts that are about alike
        parts = [mine[i * size : (i + 1) * size] for i in range(count)]
        return [part or [world.idle(rows[0])] for part in parts]

    def chunks(self, rows: Sequence[T], lengths: Lengths, most: int) -> Iterator[Sequence[T]]:
        """`rows` in their order, at most `most` at a time, and no more than go through the model together."""
        begin = 0
        while begin < len(rows):
            end, longest = begin, 0
            while end < len(rows) and end - begin < most:
                longest = max(longest, int(lengths[end]))
                at_once = self.at_once(longest)
                if at_once is not None and end - begin >= at_once:
                    break
                end += 1
            yield rows[begin:end]
            begin = end
