"""The plan of a learnt POMDP, measured in the environment that it was learnt from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.envs.protocol import Discrete
from turnwise.envs.tabular import TabularEnv
from turnwise.evaluation.measures.agents.episodes import horizon_for
from turnwise.evaluation.measures.agents.truth import bound_above
from turnwise.evaluation.measures.intervals import mean_interval
from turnwise.evaluation.pages.report import write_report
from turnwise.exact.learning.live import at_random, live_returns
from turnwise.exact.learning.truth import LANES
from turnwise.recipes.environments import Environment, find_environment
from turnwise.recipes.measuring.episodes import REHEARSED, best_in_words, known_of
from turnwise.recipes.measuring.evaluation import Evaluation
from turnwise.recipes.measuring.proved import random_in_words, room_of
from turnwise.recipes.plan import planner_beside
from turnwise.recipes.settings.measure import EpisodeSettings
from turnwise.recipes.trained import World
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.lock import locked
from turnwise.run.files.whole import whole_files
from turnwise.run.folder import as_json
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most


def measure(
    world: World,
    env: Any,
    settings: EpisodeSettings,
    *,
    quiet: bool = False,
    bounds: Callable[[float, float, float], None] | None = None,
) -> Evaluation:
    """Let the plan act, and set its mean return beside random actions, its promise and the best policies.

    `env`: None is the environment that the world was learnt from. `bounds`: called with (seconds, lower,
    upper) while the optimum of a problem that is written out is searched for. Writes evaluation.json and the
    page into the run. SettingError for what is not for a plan: greedy, horizon, workers.
    """
    if settings.greedy or settings.horizon is not None:
        name, value = ("greedy", True) if settings.greedy else ("horizon", settings.horizon)
        raise SettingError(name, value, "none for a plan, which takes its best action in whole episodes")
    if settings.workers > 1:
        raise SettingError("workers", settings.workers, "1: a plan is measured in one process")
    place, n = _environment(world, env), at_most(REHEARSED, settings.episodes)
    gamma, seed = world.planner.discount, settings.seed
    with Progress("playing", 2 * n, quiet=quiet) as bar:
        returns = replace(world, env=place).live_returns(n, seed)
        bar.at(n)
        rng = np.random.default_rng((seed, 8))
        random = live_returns(place.lanes, world.planner.model, at_random, n, gamma, rng)
        bar.at(2 * n)
    plan, chance = (mean_interval(x, rng=np.random.default_rng(seed)) for x in (returns, random))
    truth = known_of(place.lanes, place.problem, seed, bounds)
    error, bound = float(returns.std(ddof=1) / np.sqrt(n)), bound_above(truth, False)
    result: dict[str, Any] = {
        "env": place.name,
        "same_env": place.name == world.result.get("env", place.name),
        "score": "mean return" if gamma == 1 else "mean discounted return",
        "episodes": n,
        "seed": seed,
        "mean": plan.mean,
        "low": plan.low,
        "high": plan.high,
        "standard_error": error,
        "discount": gamma,
        "random": {"mean": chance.mean, "low": chance.low, "high": chance.high},
        "truth": truth,
        "bound": bound,
        "above": bound is not None and plan.mean > bound + room_of(error),
    }
    result["beside"] = [
        random_in_words(result["random"]),
        *best_in_words(truth),
    ]
    steps = 1 if place.problem is None else horizon_for(place.problem)
    planner = planner_beside(place.problem, settings.simulations, n, steps, seed, quiet)
    result["planner"] = planner
    if planner is not None:
        result["beside"].append(planner["sentence"])
    if result["same_env"] and (promise := _promised(world, plan.mean)) is not None:
        result["promised"] = promise
        result["beside"].append(promise["sentence"])
    report = None if world.folder is None else _write(world.folder, result)
    return Evaluation(plan.mean, plan.low, plan.high, n, result["score"], report, result)


def _environment(world: World, env: Any) -> Environment:
    """Where the plan acts. SettingError for an environment of other observations or actions."""
    wanted = world.env if env is None else env
    if wanted is None:
        raise InputError("the world was learnt in memory; expected an environment to measure its plan in")
    place = wanted if isinstance(wanted, Environment) else find_environment(wanted, LANES, None)
    _, actions, symbols = world.planner.model.shape
    seen, acts = place.lanes.observation_space, place.lanes.action_space
    # A problem that shows nothing at first has a symbol for that, which is none of the model's.
    nothing = isinstance(place.lanes, TabularEnv) and place.lanes.null is not None
    if not isinstance(seen, Discrete) or seen.n - nothing != symbols or acts != Discrete(actions):
        expected = f"{symbols} observations and {actions} actions, as the model has; found {seen}, {acts}"
        raise SettingError("env", place.name, expected)
    return place


def _promised(world: World, earned: float) -> dict[str, Any] | None:
    """What the plan earned in models of the episodes, and that less what it earned; None if nobody says."""
    found = next((row for row in world.result.get("worth", ()) if row["role"] == "predicted"), None)
    if found is None:
        return None
    over = float(found["mean"]) - earned
    text = f"its models promised {found['mean']:.4g}"
    if found["low"] is not None:
        text += f" ({found['low']:.4g} to {found['high']:.4g})"
    text += f": {abs(over):.4g} too {'much' if over >= 0 else 'little'}"
    return {
        "value": found["mean"],
        "low": found["low"],
        "high": found["high"],
        "over": over,
        "sentence": text,
    }


def _write(folder: Path, result: dict[str, Any]) -> Path:
    with locked(folder):
        whole_files(folder, {"evaluation.json": as_json(result)}, last="evaluation.json")
        return write_report(folder)
