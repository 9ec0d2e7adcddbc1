"""Weights that move by themselves, so that what they weigh comes to a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class AdaptiveWeight:
    """A weight that is fixed, or moved so that a measured quantity comes to `target`.

        error  = clip(measured / target - 1, -0.2, 0.2)
        weight = weight (1 + error / horizon)                                           at each step

    Ziegler et al. 2019, arXiv:1909.08593, section 2.2, with the horizon in steps where they count episodes.
    The weight is multiplied, so it never changes its sign, and one of 0 stays at 0. It is part of a
    checkpoint.
    """

    value: float
    """The weight now."""
    target: float | None = None
    """What the measured quantity is to come to, in its own units; None keeps the weight fixed."""
    horizon: float = 50.0
    """Steps. At the largest error a weight changes by a fifth in so many of them."""

    changes: int = field(default=0, init=False)
    """How often it has been told what was measured."""

    def update_(self, measured: float) -> None:
        """Move the weight after a step in which the quantity was `measured`."""
        self.changes += 1
        if self.target is not None:
            error = min(max(measured / self.target - 1, -0.2), 0.2)
            self.value *= 1 + error / self.horizon

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"weight": self.value}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from a checkpoint."""
        self.value = float(state["weight"])
