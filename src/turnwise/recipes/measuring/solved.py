"""A solved problem's policy, or one of another solver, in whole episodes beside certified bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.protocol import Discrete, LaneEnv
from turnwise.envs.tabular import TabularEnv
from turnwise.evaluation.measures.agents.episodes import MOST_STEPS, horizon_for, tail_of
from turnwise.evaluation.measures.intervals import mean_interval
from turnwise.evaluation.pages.report import write_report
from turnwise.exact.alpha_policy import AlphaPolicy
from turnwise.exact.controllers import controller_value
from turnwise.exact.reference_policies import policy_value
from turnwise.recipes.environments import find_environment, find_problem, is_table
from turnwise.recipes.measuring.evaluation import Evaluation
from turnwise.recipes.measuring.proved import optimum, random_in_words, room_of
from turnwise.recipes.plan import planner_beside
from turnwise.recipes.settings.measure import EpisodeSettings
from turnwise.recipes.solved import Solved
from turnwise.run import outwards
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.lock import locked
from turnwise.run.files.whole import whole_files
from turnwise.run.folder import as_json
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most, rehearsing

REHEARSED = 20
"""episodes of a rehearsal"""
SECONDS = 10.0
"""for the bounds of the optimum, and for those of the policy"""

Act = Callable[[np.ndarray], np.ndarray]
"""from observations [N] to actions [N]"""


def measure(
    solved: Solved,
    on: Any,
    settings: EpisodeSettings,
    *,
    quiet: bool = False,
    bounds: Callable[[float, float, float], None] | None = None,
) -> Evaluation:
    """Let the policy act on its belief, and set its mean return beside what is proved of it and of the best.

    `on`: the problem or environment to act in; None is the problem that was solved. `bounds`: called with
    (seconds, lower, upper) while the optimum is searched for. With a run folder, evaluation.json and the page
    are written into it. SettingError for what is not for such a policy (greedy), and for another problem's
    observations or actions.
    """
    if settings.greedy:
        raise SettingError("greedy", True, "none: the policy takes its best plan in any case")
    table, env, name = _place(solved, on, settings)
    if solved.problem is None:
        solved = replace(solved, problem=table)
    _expect_fits(solved, env, name)
    n, seed = at_most(REHEARSED, settings.episodes), settings.seed
    steps = settings.horizon or (MOST_STEPS if table is None else horizon_for(table))
    assert solved.problem is not None
    gamma = (table or solved.problem).discount
    lanes = min(settings.lanes, n)
    player = solved.player(lanes, seed=seed)
    random = np.random.default_rng((seed, 8))
    many = env.action_space.n  # type: ignore[union-attr]
    with Progress("playing", 2 * n, quiet=quiet) as bar:
        returns, cut = _returns(env, player.act, player.reset, n, lanes, steps, gamma, (seed, 7), bar.at)
        chance, _ = _returns(
            env,
            lambda seen: random.integers(many, size=len(seen)),
            lambda lanes: None,
            n,
            lanes,
            steps,
            gamma,
            (seed, 7),
            lambda done: bar.at(n + done),
        )
    mine, by_chance = (mean_interval(x, rng=np.random.default_rng(seed)) for x in (returns, chance))
    error = float(returns.std(ddof=1) / np.sqrt(n))
    tail = tail_of(table, steps) if table is not None and cut else 0.0
    truth, value = _proved(solved, table, settings, bounds)
    room = room_of(error, tail)
    upper, least = truth["upper"], value["lower"]
    result: dict[str, Any] = {
        "env": name,
        "score": "mean return" if gamma == 1 else "mean discounted return",
        "episodes": n,
        "seed": seed,
        "mean": mine.mean,
        "low": mine.low,
        "high": mine.high,
        "standard_error": error,
        "discount": gamma,
        "tail": tail,
        "random": {"mean": by_chance.mean, "low": by_chance.low, "high": by_chance.high},
        "truth": truth,
        "value": value,
        "bound": upper,
        "above": upper is not None and mine.mean > upper + room,
        "below": least is not None and mine.mean < least - room,
    }
    planner = planner_beside(table, settings.simulations, n, steps, seed, quiet)
    result["planner"] = planner
    result["beside"] = _beside(result) + ([planner["sentence"]] if planner else [])
    report = None if solved.folder is None else _write(solved.folder, result)
    return Evaluation(mine.mean, mine.low, mine.high, n, result["score"], report, result)


def _place(solved: Solved, on: Any, settings: EpisodeSettings) -> tuple[POMDP | None, LaneEnv, str]:
    """(the problem if it is written out, its lanes, its name)."""
    if on is None and solved.problem is None:
        raise InputError("the policy's problem is not known; expected the environment to measure it in")
    if on is None or is_table(on):
        table = solved.problem if on is None else find_problem(on)[0]
        assert table is not None
        steps = settings.horizon or horizon_for(table)
        return table, TabularEnv(table, steps), table.name or "the problem"
    place = find_environment(on, min(settings.lanes, settings.episodes), settings.horizon)
    return place.problem, place.lanes, place.name


def _expect_fits(solved: Solved, env: LaneEnv, name: str) -> None:
    problem, policy = solved.problem, solved.policy
    if problem is None:
        raise InputError("the policy's problem is not known; expected a problem that is written out")
    S, A, O = problem.shape
    if isinstance(policy, AlphaPolicy) and (policy.alphas.shape[1] != S or policy.actions.max() >= A):
        raise SettingError(
            "env",
            name,
            f"{policy.alphas.shape[1]} states and at least {policy.actions.max() + 1} actions, as the policy "
            f"has; found {S} states and {A} actions",
        )
    seen, acts = env.observation_space, env.action_space
    nothing = isinstance(env, TabularEnv) and env.null is not None
    if not isinstance(seen, Discrete) or seen.n - nothing != O or acts != Discrete(A):
        expected = f"{O} observations and {A} actions, as the policy has; found {seen}, {acts}"
        raise SettingError("env", name, expected)


def _returns(
    env: LaneEnv,
    act: Act,
    reset: Callable[[np.ndarray], None],
    episodes: int,
    lanes: int,
    steps: int,
    gamma: float,
    seed: tuple[int, int],
    progress: Callable[[int], None],
) -> tuple[np.ndarray, bool]:
    """([episodes] discounted returns, whether one was cut): rounds in which each lane plays one episode."""
    rng, found, cut = np.random.default_rng(seed), [], False
    while lanes * len(found) < episodes:
        reset(np.ones(lanes, bool))
        seen = first = env.reset(rng, lanes)
        total, weight, over = np.zeros(lanes), 1.0, np.zeros(lanes, bool)
        for _ in range(steps):
            step = env.step(act(seen))
            total += np.where(over, 0.0, weight * step.rewards)
            weight *= gamma
            cut |= bool((step.truncated & ~over).any())
            ended = step.terminated | step.truncated
            over = over | ended
            if over.all():
                break
            if ended.any() and not env.autoresets:
                env.reset_lanes(ended)
            # A lane that is over goes on with what it was shown first, again and again; nobody counts it.
            seen = np.where(over, first, step.observations)
            reset(over)
        cut |= not over.all()
        found.append(total)
        progress(min(episodes, lanes * len(found)))
    return np.concatenate(found)[:episodes], cut


def _proved(
    solved: Solved,
    table: POMDP | None,
    settings: EpisodeSettings,
    bounds: Callable[[float, float, float], None] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(bounds of the optimum with notes, bounds of this policy's own value); None where nothing is known."""
    truth: dict[str, Any] = {"lower": None, "upper": None, "notes": []}
    value: dict[str, Any] = {"lower": None, "upper": None}
    if table is None:
        truth["notes"].append("the environment is not written out, so that nothing can be proved of it")
        return truth, value
    if settings.horizon is not None:
        truth["notes"].append(
            "episodes are cut at the horizon, which bounds of whole episodes do not know of"
        )
        return truth, value
    seconds = 0.3 if rehearsing() else SECONDS
    if isinstance(solved.policy, AlphaPolicy):
        exact = policy_value(table, solved.policy, gap=1e-3, deadline=seconds)
        if exact is not None:
            value = {"lower": exact[0], "upper": exact[1]}
    elif table is solved.problem:
        exact_value = controller_value(table, solved.policy)
        value = {"lower": exact_value, "upper": exact_value}
    if table is solved.problem and solved.lower is not None:
        truth |= {"lower": solved.lower, "upper": solved.upper}
        if isinstance(solved.policy, AlphaPolicy):  # what the solver proved of the policy holds as well
            value["lower"] = max(solved.lower, value["lower"] if value["lower"] is not None else -np.inf)
    else:
        truth = optimum(table, seconds, bounds)
    if value["lower"] is not None and truth["upper"] is not None:
        value["upper"] = min(value["upper"] if value["upper"] is not None else np.inf, truth["upper"])
    return truth, value


def _beside(result: dict[str, Any]) -> list[str]:
    """What the mean stands beside, line by line."""
    lines, t, v, chance = [], result["truth"], result["value"], result["random"]
    if v["lower"] is not None:
        low, high = outwards.lower(v["lower"]), outwards.upper(v["upper"])
        inside = "within" if not (result["below"] or result["above"]) else "outside of"
        lines.append(f"this policy is worth {low} to {high}, as is proved; the mean is {inside} that")
    if t["lower"] is not None:
        best = "unknown" if t["upper"] is None else outwards.upper(t["upper"])
        lines.append(f"the best policy with memory is worth {outwards.lower(t['lower'])} to {best}")
    return [*lines, random_in_words(chance)]


def _write(folder: Path, result: dict[str, Any]) -> Path:
    with locked(folder):
        whole_files(folder, {"evaluation.json": as_json(result)}, last="evaluation.json")
        return write_report(folder)
