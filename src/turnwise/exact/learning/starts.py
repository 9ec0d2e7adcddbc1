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


STAYS = 0.9
"""how likely a state stays what it is, where a climb begins that expects states to last"""


def lasting_start(prior: Tables, rng: np.random.Generator) -> Tables:
    """States that mostly stay what they are and differ only in how they answer.

    There is one end an episode, and if ends, last answers and rewards differ from the start, each rare action
    hardens on a state of its own: which of its ends were good is then "explained" by where the episode was at
    last, against all answers before. Without a head start they follow what the answers say.
    """
    drawn = random_start(prior, rng)
    S = drawn.transitions.shape[1]

    def means(imagined: np.ndarray, axis: int) -> np.ndarray:
        return np.ascontiguousarray(imagined / imagined.sum(axis, keepdims=True))

    return drawn._replace(
        transitions=np.ascontiguousarray(STAYS * np.eye(S) + (1 - STAYS) * drawn.transitions),
        ends=np.ascontiguousarray(means(prior.ends, 2)[..., 0]),
        lasts=means(prior.lasts, 2),
        bins=means(prior.bins, 2),
    )
