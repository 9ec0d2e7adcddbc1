"""Whole episodes of a trained agent, in this process or in shards, each with an environment of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gymnasium.vector import VectorEnv

from turnwise.data.episode import Episode
from turnwise.envs.pomdp import POMDP
from turnwise.envs.tabular import TabularEnv
from turnwise.evaluation.measures.agents.episodes import Greedy, play
from turnwise.recipes.environments import Environment, find_environment
from turnwise.recipes.settings.measure import EpisodeSettings
from turnwise.recipes.settings.ray import RaySettings
from turnwise.recipes.trained import Actor
from turnwise.run.errors import SettingError
from turnwise.run.shards.here import Workers, counting, divided, shard_seed


def play_whole(
    module: Any,
    place: Environment,
    longest: int,
    gamma: float | None,
    a: EpisodeSettings,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> list[Episode]:
    """Episodes of an agent in an environment, cut after `longest` steps."""
    made = place.source
    with place.at_work():
        return play(
            Greedy(module) if a.greedy else module,
            place.lanes,
            episodes=a.episodes,
            lanes=made.num_envs if isinstance(made, VectorEnv) else min(a.lanes, a.episodes),
            longest=longest,
            gamma=gamma or 1.0,
            seed=seed,
            progress=progress,
        )


@dataclass(frozen=True)
class _Shared:
    """What all shards of an evaluation share."""

    module: Any
    problem: POMDP | None
    """written out, so that no other machine needs its file"""
    source: Any
    """what makes an environment that is not"""
    horizon: int | None
    longest: int
    gamma: float | None
    settings: EpisodeSettings


def play_in_shards(
    workers: Workers,
    actor: Actor,
    place: Environment,
    longest: int,
    gamma: float | None,
    a: EpisodeSettings,
    shards: RaySettings,
    progress: Callable[[int], None],
) -> list[Episode]:
    """The same in shards. SettingError for an environment that is in one place."""
    name = "ray" if shards.ray is not None else "shards"
    if isinstance(place.source, VectorEnv):
        expected = "none for a vector environment that is made already, which is in one place"
        raise SettingError(name, getattr(shards, name), expected)
    problem = place.problem
    source = place.source if problem is None else None
    shared = _Shared(actor.saved.module, problem, source, place.horizon, longest, gamma, a)
    parts = list(enumerate(divided(a.episodes, shards.count)))
    found = workers.each(_played, shared, parts, counting([part for _, part in parts], progress))
    return [episode for shard in found for episode in shard]


def _played(shared: _Shared, part: tuple[int, range]) -> list[Episode]:
    """The episodes of a shard."""
    shard, episodes = part
    a = replace(shared.settings, episodes=len(episodes))
    if shared.problem is None:
        place = find_environment(shared.source, min(a.lanes, a.episodes), shared.horizon)
    else:
        place = Environment(TabularEnv(shared.problem, shared.longest), shared.problem.name, None)
    seed = shard_seed(a.seed, shard)
    return play_whole(shared.module, place, shared.longest, shared.gamma, a, seed)
