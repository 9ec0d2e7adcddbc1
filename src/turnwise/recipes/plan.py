"""An online planner (PO-UCT, POMCP, POMCPOW) in whole episodes, beside what is known of the problem."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.evaluation.measures.agents.episodes import MOST_STEPS, NEGLIGIBLE, horizon_for, tail_of
from turnwise.evaluation.measures.intervals import mean_interval
from turnwise.exact.pomcp.planner import Config, Simulator, TabularSimulator, informed, plan_episodes
from turnwise.recipes.environments import find_problem
from turnwise.recipes.measuring.evaluation import Evaluation
from turnwise.recipes.measuring.proved import optimum, random_in_words, room_of
from turnwise.recipes.own_problem import imported
from turnwise.recipes.settings.plan import PlanSettings
from turnwise.recipes.solve import as_asked
from turnwise.run import outwards
from turnwise.run.errors import SettingError
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most, rehearsing

PARTICLES = 1000
"""of a simulator, unless another number is asked for"""
BASELINE = 40
"""episodes of the planner that stands beside another agent, at most"""


def plan(
    problem: Any,
    *,
    policy: Any = None,
    legal: Any = None,
    quiet: bool = True,
    warn: Callable[[str], None] = lambda _: None,
    bounds: Callable[[float, float, float], None] | None = None,
    **settings: Any,
) -> Evaluation:
    """Let a planner act, and set its mean return beside certified bounds of the optimum and random actions.

    `problem`: whatever `solve` takes, or a `Simulator` (`start`, `step`, `actions`, `discount`, and
    `likelihood` if its observations do not repeat), or `module:name` of one. `policy` acts in rollouts and
    `legal` says which actions may be taken, as `exact.pomcp.planner.Planner` has them. `settings`: fields of
    `PlanSettings`. Of a simulator no bounds are known.
    """
    a = PlanSettings(**settings)
    a = replace(a, episodes=at_most(3, a.episodes), simulations=at_most(50, a.simulations))
    a = replace(a, deadline=min(0.5, a.deadline)) if rehearsing() else a
    world, name = _world(problem, a, warn)
    table = world if isinstance(world, POMDP) else None
    if world.discount == 1 and a.look_ahead is None:
        raise SettingError(
            "look_ahead", None, "a number of steps: at discount 1 nothing else ends a simulation"
        )
    steps = a.steps or (_steps(world.discount) if table is None else horizon_for(table))
    if a.rollouts == "informed" and policy is None:
        if table is None:
            raise SettingError("rollouts", a.rollouts, "random: of a simulator nobody knows what is best")
        policy = informed(table)
    returns, seconds = _played(world, a, steps, policy, legal, quiet)
    chance = _at_random(world, max(400, a.episodes), steps, np.random.default_rng((a.seed, 8)))
    truth = _truth(table, a.deadline, bounds)
    rng = np.random.default_rng(a.seed)
    mine, by_chance = mean_interval(returns, rng=rng), mean_interval(chance, rng=rng)
    error = float(returns.std(ddof=1) / math.sqrt(len(returns)))
    tail = 0.0 if table is None else tail_of(table, steps)
    gamma = world.discount
    above = truth["upper"] is not None and mine.mean > truth["upper"] + room_of(error, tail)
    result: dict[str, Any] = {
        "problem": name,
        "score": "mean return" if gamma == 1 else "mean discounted return",
        "simulations": a.simulations,
        "particles": 0 if table is not None and not a.particles else a.particles or PARTICLES,
        "rollouts": "own" if policy is not None and a.rollouts == "random" else a.rollouts,
        "episodes": len(returns),
        "steps": steps,
        "seed": a.seed,
        "discount": gamma,
        "mean": mine.mean,
        "low": mine.low,
        "high": mine.high,
        "standard_error": error,
        "tail": tail,
        "seconds": seconds,
        "random": {"mean": by_chance.mean, "low": by_chance.low, "high": by_chance.high},
        "truth": truth,
        "bound": truth["upper"],
        "above": above,
    }
    result["beside"] = _beside(result)
    return Evaluation(mine.mean, mine.low, mine.high, len(returns), result["score"], None, result)


def planner_beside(
    problem: POMDP | None, simulations: int, episodes: int, steps: int, seed: int, quiet: bool
) -> dict[str, Any] | None:
    """What a planner of so many simulations a move earns where another agent is measured; None if of none.

    SettingError if the environment is not written out, so that nothing can be simulated.
    """
    if not simulations:
        return None
    if problem is None:
        raise SettingError("simulations", simulations, "0: the environment is no problem that is written out")
    many = min(episodes, at_most(3, BASELINE))
    a = PlanSettings(simulations=at_most(50, simulations), episodes=many, seed=seed)
    if problem.discount == 1:
        a = replace(a, look_ahead=steps)
    returns, seconds = _played(problem, a, steps, None, None, quiet)
    found = mean_interval(returns, rng=np.random.default_rng(seed))
    words = (
        f"a planner of {simulations:,} simulations a move, on the exact belief: {found.mean:.4g} "
        f"({found.low:.4g} to {found.high:.4g}, 95%, {len(returns)} episodes)"
    )
    return {
        "simulations": simulations,
        "episodes": len(returns),
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "seconds": seconds,
        "sentence": words,
    }


def _world(problem: Any, a: PlanSettings, warn: Callable[[str], None]) -> tuple[POMDP | Simulator, str]:
    """(the problem as it is asked for, or a simulator; its name)."""
    given = imported(problem) if isinstance(problem, str) else None
    name = str(problem) if given is not None else ""
    given = problem if given is None else given
    if isinstance(given, Simulator) and not isinstance(given, POMDP):
        asked = {"discount": a.discount, "ends": a.ends or None, "continuing": a.continuing or None}
        for setting, value in asked.items():
            if value is not None:
                raise SettingError(setting, value, "none for a simulator, which has its own")
        return given, name or type(given).__name__
    table, warnings = find_problem(given)
    for text in warnings:
        warn(text)
    return as_asked(table, a), table.name or name or "the problem"


def _steps(g: float) -> int:
    """Steps of a simulator, whose rewards nobody knows, after which one is discounted to little of itself."""
    if g == 1:
        return MOST_STEPS
    return 1 if g == 0 else min(MOST_STEPS, math.ceil(math.log(NEGLIGIBLE) / math.log(g)))


def _played(
    world: POMDP | Simulator, a: PlanSettings, steps: int, policy: Any, legal: Any, quiet: bool
) -> tuple[np.ndarray, float]:
    """([episodes] returns, seconds)."""
    config = Config(
        simulations=a.simulations,
        exploration=a.exploration,
        precision=a.precision,
        horizon=a.look_ahead,
        exact_belief=a.particles == 0,
        particles=a.particles or PARTICLES,
    )
    began = time.perf_counter()
    with Progress("planning", a.episodes, quiet=quiet) as bar:
        returns = plan_episodes(
            world,
            config,
            a.episodes,
            np.random.default_rng((a.seed, 7)),
            steps=steps,
            policy=policy,
            legal=legal,
            progress=lambda i, value: bar.at(i + 1, {"return": value}),
        )
    return returns, time.perf_counter() - began


def _at_random(world: POMDP | Simulator, episodes: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """[episodes], discounted returns of actions at random."""
    sim: Simulator = TabularSimulator(world) if isinstance(world, POMDP) else world
    episodes = min(episodes, max(20, 40_000 // steps))
    returns = np.zeros(episodes)
    for i in range(episodes):
        state, weight = sim.start(rng), 1.0
        for _ in range(steps):
            state, _, reward, ended = sim.step(state, int(rng.integers(sim.actions)), rng)
            returns[i] += weight * reward
            weight *= sim.discount
            if ended:
                break
    return returns


def _truth(
    table: POMDP | None, deadline: float, bounds: Callable[[float, float, float], None] | None
) -> dict[str, Any]:
    """Certified bounds of the best value, and why there are none."""
    if table is not None:
        return optimum(table, deadline, bounds)
    why = "the optimum: a simulator is not written out, so that nothing can be proved"
    return {"lower": None, "upper": None, "notes": [why]}


def _beside(result: dict[str, Any]) -> list[str]:
    """What the mean stands beside, line by line."""
    t, chance, lines = result["truth"], result["random"], []
    if t["lower"] is not None:
        low, high = outwards.lower(t["lower"]), outwards.upper(t["upper"])
        lines.append(f"the best policy with memory is worth {low} to {high}, as is proved")
    return [*lines, random_in_words(chance)]
