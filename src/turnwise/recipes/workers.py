"""Who does the shards of a piece of work, as settings ask for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from turnwise.recipes.settings.engine import EngineSettings
from turnwise.recipes.settings.ray import RaySettings
from turnwise.run.errors import SettingError
from turnwise.run.shards.here import Here, Workers
from turnwise.run.shards.on_ray import on_ray

ALONE = RaySettings()
"""no shards: this process does the whole work"""


def expect_one(servers: EngineSettings, shards: RaySettings) -> None:
    """SettingError if an engine is asked for beside workers that sample by themselves."""
    if servers.engine is not None and shards.divides:
        expected = "none beside an engine, whose servers divide the work among themselves"
        name = "ray" if shards.ray is not None else "shards"
        raise SettingError(name, getattr(shards, name), expected)


def expect_undivided(shards: RaySettings) -> None:
    """SettingError for plans, which are measured by array operations in a moment."""
    if shards.divides:
        name = "ray" if shards.ray is not None else "shards"
        raise SettingError(name, getattr(shards, name), "none: a plan is measured in one process")


@contextlib.contextmanager
def workers_of(settings: RaySettings) -> Iterator[Workers | None]:
    """Workers of Ray, let go at the end; this process, if it does shards; None if nothing is divided."""
    if settings.ray is None:
        yield Here() if settings.divides else None
        return
    with on_ray(settings.ray, settings.ray_cpus) as workers:
        yield workers
