"""Random numbers from one seed: torch's global generators, and numpy generators for one purpose each."""

from __future__ import annotations

import numpy as np


def generator(*key: int) -> np.random.Generator:
    """A numpy generator for one purpose. Keys (seed, purpose, ...) that differ give independent streams."""
    return np.random.default_rng(np.random.SeedSequence(key))
