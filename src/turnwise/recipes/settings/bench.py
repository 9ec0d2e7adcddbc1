"""Which tasks, methods and seeds a bench fills its table with. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, SEED, TWO_OR_MORE, check
from turnwise.run.errors import SettingError

TASKS: tuple[str, ...] = ("helpdesk", "maze", "maze-part", "twenty", "dealer")
PER_ACT = ("act-bc", "act-mc", "act-iql", "act-iql-memoryless", "act-cql", "pomdp", "act-ppo")
METHODS: tuple[str, ...] = (*PER_ACT, "bc", "mc", "ilql", "turn-iql", "talk-ppo")


@dataclass(frozen=True)
class BenchSettings:
    """Train every method on every task with every seed, measure each live, and fill one table."""

    out: Path = Path("bench")
    """Folder of all runs and of the table: bench.json, bench.md, report.html."""
    tasks: tuple[str, ...] = TASKS
    """Tasks of the table."""
    methods: tuple[str, ...] = PER_ACT
    """Methods of the table: those per act by default, which take minutes."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of logs, training and partners."""
    conversations: int | None = None
    """Logged conversations of each task; none: as many as the bench has for it."""
    talks: int = 20_000
    """Live conversations of methods that learn by talking."""
    episodes: int = 1000
    """Live conversations that each policy is measured with."""
    workers: int = 2
    """Cells at a time, one CPU thread each; 0: one after the other, in this process."""

    def __post_init__(self) -> None:
        check(
            self,
            seeds=SEED,
            conversations=ONE_OR_MORE,
            talks=ONE_OR_MORE,
            episodes=TWO_OR_MORE,
            workers=NOT_NEGATIVE,
        )
        for name, known in (("tasks", TASKS), ("methods", METHODS)):
            given = getattr(self, name)
            if not given or set(given) - set(known):
                wrong = " ".join(x for x in given if x not in known) or None
                raise SettingError(name, wrong, f"some of {', '.join(known)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingError("seeds", " ".join(map(str, self.seeds)), "one seed or more, each once")
