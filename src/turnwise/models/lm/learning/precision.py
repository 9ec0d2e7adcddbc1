"""In which precision a model came, so that it is saved in that one, whatever it learnt in."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch

CAME_IN = "came_in_precision"
"""name of the note on a loaded model in which precision its files have it"""


def stored_precision(name_or_path: str | Path, config: Any) -> torch.dtype:
    """That of a model's weights, as its config says, or else its first file of them; float32 if neither does.

    Weights of eight bits and fewer are no precision to save what was learnt in.
    """
    said = config.get_text_config().dtype or config.dtype
    files = sorted(Path(name_or_path).glob("*.safetensors"))
    if said is None and files:
        with files[0].open("rb") as file:  # its length in eight bytes, then a table of all tensors in JSON
            table = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        kinds = {entry.get("dtype") for entry in table.values()}
        said = next((kind for name, kind in _STORED.items() if name in kinds), None)
    found = getattr(torch, said, None) if isinstance(said, str) else said
    return next((kind for kind in _STORED.values() if kind is found), torch.float32)


_STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def as_it_came(model: Any) -> Any:
    """The model in the precision in which it was loaded, to be saved: itself, or a copy.

    Itself too if it was not loaded, and if a number would be too large for that precision.
    """
    kind = getattr(model, CAME_IN, model.dtype)
    if kind is model.dtype:
        return model
    copied = copy.deepcopy(model).to(kind)
    return copied if all(p.isfinite().all() for p in copied.parameters()) else model
