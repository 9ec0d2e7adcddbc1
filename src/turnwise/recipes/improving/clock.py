"""How long the rest of the work takes: first guesses, corrected by what has been done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from turnwise.recipes.improving.stages import Stage

JUDGING, APART = 6.0, 10.0
"""seconds that judging takes for a thousand turns of the agent, and beside"""


@dataclass
class Clock:
    """The stages, how many thousand turns of the agent there are, and the share of them that judges."""

    stages: Sequence[Stage]
    thousand: float
    heldout: float
    workers: int
    spent: float = 0.0
    guessed: float = 0.0
    gone: set[str] = field(default_factory=set)

    def of(self, stage: Stage) -> float:
        """A first guess, in seconds."""
        part = {"learnt": 1 - self.heldout, "held": self.heldout, "nothing": 0.0}[stage.learns]
        return stage.fixed + stage.per_thousand * self.thousand * part

    def heard(self, stage: Stage, seconds: float) -> None:
        """A stage has been done."""
        self.gone.add(stage.name)
        self.spent += seconds
        self.guessed += self.of(stage)

    def left(self) -> str:
        """The rest in words."""
        rest = sum(self.of(x) for x in self.stages if x.name not in self.gone) / max(1, self.workers)
        rest += JUDGING * self.thousand * self.heldout + APART
        pace = self.spent / self.guessed if self.guessed else 1.0
        minutes = rest * pace / 60
        return f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{max(10, round(minutes * 6) * 10)} seconds"
