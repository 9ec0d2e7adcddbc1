"""A critic on a frozen trunk: the features of all conversations are read once, and heads learn on them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from turnwise.data.batch import padded_ids
from turnwise.data.order import alike
from turnwise.data.rows import ChangedRows, lengths
from turnwise.data.tokens import Tokens
from turnwise.recipes.training.machine import Machine
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.digests import digest_of
from turnwise.run.files.trouble import named
from turnwise.run.files.whole import whole_file
from turnwise.run.passes import Passes

READ = 8192
"""positions, at most, that the trunk reads at a time (or one row)"""
_ZEROS = 1 << 24  # bytes
SUFFIX = ".features"


def expect_frozen(frozen: bool, lora_rank: int, features: Path | None, m: Machine) -> None:
    """SettingError for settings that do not go together."""
    if features is not None and not frozen:
        raise SettingError("features", str(features), "frozen_trunk beside it: else nothing is kept")
    if frozen and lora_rank:
        raise SettingError("lora_rank", lora_rank, "0: a frozen trunk has nothing to adapt")
    if frozen and m.world.size > 1:
        expected = "no torchrun: on features that were read once, heads learn in one process"
        raise InputError(f"{m.world.size} processes and a frozen trunk; expected {expected}")


class FrozenFeatures:
    """What a frozen trunk makes of rows, at the positions that a value is read at.

    Until `read` is called, the features of a row are computed whenever it is made. From then on those of all
    rows, [N, D] together, lie in a file that is mapped into memory: in `folder`, under a name that follows
    from the trunk and the rows, so that the next critic of the same finds them; without `folder` in the
    system's temporary folder (TMPDIR), under no name, until the process ends. Products are computed in the
    precision of `passes`; how many rows it reads at a time does not matter here.
    """

    def __init__(
        self,
        trunk: nn.Module,
        width: int,
        parts: Sequence[Sequence[Tokens]],
        folder: Path | None,
        passes: Passes | None = None,
    ) -> None:
        self._trunk, self._width, self._parts, self._folder = trunk, width, parts, folder
        self._passes = passes or Passes()
        self._found: np.ndarray | None = None
        self._starts = np.zeros(0, np.int64)  # where the features of each row begin, and where the last ends

    def rows(self) -> list[ChangedRows]:
        """The rows of each part, with features in the place of ids."""
        firsts = np.cumsum([0, *map(len, self._parts)])
        return [self._seen(part, int(first)) for part, first in zip(self._parts, firsts, strict=False)]

    def _seen(self, rows: Sequence[Tokens], first: int) -> ChangedRows:
        def seen(i: int, row: Tokens) -> Tokens:
            if self._found is None:
                return row.of_decisions(self._read([row])[0][row.read_at])
            begin, end = self._starts[first + i : first + i + 2]
            return row.of_decisions(self._found[begin:end])

        return ChangedRows(rows, seen)

    def read(self, m: Machine) -> None:
        """Read all rows, or find what was read before."""
        each = [(part, i) for part in self._parts for i in range(len(part))]
        self._starts = np.cumsum([0, *(len(part[i].read_at) for part, i in each)])
        dtype = np.float64 if next(self._trunk.parameters()).dtype == torch.float64 else np.float32
        shape = (int(self._starts[-1]), self._width)
        size = shape[0] * shape[1] * np.dtype(dtype).itemsize

        def fill(file: Any) -> None:
            _make_room(file, size)
            self._fill(np.memmap(file, dtype, "r+", shape=shape), each, m)

        if self._folder is None:
            with tempfile.TemporaryFile() as file, named(Path(tempfile.gettempdir())):
                fill(file)
                found = np.memmap(file, dtype, "r", shape=shape)  # stays readable when the file is closed
        else:
            ids = (part[i].ids for part, i in each)
            how = [] if self._passes.autocast is None else [str(self._passes.autocast)]
            path = self._folder / f"{digest_of(self._trunk, *ids, self._starts, *how)}{SUFFIX}"
            if not path.is_file() or path.stat().st_size != size:
                with named(self._folder):
                    self._folder.mkdir(parents=True, exist_ok=True)
                with whole_file(path) as part, open(part, "w+b") as file:
                    fill(file)
            found = np.memmap(path, dtype, "r", shape=shape)
        self._found = found.view(np.ndarray)  # slices of a memmap are objects of their own, and slow to make

    def _fill(self, into: np.memmap, each: Sequence[tuple[Sequence[Tokens], int]], m: Machine) -> None:
        sizes = np.concatenate([lengths(part).array() for part in self._parts])
        self._trunk.to(m.device)
        with m.progress("reading features", int(sizes.sum())) as bar:
            done = 0
            for chosen in alike(sizes, READ):
                done += int(sizes[chosen].sum())
                rows = [each[k][0][each[k][1]] for k in chosen]
                for k, row, features in zip(chosen, rows, self._read(rows), strict=True):
                    into[self._starts[k] : self._starts[k + 1]] = features[row.read_at]
                bar.at(done)
        into.flush()
        self._trunk.cpu()

    @torch.no_grad()  # not in inference mode, which the trunk's weights would never come back from
    def _read(self, rows: Sequence[Tokens]) -> np.ndarray:
        """Features [B, T, D] of whole rows."""
        self._trunk.eval()
        device = next(self._trunk.parameters()).device
        with self._passes.precision(device):
            read = self._trunk(input_ids=padded_ids(rows).to(device), use_cache=False).last_hidden_state
        return (read if read.dtype == torch.float64 else read.float()).cpu().numpy()


def _make_room(file: Any, size: int) -> None:
    """Write `size` zeros: a full disk says so now. Through a mapped file it would kill the process."""
    for begin in range(0, size, _ZEROS):
        file.write(bytes(min(_ZEROS, size - begin)))
    file.flush()
