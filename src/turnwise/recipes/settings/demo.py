"""How the demo runs. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from turnwise.run.checks import ONE_OR_MORE, SEED, TWO_OR_MORE, check, check_choice


@dataclass(frozen=True)
class DemoSettings:
    """Write logs, improve on them, measure every policy with live customers, write the page."""

    out: Path = Path("demo")
    """Folder to write."""
    conversations: int = 8000
    """Logged conversations to learn from and to judge by."""
    episodes: int = 1000
    """Live conversations to measure each policy with."""
    preset: Literal["acts", "all"] = "acts"
    """What improve tries: acts, in minutes; all: practice, and a clone and critics of words, which takes an
    hour."""
    seed: int = 0
    """Seed of logs, weights, data order and customers."""
    workers: int = 2
    """Pieces of work at a time, one CPU thread each."""
    resume: bool = False
    """Go on where an interrupted demo stopped."""

    def __post_init__(self) -> None:
        check(self, conversations=ONE_OR_MORE, episodes=TWO_OR_MORE, seed=SEED, workers=ONE_OR_MORE)
        check_choice(self, preset=("acts", "all"))
