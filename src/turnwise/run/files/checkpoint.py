"""A checkpoint: one file in the format of safetensors, which holds tensors and text and can run nothing.

    metadata   format     turnwise checkpoint 1
               structure  JSON: the state, with {"$tensor": NAME} in place of each tensor, or "$array"
               sha256     of all other bytes of the file, header included
    tensors    by the place where the state holds them, as module/embed.weight

Any tool that reads safetensors reads it. A file that differs from what was written in one bit is refused.
Files are written and read as a stream: nothing is held twice in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from turnwise.run.errors import InputError
from turnwise.run.files.whole import PART, whole_file

FORMAT = "turnwise checkpoint 1"
KEPT = 2
"""checkpoints that stay, unless a run asks for more: the latest, and the one before it"""
CHECKPOINTS, SUFFIX = "checkpoints", ".safetensors"
"""the folder of them in a run's, and how their files end"""
_BLANK = "0" * 64
"""stands where the checksum will be while it is computed"""
_LONGEST_HEADER = 100 << 20
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Checkpoints:
    """The checkpoints of a run in its folder `checkpoints/`, each named after the steps done."""

    def __init__(self, run: Path, kept: int = KEPT) -> None:
        """`kept`: how many of them stay, the latest ones."""
        self.folder, self.kept = run / CHECKPOINTS, kept

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, in order."""
        names = self.folder.iterdir() if self.folder.is_dir() else ()
        found = (re.fullmatch(r"step-(\d+)\.safetensors", f.name) for f in names)
        return sorted(int(m[1]) for m in found if m)

    def path(self, step: int) -> Path:
        """The file of the checkpoint after `step` steps."""
        return self.folder / f"step-{step}{SUFFIX}"

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write `state`; then drop all checkpoints but the last ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(self.path(step), state)
        for old in self.steps()[: -self.kept]:
            self.path(old).unlink()

    def latest(self) -> dict[str, Any]:
        """The state after the most steps; empty if nothing was saved. InputError if it is damaged."""
        if self.folder.is_dir():
            for left in self.folder.glob("*" + PART):
                left.unlink()
        steps = self.steps()
        if not steps:
            return {}
        try:
            return read_checkpoint(self.path(steps[-1]))
        except InputError as e:
            earlier = f"step {steps[-2]}" if len(steps) > 1 else "the beginning"
            raise InputError(f"{e}. Without this file a resumed run goes on from {earlier}") from e


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state: dicts with names for keys, lists, tuples, tensors, arrays, numbers, texts, None.

    TypeError, before anything is written, for a state that holds something else.
    """
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_plain(dict(state), "", tensors, {}))
    # The widest numbers first, so that each tensor begins at a multiple of its numbers' size.
    names = sorted(tensors, key=lambda n: (-tensors[n].element_size(), n))
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT, "structure": structure, "sha256": _BLANK}}
    at = 0
    for name in names:
        x = tensors[name]
        end = at + x.nelement() * x.element_size()
        header[name] = {"dtype": _NAMES[x.dtype], "shape": list(x.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    first = len(text).to_bytes(8, "little") + text
    found = hashlib.sha256(first)
    with whole_file(path) as part, part.open("wb") as file:
        file.write(first)
        for name in names:
            data = _bytes(tensors[name].cpu().contiguous())
            found.update(data)
            file.write(data)
        file.seek(_place_of_checksum(first))
        file.write(found.hexdigest().encode())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a file. InputError if it is not, byte for byte, what `write_checkpoint` wrote."""
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size)
    except OSError:
        raise
    except Exception as e:  # bytes that are no checkpoint fail in any way they like
        raise InputError(
            f"{path}: damaged, or no checkpoint ({e}); expected the file as a run wrote it"
        ) from e


def _read(file: BinaryIO, size: int) -> dict[str, Any]:
    begins = file.read(8)
    length = int.from_bytes(begins, "little")
    if len(begins) < 8 or length > min(size - 8, _LONGEST_HEADER):
        raise ValueError("its header has no end")
    first = begins + file.read(length)
    header = json.loads(first[8:])
    metadata = header.pop("__metadata__")
    if metadata["format"] != FORMAT:
        raise ValueError(f"its format is {metadata['format']!r}, this version of Turnwise reads {FORMAT!r}")
    at = _place_of_checksum(first, metadata["sha256"])
    found = hashlib.sha256(first[:at] + _BLANK.encode() + first[at + 64 :])
    tensors = dict(_tensors(file, header, size - 8 - length, found))
    if found.hexdigest() != metadata["sha256"]:
        raise ValueError("its bytes have another checksum than those that were written")
    return _restored(json.loads(metadata["structure"]), tensors)


def _tensors(
    file: BinaryIO, header: Mapping[str, Any], size: int, found: Any
) -> Iterator[tuple[str, Tensor]]:
    """The tensors, in the order of their bytes, which `found` digests."""
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    at = 0
    for name, entry in entries:
        dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        # Asked before memory is: a wrong size may be an absurd one.
        if start != at or end > size or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} has another size than its header says")
        x = torch.empty(shape, dtype=dtype)
        data = _bytes(x)
        if file.readinto(data) != len(data):  # type: ignore[attr-defined]
            raise ValueError("it is cut short")
        found.update(data)
        at = end
        yield name, x
    if at != size:
        raise ValueError("it goes on after its end")


def _bytes(x: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, where they lie."""
    flat = x.detach().reshape(-1)
    if flat.stride(0) != 1:  # one number, or none, may have any stride
        flat = torch.empty(len(flat), dtype=flat.dtype).copy_(flat)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


def _place_of_checksum(first: bytes, checksum: str = _BLANK) -> int:
    key = b'"sha256": "'
    at = first.rindex(key + checksum.encode() + b'"}') + len(key)
    if len(checksum) != 64:
        raise ValueError("its checksum has another length")
    return at


def _plain(value: Any, place: str, tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    """`value` as JSON with names in place of tensors, which go to `tensors`; one that comes twice, once."""
    if isinstance(value, Tensor):
        if value.dtype not in _NAMES:
            raise TypeError(f"{place} is a tensor of {value.dtype}; a checkpoint has no such numbers")
        key = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if not value.nelement():  # nothing lies nowhere: any two would be the same one
            key = (place,)
        if key not in seen:
            seen[key], tensors[place] = place, value
        return {"$tensor": seen[key]}
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise TypeError(f"{place} is an array of {value.dtype}; a checkpoint has no such numbers")
        held = _plain(torch.from_numpy(value.copy()), place, tensors, seen)
        return {"$array": held["$tensor"]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_plain(x, f"{place}/{i}", tensors, seen) for i, x in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, Mapping) and all(isinstance(k, str) and not k.startswith("$") for k in value):
        return {k: _plain(x, f"{place}/{k}" if place else k, tensors, seen) for k, x in value.items()}
    raise TypeError(f"{place} is a {type(value).__name__}; expected tensors, numbers and texts")


def _restored(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_restored(x, tensors) for x in value]
    if isinstance(value, dict):
        if "$tensor" in value:
            return tensors[value["$tensor"]]
        if "$array" in value:
            return tensors[value["$array"]].numpy()
        if "$tuple" in value:
            return tuple(_restored(x, tensors) for x in value["$tuple"])
        return {k: _restored(x, tensors) for k, x in value.items()}
    return value
