"""Where EM begins."""

from __future__ import annotations

import numpy as np

from turnwise.exact.learning.kernels import Tables


def random_start(prior: Tables, rng: np.random.Generator) -> Tables:
    """Rows drawn around what the action does in all states, so that no two states begin alike."""

    def around(imagined: np.ndarray, axis: int, weight: float) -> np.ndarray:
        means = imagined / imagined.sum(axis, keepdims=True)
        drawn = means * rng.gamma(weight, 1 / weight, means.shape)
        return drawn / drawn.sum(axis, keepdims=True)

    return Tables(
        start=around(prior.start, 0, 2.0),
        firsts=around(prior.firsts, 0, 2.0),
        transitions=around(prior.transitions, 2, 1.0),
        emissions=around(prior.emissions, 1, 2.0),
        ends=np.ascontiguousarray(around(prior.ends, 2, 2.0)[..., 0]),
        lasts=around(prior.lasts, 2, 2.0),
        bins=around(prior.bins, 2, 2.0),
    )
