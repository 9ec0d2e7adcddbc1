"""Does what is said go with what was said around it? Canonical directions that hold on conversations apart.

Of texts Z [n, D] and their contexts Y [n, G], canonical correlation (Hotelling 1936) finds directions u, v
with the greatest correlation between Z u and Y v. With hundreds of numbers on both sides chance alone gives
large ones. So u and v come from one half of the conversations, and their correlation from the other half:

    r = corr(Z_B u_A, Y_B v_A)        t = r sqrt(n),  about normal with deviation 1 if text and context do not
                                                        go together

Fewer directions of text, and fewer columns of context, hold a weak signal better; several sets are tried, and
the one with the clearest first direction is taken. That words which predict the same are one meaning is
Harris's (1954) distributional hypothesis; such directions as features of words are in Dhillon et al. (2015).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

SIZES = (20, 60, 150, 300)
"""main directions of text that are looked at"""
SOFTNESS = (1e-3, 0.1)
"""what is added to the variance of a direction of text, in units of the largest"""
DIRECTIONS = 10
"""canonical directions, at most"""
MIXED = 150
"""columns of context, at most, whose correlations with each other are taken into account"""


class Signal(NamedTuple):
    """Directions of text that go with its context, the clearest first."""

    directions: np.ndarray
    """[D, r]"""
    correlations: np.ndarray
    """[r], on the other half"""
    clear: int
    """how many of the first are beyond chance"""


def signal(
    texts: np.ndarray, contexts: np.ndarray, half: np.ndarray, views: Mapping[str, np.ndarray], least: float
) -> Signal | None:
    """The clearest directions of centred texts [n, D] (main directions first) with contexts [n, G].

    Contexts have mean 0 and deviation 1. `half` [n] bool. `views` are sets of their columns. `least`: t below
    which a direction is chance. None if no view has a column.
    """
    n, d = texts.shape
    halves = half, ~half
    if min(h.sum() for h in halves) < 2:
        return None
    z, y = [texts[h] for h in halves], [contexts[h] for h in halves]
    zz = [(x.T @ x / len(x)).astype(np.float64) for x in z]
    zy = [(x.T @ c / len(x)).astype(np.float64) for x, c in zip(z, y, strict=True)]
    shown = {name: [x[:, c] for x in y] for name, c in views.items() if len(c)}
    white = {name: _whitened(parts) for name, parts in shown.items()}
    best: tuple[float, Signal] | None = None
    for size in sorted({min(s, d) for s in SIZES}):
        for softness in SOFTNESS:
            t = _whitening((zz[0] + zz[1])[:size, :size] / 2, softness)
            for name, w in white.items():
                part = [x[:size][:, views[name]] for x in zy]
                m = [t.T @ x @ w for x in part]
                r = np.mean(
                    [
                        _held_out(m[i], t, w, zz[j][:size, :size], part[j], shown[name][j])
                        for i, j in ((0, 1), (1, 0))
                    ],
                    axis=0,
                )
                if best is None or r[0] > best[0]:
                    u, _ = _leading(m[0] + m[1])
                    directions = np.zeros((d, u.shape[1]))
                    directions[:size] = t @ u
                    beyond = r * np.sqrt(n) > least
                    clear = len(r) if beyond.all() else int(np.argmin(beyond))
                    best = float(r[0]), Signal(directions, r[: u.shape[1]], clear)
    return None if best is None else best[1]


def _whitened(parts: Sequence[np.ndarray]) -> np.ndarray:
    """[G, G'] of both halves' contexts. More than `MIXED` stay as they are: time goes with their cube."""
    if parts[0].shape[1] > MIXED:
        return np.eye(parts[0].shape[1])
    first, second = ((x.T @ x / len(x)).astype(np.float64) for x in parts)
    return _whitening((first + second) / 2, 1e-2)


def _whitening(covariance: np.ndarray, softness: float) -> np.ndarray:
    """W [D, D'] with W' C W about the identity."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-9 * max(values[-1], 1e-30)
    return vectors[:, kept] / np.sqrt(values[kept] + softness * values[-1])


def _leading(m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The leading singular vectors of both sides, by the smaller of the two products with itself."""
    k = min(DIRECTIONS, *m.shape)
    if m.shape[0] <= m.shape[1]:
        u = np.linalg.eigh(m @ m.T)[1][:, ::-1][:, :k]
        v = m.T @ u
        return u, v / np.maximum(np.linalg.norm(v, axis=0), 1e-12)
    v = np.linalg.eigh(m.T @ m)[1][:, ::-1][:, :k]
    u = m @ v
    return u / np.maximum(np.linalg.norm(u, axis=0), 1e-12), v


def _held_out(
    m: np.ndarray,
    t: np.ndarray,
    w: np.ndarray,
    zz: np.ndarray,
    zy: np.ndarray,
    y: np.ndarray,
) -> np.ndarray:
    """[r], correlations on one half of the directions that the other half's `m` has."""
    u, v = _leading(m)
    u, v = t @ u, w @ v
    both = np.einsum("dr,dr->r", u, zy @ v)
    seen = y @ v.astype(y.dtype)
    own = np.einsum("dr,dr->r", u, zz @ u) * (seen**2).mean(0)
    found = np.zeros(min(DIRECTIONS, *m.shape))
    found[: len(both)] = both / np.sqrt(np.maximum(own, 1e-24))
    return found
