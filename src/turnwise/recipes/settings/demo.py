"""How the demo runs. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, SEED, TWO_OR_MORE, check
from turnwise.run.errors import SettingError

METHODS = ("pomdp", "act-iql", "ilql", "mc", "turn-iql", "bc-success", "bc-top")
DEFAULT = METHODS[:3]


@dataclass(frozen=True)
class DemoSettings:
    """Write logs, learn from them by several methods, measure each with live customers, write the page."""

    out: Path = Path("demo")
    """Folder to write."""
    conversations: int = 8000
    """Logged conversations to learn from."""
    others: int = 3000
    """Other conversations of the logged agent, by which policies of acts are judged without talking to
    anyone; 0: none."""
    episodes: int = 1000
    """Live conversations to measure each policy with."""
    validation_episodes: int = 200
    """Live conversations, of another seed, to choose each beta with."""
    seed: int = 0
    """Seed of logs, weights, data order and customers."""
    methods: tuple[str, ...] = DEFAULT
    """Runs to compare with the clone, by their folder."""
    workers: int = 2
    """Methods trained at a time, one CPU thread each."""
    resume: bool = False
    """Go on where an interrupted demo stopped."""

    def __post_init__(self) -> None:
        check(
            self,
            conversations=ONE_OR_MORE,
            others=NOT_NEGATIVE,
            episodes=TWO_OR_MORE,
            validation_episodes=TWO_OR_MORE,
            seed=SEED,
            workers=ONE_OR_MORE,
        )
        if unknown := set(self.methods) - set(METHODS):
            raise SettingError("methods", " ".join(sorted(unknown)), f"some of {', '.join(METHODS)}")
