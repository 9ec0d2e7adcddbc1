"""An agent with memory measured in whole episodes, beside what is known of the environment."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gymnasium.vector import VectorEnv

from turnwise.envs.protocol import LaneEnv
from turnwise.envs.tabular import TabularEnv
from turnwise.evaluation.measures.agents.belief_probe import MOST_STATES, probe_memory
from turnwise.evaluation.measures.agents.episode_views import annotate_episodes
from turnwise.evaluation.measures.agents.episodes import (
    MOST_STEPS,
    episode_summary,
    horizon_for,
    tail_of,
)
from turnwise.evaluation.measures.agents.truth import (
    Limits,
    bound_above,
    exact_value,
    share_of,
    truth_of_problem,
    truth_of_task,
)
from turnwise.evaluation.pages.report import write_report
from turnwise.models.agents.spec import Spaces, agent_of
from turnwise.recipes.environments import Environment, find_environment
from turnwise.recipes.measuring.evaluation import Evaluation
from turnwise.recipes.measuring.playing import play_in_shards, play_whole
from turnwise.recipes.measuring.proved import room_of
from turnwise.recipes.plan import planner_beside
from turnwise.recipes.settings.measure import EpisodeSettings
from turnwise.recipes.settings.ray import RaySettings
from turnwise.recipes.trained import Actor
from turnwise.recipes.workers import ALONE, workers_of
from turnwise.run import outwards
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.lock import locked
from turnwise.run.files.whole import whole_files
from turnwise.run.folder import as_json, read_config
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most, rehearsing

REHEARSED = 20
"""episodes of a rehearsal"""
SHOWN = 8
"""episodes kept for the report page"""
PROBED = 600
"""episodes whose memories are read"""
SECONDS = 10.0
"""for the bounds of the optimum, and for the best memoryless policy"""


def measure(
    actor: Actor,
    env: Any,
    settings: EpisodeSettings,
    shards: RaySettings = ALONE,
    *,
    quiet: bool = False,
    bounds: Callable[[float, float, float], None] | None = None,
) -> Evaluation:
    """Play whole episodes and set the mean beside the bounds of the optimum and the best without memory.

    `env`: None is the environment of training. `bounds`: called with (seconds, lower, upper) while the
    optimum is searched for. Writes evaluation.json, episodes.jsonl, probe.json and the page into the run.
    `shards`: who plays them. Each shard has lanes and a seed of its own.
    """
    if shards.divides and settings.workers > 1:
        expected = "1 where the work is in shards, each with an environment of its own"
        raise SettingError("workers", settings.workers, expected)
    a, saved = replace(settings, episodes=at_most(REHEARSED, settings.episodes)), actor.saved
    place, longest, gamma = _environment(actor, env, a)
    problem = place.problem
    with workers_of(shards) as workers, Progress("playing", a.episodes, quiet=quiet) as bar:
        if workers is None:
            episodes = play_whole(saved.module, place, longest, gamma, a, a.seed, bar.at)
        else:
            episodes = play_in_shards(workers, actor, place, longest, gamma, a, shards, bar.at)
    result: dict[str, Any] = {"env": place.name, **episode_summary(episodes, gamma=gamma, seed=a.seed)}
    result |= {"shards": shards.count} if shards.divides else {}
    memoryless = saved.memory.memory == "none"
    truth = known_of(place.lanes, problem, a.seed, bounds)
    result |= {
        "kind": saved.kind,
        "greedy": a.greedy,
        "horizon": longest,
        "tail": tail_of(problem, longest) if problem is not None and result["truncated"] else 0.0,
        "truth": truth,
        "exact": None,
    }
    if problem is not None and memoryless:
        result["exact"] = exact_value(saved.module, problem, greedy=a.greedy)
    bound = bound_above(truth, memoryless)
    room = room_of(result["standard_error"], result["tail"])
    result |= {"bound": bound, "above": bound is not None and result["mean"] > bound + room}
    result["share"] = share_of(result["mean"], truth) if not memoryless else None
    found = _probe(actor, problem, episodes, truth, a.seed, quiet)
    result["probe"] = found and {name: line["accuracy"] for name, line in found["lines"].items()}
    planner = planner_beside(problem, a.simulations, a.episodes, longest, a.seed, quiet)
    result["planner"] = planner
    result["beside"] = _beside(result) + ([planner["sentence"]] if planner else [])
    report = None
    if actor.folder is not None:
        shown = annotate_episodes(saved.module, place.lanes, episodes[:SHOWN], gamma=gamma)
        report = _write(actor.folder, result, shown, found)
    return Evaluation(
        result["mean"], result["low"], result["high"], result["episodes"], result["score"], report, result
    )


def _environment(actor: Actor, env: Any, a: EpisodeSettings) -> tuple[Environment, int, float | None]:
    """The environment; steps of an episode at most; the discount, if the environment has one."""
    place = wanted_environment(actor, env, min(a.lanes, a.episodes), a.horizon, workers=a.workers)
    if place.problem is None:
        return place, a.horizon or trained_horizon(actor) or MOST_STEPS, place.discount
    longest = a.horizon or horizon_for(place.problem)
    lanes = TabularEnv(place.problem, longest)
    return replace(place, lanes=lanes), longest, place.problem.discount


def trained_horizon(actor: Actor) -> int | None:
    """Steps after which episodes were cut in training, if somebody set that."""
    if isinstance(actor.env, Environment):
        return actor.env.horizon
    found = read_config(actor.folder).get("horizon") if actor.folder is not None else None
    return None if found is None else int(found)


def wanted_environment(
    actor: Actor, env: Any, lanes: int, horizon: int | None, **settings: Any
) -> Environment:
    """The environment `env`, or that of training if it is None, in so many lanes.

    `horizon` None: that of training, if one was set, and else the environment's own. `settings` are those of
    `find_environment`. A vector environment that is made already keeps its number of lanes. SettingError for
    one that looks otherwise than the agent knows.
    """
    wanted = env if env is not None else actor.env
    if wanted is None and actor.folder is not None:
        wanted = read_config(actor.folder).get("env")
    if wanted is None:
        raise InputError("the agent was trained in memory; expected an environment to measure it in")
    source = wanted.source if isinstance(wanted, Environment) else wanted
    if isinstance(source, VectorEnv):
        lanes = source.num_envs
    place = find_environment(wanted, lanes, horizon or trained_horizon(actor), **settings)
    here, there = Spaces.of(place.lanes), actor.saved.spaces
    if (here.observations, here.actions) != (there.observations, there.actions):
        expected = (
            f"observations {there.observations} and actions {there.actions}, which the agent was made for; "
            f"this one has observations {here.observations} and actions {here.actions}"
        )
        raise SettingError("env", place.name, expected)
    return place


def known_of(
    env: LaneEnv, problem: Any, seed: int, bounds: Callable[[float, float, float], None] | None
) -> dict[str, Any]:
    """What is known of the environment's best, with or without memory; what is not finite is None."""
    if problem is None:
        return truth_of_task(env)
    seconds = 0.3 if rehearsing() else SECONDS
    found = truth_of_problem(problem, seed, Limits(seconds), bounds or (lambda *_: None))
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in found.items()}


def _probe(
    actor: Actor, problem: Any, episodes: Sequence[Any], truth: dict[str, Any], seed: int, quiet: bool
) -> dict[str, Any] | None:
    """What the memory knows of the hidden state. None if there is nothing to probe."""
    if problem is None or problem.shape[0] > MOST_STATES:
        return None
    saved = actor.saved
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = agent_of(saved.kind, saved.memory, saved.critic, saved.spaces).eval().memory
    with Progress("reading memories", 3, quiet=quiet) as bar:
        return probe_memory(
            problem,
            saved.module.memory,
            fresh,
            episodes[:PROBED],
            seed,
            expected=not truth["rewards_inform"],
            progress=bar.at,
        )


def _beside(result: dict[str, Any]) -> list[str]:
    """What the mean stands beside, line by line."""
    lines = best_in_words(result["truth"])
    if result["exact"] is not None:
        lines.append(f"this policy has no memory; its exact value: {result['exact']:.6g}")
    if result["share"] is not None and result["share"] < 0:
        lines.append("its memory gains it nothing: a policy without one does better")
    elif result["share"] is not None:
        lines.append(f"share of what memory is worth: {100 * result['share']:.0f}%")
    return lines


def best_in_words(t: dict[str, Any]) -> list[str]:
    """What is known of the environment's best, line by line."""
    lines = []
    if t.get("lower") is not None:
        low, high = outwards.lower(t["lower"]), outwards.upper(t["upper"])
        lines.append(f"V*_obs, of the best policy with memory: between {low} and {high}")
    if t.get("stochastic") is not None:
        lines.append(f"best stochastic memoryless policy found: {t['stochastic']:.6g}")
    if t.get("deterministic") is not None:
        lines.append(f"best deterministic memoryless policy: {t['deterministic']:.6g}")
    if t.get("maximum") is not None:
        lines.append(f"maximum: {t['maximum']:.6g}")
    return lines


def _write(
    folder: Path, result: dict[str, Any], shown: Sequence[dict[str, Any]], found: dict[str, Any] | None
) -> Path:
    lines = "".join(json.dumps(e, ensure_ascii=False, allow_nan=False) + "\n" for e in shown)
    texts = {
        "episodes.jsonl": lines,
        "probe.json": None if found is None else as_json(found),
        "evaluation.json": as_json(result),
    }
    with locked(folder):
        whole_files(folder, texts, last="evaluation.json")
        return write_report(folder)
