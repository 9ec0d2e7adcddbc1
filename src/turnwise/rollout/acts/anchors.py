"""What stands for the state of a talk in acts: the belief of a plan, as a value that is equal or not."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from turnwise.data.acts.pack import ActSymbols
from turnwise.data.episode import Episode
from turnwise.exact.learning.model import LearntModel


@dataclass(frozen=True)
class BeliefAnchors:
    """The turn and the belief before it, rounded: other talks that led to it are at an equal state."""

    model: LearntModel
    symbols: ActSymbols
    digits: int = 1
    """decimals of each probability that count"""

    def __call__(self, e: Episode) -> list[Hashable]:
        """One for each turn."""
        answers = e.observations[1:]
        belief = self.model.first(e.observations[:1] - self.symbols.answers)
        found: list[Hashable] = []
        for k in range(len(e)):
            found.append((k, np.round(belief[0], self.digits).tobytes()))
            if k + 1 < len(e):
                belief, _ = self.model.update(belief, e.actions[k : k + 1], answers[k : k + 1])
        return found
