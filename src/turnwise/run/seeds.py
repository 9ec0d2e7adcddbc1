"""One seed for everything that draws numbers."""

from __future__ import annotations

import numpy as np
import torch


def seed_torch(seed: int) -> None:
    """Seed PyTorch's global generators (fresh weights are drawn from them)."""
    torch.manual_seed(seed)


def generator(*key: int) -> np.random.Generator:
    """A numpy generator for one purpose: (seed, purpose, ...) -> independent streams."""
    return np.random.default_rng(np.random.SeedSequence(key))
