"""What a measurement gives, and which kind of measurement a trained thing asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """A mean with its 95% interval, beside what is known of the task."""

    mean: float
    low: float
    high: float
    episodes: int
    score: str
    """what the mean is of"""
    report: Path | None
    """the run's page, renewed; None if there is no run folder"""
    result: Mapping[str, Any] = field(repr=False)
    """everything that was measured, as evaluation.json has it"""

    def __str__(self) -> str:
        return "\n".join([f"{self.score} {self.interval}, {self.episodes:,} episodes", *self.beside])

    @property
    def interval(self) -> str:
        """`mean (low to high, 95%)`."""
        return f"{self.mean:.4g} ({self.low:.4g} to {self.high:.4g}, 95%)"

    @property
    def beside(self) -> list[str]:
        """What the mean stands beside, a line each."""
        return list(self.result.get("beside", ()))
