"""What something is, as a short text that follows from its content: wherever it lies, it is the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from turnwise.run.errors import InputError

LISTED = "files"
"""key of a saved model's settings: the checksum of each file beside them"""


def digest_of(*parts: Any) -> str:
    """A digest of modules, tokenizers, arrays, and of what JSON can hold."""
    found = hashlib.sha256()
    for part in parts:
        _add(found, part)
    return found.hexdigest()[:16]


def _add(found: Any, part: Any) -> None:
    import numpy as np
    import torch

    if isinstance(part, torch.nn.Module):
        for name, x in sorted(part.state_dict().items()):
            _add(found, name)
            _add(found, x)
    elif isinstance(part, torch.Tensor):
        found.update(f"{part.dtype} {list(part.shape)}".encode())
        flat = part.detach().cpu().contiguous().reshape(-1)
        if len(flat):
            found.update(flat.clone().view(torch.uint8).numpy())
    elif isinstance(part, np.ndarray):
        found.update(f"{part.dtype} {list(part.shape)}".encode() + np.ascontiguousarray(part).tobytes())
    elif hasattr(part, "get_vocab"):  # a tokenizer, of whatever class
        _add(found, sorted(part.get_vocab().items()))
        _add(found, [part.chat_template, {k: str(v) for k, v in part.special_tokens_map.items()}])
        if getattr(part, "backend_tokenizer", None) is not None:
            _add(found, json.loads(part.backend_tokenizer.to_str())["model"])
    elif dataclasses.is_dataclass(part):
        for f in dataclasses.fields(part):
            _add(found, getattr(part, f.name))
    else:
        found.update(json.dumps(part, sort_keys=True).encode())


def checksums(folder: Path, but: Iterable[str] = ()) -> dict[str, str]:
    """The sha256 of every file below a folder, by its place there."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    names = {f.relative_to(folder).as_posix(): f for f in files}
    return {name: _sha256(f) for name, f in names.items() if name not in but}


def expect_unchanged(folder: Path, settings: Mapping[str, Any], settings_file: str) -> None:
    """InputError if a file that the settings of a saved model list has changed, or is gone."""
    listed = settings.get(LISTED, {})
    for name, checksum in listed.items():
        file = folder / name
        if not file.is_file():
            raise InputError(f"{file} is missing; expected all files that were saved")
        if _sha256(file) != checksum:
            raise InputError(
                f"{file} has changed since it was saved; expected the file as it was (if it is to be so, "
                f"take its line out of {settings_file})"
            )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
