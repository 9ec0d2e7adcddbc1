"""Actions that are vectors: from units in which an environment's bounds are -1 and 1 to its own."""

from __future__ import annotations

import numpy as np

from turnwise.envs.protocol import LaneEnv, Vector


def to_environment(actions: np.ndarray, env: LaneEnv) -> np.ndarray:
    """Actions as the environment takes them; vectors come in units in which its bounds are -1 and 1."""
    space = env.action_space
    return to_bounds(actions, space) if isinstance(space, Vector) else actions


def to_bounds(actions: np.ndarray, space: Vector) -> np.ndarray:
    """Actions in the space's own units, clipped, from units in which its bounds are -1 and 1.

    A space without bounds takes them as they are.
    """
    if not np.isfinite([space.low, space.high]).all():
        return actions.copy()
    return space.low + (actions.clip(-1, 1) + 1) / 2 * (space.high - space.low)
