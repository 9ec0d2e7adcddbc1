"""Does something foretell what follows, beyond what is known already? Nats, on conversations not learnt from.

    log p(y | x, known) = log p(y | known) + W x,  normalised,    min_W  -sum log p + penalty |W|^2 / 2
    gain = mean of log p(y | x, known) - log p(y | known),   over conversations that W has not seen

W is a multinomial regression that begins at what is known and adds to it. If x tells nothing more, W learns
noise and the gain is a little below 0 on average: noise is never taken for a gain. What x tells in other ways
than this is not found, so that the gain is a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy.special import log_softmax

SURE = 2.6
"""standard errors above 0 from which on a gain is no chance: by chance once in 200 times"""
PENALTIES = (30.0, 300.0, 3000.0)
"""to choose from, by conversations of those to learn from that are kept apart"""
APART = 0.2
"""share of these that is"""
TRIED, ITERATIONS = 30, 40
"""of L-BFGS, at most: to choose the penalty, and with it"""
WIDEST = 5.0
"""standard deviations to which features are held"""

Known = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""places [N] to learn from, and which of them to keep apart [N], to log-probabilities [M, C] of all"""
Features = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""places [N] to learn from, and those log-probabilities [M, C], to features [M, F] of all"""


@dataclass(frozen=True)
class Gain:
    """What is told, in nats for each thing that followed."""

    mean: float
    error: float
    """its standard error, over what is independent"""
    count: int
    """how many things followed"""

    def above(self, material: float) -> bool:
        """Whether it is at least so much, and not by chance."""
        return self.mean >= material and self.mean > SURE * self.error

    @property
    def interval(self) -> tuple[float, float]:
        """95%."""
        return self.mean - 1.96 * self.error, self.mean + 1.96 * self.error


def gain_beyond(
    known: Known,
    features: Features,
    followed: np.ndarray,
    asked: np.ndarray,
    group: np.ndarray,
    rng: np.random.Generator,
) -> Gain | None:
    """What `features` foretell beyond what is `known`.

    `followed` [M] int from 0 to C - 1; `asked` [M] bool, where it counts; `group` [M], equal for what is not
    independent: a half of the groups is foretold by the other. None if one half has nothing to learn from.
    """
    half = _dealt(group, 2, rng)
    gains = np.zeros(len(followed))
    for side in (0, 1):
        learnt, rest = (np.flatnonzero(asked & (half == side)) for side in (1 - side, side))
        if len(np.unique(followed[learnt])) < 2 or not len(rest):
            return None
        apart = _dealt(group, round(1 / APART), rng)[learnt] == 0
        if apart.all() or not apart.any():
            return None
        before = known(learnt, apart)
        x = _scaled(features(learnt, before), learnt)
        if not x.shape[1]:
            continue  # nothing varies: nothing is told
        weights = _chosen(x, followed, before, learnt, apart)
        gains[rest] = (_nats(0 * weights, x, followed, before) - _nats(weights, x, followed, before))[rest]
    return _mean(gains[asked], group[asked])


def fitted(
    x: np.ndarray, followed: np.ndarray, before: np.ndarray, penalty: float, iterations: int = ITERATIONS
) -> np.ndarray:
    """[F, C], the weights W of least loss, of features x [N, F] beside log-probabilities `before` [N, C]."""
    shape = (x.shape[1], before.shape[1])
    here = np.arange(len(followed))

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        logp = log_softmax(x @ weights + before, axis=1)
        wrong = np.exp(logp)
        wrong[here, followed] -= 1
        value = -logp[here, followed].sum() + penalty * (weights**2).sum() / 2
        return float(value), (x.T @ wrong + penalty * weights).ravel()

    start = np.zeros(shape[0] * shape[1])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    return found.x.reshape(shape)


def _chosen(
    x: np.ndarray, followed: np.ndarray, before: np.ndarray, learnt: np.ndarray, apart: np.ndarray
) -> np.ndarray:
    """The weights by the penalty that foretells best what is kept apart."""
    some, held = learnt[~apart], learnt[apart]

    def apart_nats(penalty: float) -> float:
        weights = fitted(x[some], followed[some], before[some], penalty, TRIED)
        return float(_nats(weights, x[held], followed[held], before[held]).mean())

    best = min(PENALTIES, key=apart_nats)
    return fitted(x[learnt], followed[learnt], before[learnt], best)


def _nats(weights: np.ndarray, x: np.ndarray, followed: np.ndarray, before: np.ndarray) -> np.ndarray:
    """[N], minus the log-probability of what followed."""
    return -log_softmax(x @ weights + before, axis=1)[np.arange(len(followed)), followed]


def _scaled(x: np.ndarray, learnt: np.ndarray) -> np.ndarray:
    """Features in standard deviations, without those that do not vary where one learns."""
    deviation = x[learnt].std(0)
    varies = deviation > 1e-6
    return np.clip(x[:, varies] / deviation[varies], -WIDEST, WIDEST)


def _dealt(group: np.ndarray, parts: int, rng: np.random.Generator) -> np.ndarray:
    """[M], a part for each, the same for all of a group."""
    names, index = np.unique(group, return_inverse=True)
    return (rng.permutation(len(names)) % parts)[index]


def _mean(gains: np.ndarray, group: np.ndarray) -> Gain:
    """sum / count over groups, with the error of a ratio: sqrt(sum (sum_g - mean n_g)^2) / count."""
    _, index = np.unique(group, return_inverse=True)
    sums, sizes = np.bincount(index, gains), np.bincount(index)
    mean = sums.sum() / sizes.sum()
    groups = len(sizes)
    apart = np.sqrt((((sums - mean * sizes) ** 2).sum()) * groups / max(groups - 1, 1))
    return Gain(float(mean), float(apart / sizes.sum()) if groups > 1 else np.inf, len(gains))
