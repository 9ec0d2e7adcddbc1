"""Actions that are vectors: from units in which an environment's bounds are -1 and 1 to its own."""

from __future__ import annotations

import numpy as np

from turnwise.envs.protocol import Space, Vector


def to_environment(actions: np.ndarray, space: Space) -> np.ndarray:
    """Actions as an environment with that space takes them; vectors come in an agent's units.

    In these -1 and 1 are the bounds of each number, and what lies outside is clipped. A number with one bound
    is counted as if the other one lay 2 away, and is clipped at its bound alone. One without bounds is taken
    as it is.
    """
    if not isinstance(space, Vector):
        return actions.copy()
    low, high = space.bounds  # [d] each
    below, above = np.isfinite(low), np.isfinite(high)
    a = np.clip(actions, np.where(below, -1.0, -np.inf), np.where(above, 1.0, np.inf))  # [N, d]
    low = np.where(below, low, np.where(above, high - 2, 0.0))
    high = np.where(above, high, low + 2)
    return np.where(below | above, low + (a + 1) / 2 * (high - low), a)
