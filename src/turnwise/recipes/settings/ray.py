"""Work in shards, here or on workers of Ray. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from turnwise.run.checks import ONE_OR_MORE, check
from turnwise.run.errors import SettingError

SHARDS = 16
"""shards of what Ray does, if nobody says how many"""


@dataclass(frozen=True)
class RaySettings:
    """Who does the work, if not this process alone."""

    ray: str | None = None
    """Workers of Ray that do the shards: auto (a cluster that runs here, or that RAY_ADDRESS names), local
    (processes of this machine), or the address of a cluster. none: this process does them. The results are
    the same."""
    shards: int | None = None
    """Shards that the work is divided into, each with a seed of its own; none: 16 on Ray, else 1. Results
    depend on their number, and not on how many workers do them."""
    ray_cpus: int = 1
    """CPUs and threads of a worker of Ray."""

    def __post_init__(self) -> None:
        check(self, shards=ONE_OR_MORE, ray_cpus=ONE_OR_MORE)
        if self.ray is not None and (not isinstance(self.ray, str) or not self.ray.strip()):
            raise SettingError("ray", self.ray, "auto, local or the address of a cluster, as text")
        if self.ray is None and self.ray_cpus != 1:
            raise SettingError("ray_cpus", self.ray_cpus, "1 where Ray does nothing")

    @property
    def divides(self) -> bool:
        """Whether the work is divided at all."""
        return self.ray is not None or self.count > 1

    @property
    def count(self) -> int:
        """Shards of the work."""
        return self.shards or (1 if self.ray is None else SHARDS)
