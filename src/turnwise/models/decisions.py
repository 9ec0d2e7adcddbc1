"""Where decisions are taken in what a model has read, and the precision of what is said of them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def at_decisions(features: Float[Tensor, "B T D"], decisions: Int[Tensor, "B A1"]) -> Float[Tensor, "B A1 D"]:
    """Features at the positions where decisions are taken; "the next state" is then index k+1."""
    return features.gather(1, decisions.unsqueeze(-1).expand(-1, -1, features.shape[-1]))


def in_own_precision(x: Tensor) -> torch.autocast:
    """Arithmetic in the precision of the numbers themselves, also below an autocast."""
    return torch.autocast(x.device.type, enabled=False)
