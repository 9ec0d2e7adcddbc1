"""A sweep: one training for each of several settings and seeds. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from turnwise.run.checks import NOT_NEGATIVE, SEED, TWO_OR_MORE, check
from turnwise.run.errors import SettingError


@dataclass(frozen=True)
class SweepSettings:
    """Which runs there are, what is asked of each at its end, and who does them."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds that every setting is trained with."""
    grid: tuple[str, ...] = ()
    """Settings to try, each as NAME=VALUE,VALUE of a flag; all combinations are trained: lr=1e-3,3e-4
    memory=gru,none."""
    episodes: int | None = None
    """Episodes or conversations that each run is measured with at its end; none: runs stand beside each other
    by what they logged last."""
    ray: str | None = None
    """Workers of Ray that train the runs: auto (a cluster that runs here, or that RAY_ADDRESS names), local
    (processes of this machine), or the address of a cluster. none: this process, one after another."""
    ray_gpus: float = 0.0
    """GPUs of a worker of Ray, or the share of one."""

    def __post_init__(self) -> None:
        check(self, seeds=SEED, episodes=TWO_OR_MORE, ray_gpus=NOT_NEGATIVE)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingError("seeds", " ".join(map(str, self.seeds)), "one seed or more, each once")
        if self.ray is None and self.ray_gpus:
            raise SettingError("ray_gpus", self.ray_gpus, "0 where Ray does nothing")


def points_of(grid: tuple[str, ...]) -> list[dict[str, str]]:
    """All combinations of the values in a grid: one empty combination for an empty one.

    SettingError for a word of another form than NAME=VALUE,VALUE, a name or a value that stands twice.
    """
    points: list[dict[str, str]] = [{}]
    for word in grid:
        name, equals, values = word.partition("=")
        name, each = name.strip().lstrip("-").replace("-", "_"), values.split(",")
        if not (equals and name.isidentifier() and all(each)):
            raise SettingError("grid", word, "NAME=VALUE,VALUE")
        if name in points[0]:
            raise SettingError("grid", word, f"each name once; {name} stands twice")
        if len(set(each)) < len(each):
            raise SettingError("grid", word, "each value once")
        points = [{**point, name: value} for point in points for value in each]
    return points
