"""How many bytes a forward pass keeps for its backward: counted on a few positions of the model itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from turnwise.models.lm.learning.recompute import kept_once
from turnwise.models.lm.parts import features_at

FEW, MORE = 24, 48
"""positions of the two rows on which is counted"""


@dataclass(frozen=True)
class Saved:
    """Bytes that a pass over rows keeps until gradients come back."""

    per_position: float
    layers: int
    inputs: float
    """of them, what layers are given: all that is kept if layers form the rest again"""

    def of(self, positions: int, recompute: bool) -> float:
        """Bytes of so many positions."""
        # Formed again, one layer's are there at a time.
        each = self.inputs + self.per_position / self.layers if recompute else self.per_position
        return each * positions


def saved_by(trunk: Any, autocast: torch.dtype | None = None) -> Saved:
    """What the trunk keeps of each position, counted on rows of a few."""
    device = next(trunk.parameters()).device
    with kept_once(trunk):
        few, more = (_kept(trunk, n, device, autocast) for n in (FEW, MORE))
    config = trunk.config.get_text_config()
    width = next(trunk.parameters()).element_size() * config.hidden_size
    layers = int(config.num_hidden_layers)
    return Saved(max(0.0, (more - few) / (MORE - FEW)), layers, float(width * layers))


def _kept(trunk: Any, positions: int, device: torch.device, autocast: torch.dtype | None) -> int:
    """Bytes of all storages that autograd holds after a pass, but for those of weights."""
    own = {x.untyped_storage().data_ptr() for x in (*trunk.parameters(), *trunk.buffers())}
    found: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return x

    ids = torch.zeros(1, positions, dtype=torch.long, device=device)
    # One reply in the middle: of an encoder-decoder one part reads half of the row, and the other the rest.
    decisions = torch.arange(positions // 2, positions, device=device).unsqueeze(0)
    precision = torch.autocast(device.type, dtype=autocast, enabled=autocast is not None)
    with torch.enable_grad(), precision, torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        alive.append(features_at(trunk, ids, decisions))
    return sum(found.values())
