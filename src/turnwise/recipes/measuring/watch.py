"""Episodes to look at: films where the environment renders, steps in words, a walk by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv

from turnwise.envs.gymnasium.lanes import GymnasiumLanes
from turnwise.evaluation.measures.agents.episode_views import annotate_episodes
from turnwise.evaluation.measures.agents.episodes import MOST_STEPS, Greedy
from turnwise.evaluation.measures.agents.walk import Walk
from turnwise.evaluation.pictures.film import write_film
from turnwise.recipes.environments import Environment
from turnwise.recipes.measuring.episodes import wanted_environment
from turnwise.recipes.opened import load
from turnwise.recipes.settings.measure import WatchSettings
from turnwise.recipes.trained import Actor
from turnwise.rollout.episodes.filmed import Filmed
from turnwise.rollout.episodes.lanes import StepLanes
from turnwise.run.errors import InputError, SettingError
from turnwise.run.rehearsal import at_most
from turnwise.run.terminal import say

FPS = 10.0
"""pictures a second, if neither the environment nor the caller says how many"""
FILM = "episodes.gif"
REHEARSED = 20
"""steps of an episode in a rehearsal"""


@dataclass(frozen=True)
class Watched:
    """Episodes as they were."""

    env: str
    rendered: str | None
    """"rgb_array", "ansi", "human", or None"""
    episodes: Sequence[dict[str, Any]]
    """each with its `return`, `length`, how it `ended`, and its `steps` (200 at most): `observation`,
    `action`, `reward`, and where they are known `state`, `belief`, `value`, `probabilities` or `q`"""
    frames: Sequence[Any] = field(repr=False)
    """pictures [height, width, 3] uint8, or texts, of all episodes one after the other"""
    fps: float
    film: Path | None = None
    """the film of the pictures, if there are any"""

    def save(self, path: str | Path) -> None:
        """Write the pictures as an animated GIF. InputError if there are none."""
        write_film([f for f in self.frames if isinstance(f, np.ndarray)], Path(path), self.fps)


def watch(
    trained: Any, on: Any = None, *, out: str | Path | None = None, quiet: bool = False, **settings: Any
) -> Watched:
    """Play episodes with an agent, and keep what can be looked at.

    `trained`: what `fit` or `load` returned, or a run folder; `on`: an environment, by default the one that
    it learnt in. An environment that renders is made with that `render_mode`; its pictures become a film, a
    GIF at `out` (by default episodes.gif in the run folder, if there is one). `settings`: fields of
    `WatchSettings` (`episodes`, `seed`, `greedy`, `horizon`, `render`, `fps`). `quiet`: do not say if it
    cannot render.
    """
    a, actor = WatchSettings(**settings), _actor(trained)
    if out is not None and Path(out).suffix.lower() != ".gif":
        raise SettingError("out", str(out), "a file that ends in .gif")
    place, filmed, mode = _place(actor, on, a, quiet)
    agent: Any = Greedy(actor.saved.module) if a.greedy else actor.saved.module
    lanes: Any = place.lanes if filmed is None else filmed
    played, frames, longest = [], [], at_most(REHEARSED, a.horizon or MOST_STEPS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(a.seed)
        acting = StepLanes(lanes, 1, np.random.default_rng(a.seed))
        for _ in range(a.episodes):
            played += acting.episodes(agent, longest)
            if filmed is not None:
                frames += filmed.frames
                filmed.frames = []
    steps = annotate_episodes(actor.saved.module, place.lanes, played, gamma=place.discount)
    found = Watched(place.name, mode, steps, frames, a.fps or _fps(place))
    if mode != "rgb_array" or (out is None and actor.folder is None):
        return found
    film = Path(out) if out is not None else Path(str(actor.folder)) / FILM
    found.save(film)
    return Watched(found.env, mode, steps, frames, found.fps, film)


def walk(trained: Any, on: Any = None, *, seed: int = 0, greedy: bool = False) -> Walk:
    """An episode to be stepped by hand, beside the belief that its history warrants.

    `trained`, `on` as for `watch`; the environment has to be a POMDP that is written out.
    """
    actor = _actor(trained)
    place = wanted_environment(actor, on, 1, None)
    if place.problem is None:
        raise SettingError("env", place.name, "a POMDP that is written out: only there a belief is known")
    return Walk(place.problem, actor.saved.module, seed=seed, greedy=greedy)


def _actor(trained: Any) -> Actor:
    found = load(trained) if isinstance(trained, str | Path) else trained
    if not isinstance(found, Actor):
        name = trained if isinstance(trained, str | Path) else type(found).__name__
        kinds = "ppo, a2c, reinforce, r2d2, sac"
        raise InputError(f"{name}: expected an agent that acts in an environment ({kinds})")
    return found


def _place(
    actor: Actor, on: Any, a: WatchSettings, quiet: bool
) -> tuple[Environment, Filmed | None, str | None]:
    """The environment, with what films it if it renders, and in which way it does."""
    place = wanted_environment(actor, on, 1, a.horizon)
    modes = _modes(place)
    if a.render == "none" or (a.render == "auto" and not modes):
        return place, None, None
    wanted = [m for m in ("rgb_array", "ansi") if m in modes] if a.render == "auto" else [a.render]
    if a.render not in ("auto", *modes):
        known = f"one of {', '.join(modes)}" if modes else "none"
        raise SettingError("render", a.render, f"{known}: {place.name} renders nothing else")
    for i, mode in enumerate(wanted):
        try:
            rendering = wanted_environment(actor, on, 1, a.horizon, render_mode=mode)
            lanes = rendering.lanes
            assert isinstance(lanes, GymnasiumLanes)
            lanes.envs.reset(seed=0)
            lanes.envs.render()  # what it draws with may be missing, which some say only now
        except (InputError, gymnasium.error.Error, ImportError) as e:
            if a.render != "auto":
                raise InputError(f"{place.name} does not render {mode}: {e}") from e
            if not quiet:
                then = wanted[i + 1] if i + 1 < len(wanted) else "words"
                say(f"{place.name} does not render {mode}, so it is shown in {then}: {e}")
            continue
        return rendering, Filmed(lanes), mode
    return place, None, None


def _modes(place: Environment) -> list[str]:
    """What the environment says that it can render."""
    if not isinstance(place.lanes, GymnasiumLanes):
        return []
    envs = place.lanes.envs
    one: Any = envs.envs[0] if isinstance(envs, SyncVectorEnv) else envs
    return [
        str(mode) for mode in one.metadata.get("render_modes", ()) if mode in ("rgb_array", "ansi", "human")
    ]


def _fps(place: Environment) -> float:
    lanes = place.lanes
    envs = lanes.envs if isinstance(lanes, GymnasiumLanes) else None
    one: Any = envs.envs[0] if isinstance(envs, SyncVectorEnv) else envs
    return float(one.metadata.get("render_fps") or FPS) if one is not None else FPS
