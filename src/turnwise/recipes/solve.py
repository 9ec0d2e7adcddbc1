"""Solve a POMDP: bounds of its best value and a policy, with the whole history or with limited memory."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.variants import continuing, ending, with_horizon
from turnwise.exact.bounds import fib_q
from turnwise.exact.controller_search import best_controller, best_deterministic_memoryless
from turnwise.exact.sarsop.search import compile_kernels, first_beliefs
from turnwise.exact.sarsop.solve import Solution
from turnwise.exact.sarsop.solve import solve as search
from turnwise.exact.simulation import simulate
from turnwise.recipes.environments import find_problem
from turnwise.recipes.settings.plan import PlanSettings
from turnwise.recipes.settings.solve import SolveSettings
from turnwise.recipes.solutions import save_controller, save_policies, save_solution
from turnwise.recipes.solved import Solved
from turnwise.run.errors import InputError, SettingError
from turnwise.run.folder import expect_fresh, write_config
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most, rehearsing

PAGE_SHARE, PAGE_SECONDS = 0.2, 20.0
"""share of the deadline, and seconds at most, that are kept for what the page shows beside the bounds"""
COMPILING = 5.0
"""seconds from which on compiling is worth a word"""


@dataclass(frozen=True)
class Listener:
    """Who is told how a search gets on. The default listens to nothing."""

    warn: Callable[[str], None] = lambda _: None
    note: Callable[[str], None] = lambda _: None
    began: Callable[[POMDP], None] = lambda _: None
    bounds: Callable[[float, float, float], None] = lambda *_: None
    """(seconds, lower, upper) while bounds close in"""
    quiet: bool = True


def solve(
    problem: Any,
    *,
    out: str | Path | None = None,
    listener: Listener = Listener(),
    **settings: Any,
) -> Solved:
    """Bounds of the best value of a POMDP, and a policy.

    `problem`: a `POMDP`, a .pomdp or .pomdpx file, a built-in problem by name, what `POMDP.from_functions`
    takes as a dict, or `module:name` of any of these or of a function that makes one. `out`: run folder for
    the policy, the bounds over time and a report page. `settings`: fields of `SolveSettings`: `target_gap`,
    `deadline`, `discount`, `horizon`, `ends`, `continuing`, `memory`, `initial_observation`, `simulate`,
    `starts`, `seed`.

    InputError for a problem that cannot be read, SettingError for a setting that cannot work.
    """
    a = SolveSettings(**settings)
    if rehearsing():
        simulate_few, seconds = at_most(20, a.simulate), min(1.0, a.deadline)
        a = replace(a, deadline=seconds, simulate=simulate_few, starts=at_most(2, a.starts))
    folder = None if out is None else Path(out)
    if folder is not None:
        expect_fresh(folder, resume=False)
    table, warnings = find_problem(problem)
    for text in warnings:
        listener.warn(text)
    whole = as_asked(table, a)
    table = whole if a.horizon is None else with_horizon(whole, a.horizon)
    if folder is not None:
        _expect_writable(folder)
    listener.began(whole)
    nodes = a.nodes
    if nodes is None:
        return _with_history(a, table, folder, listener)
    return _with_limits(a, table, nodes, folder, listener)


def as_asked(problem: POMDP, a: SolveSettings | PlanSettings) -> POMDP:
    """The problem with the ends, the discount and the first observation that are asked for."""
    if a.continuing:
        problem = continuing(problem)
    elif a.ends:
        problem = ending(problem)
    if a.discount is not None:
        problem = replace(problem, discount=a.discount)
    return _in_time(problem, a.initial_observation)


def _in_time(problem: POMDP, initial_observation: str) -> POMDP:
    """The problem with its first observation shown, or not."""
    if initial_observation == "none":
        return replace(problem, initial=None)
    try:
        return problem.showing_initial()
    except ValueError as e:
        raise SettingError("initial_observation", "shown", f"none: {e}") from e


def _facts(
    a: SolveSettings, problem: POMDP, lower: float, upper: float | None, seconds: float
) -> dict[str, Any]:
    S, A, O = problem.shape
    return {
        "problem": problem.name,
        "lower": lower,
        "upper": upper,
        "gap": None if upper is None else upper - lower,
        "seconds": seconds,
        "states": S // (a.horizon or 1),  # a clock multiplies them
        "actions": A,
        "observations": O,
        "discount": problem.discount,
        "horizon": a.horizon,
        "initial_observation": "none" if problem.initial is None else "shown",
    }


def _with_history(a: SolveSettings, problem: POMDP, folder: Path | None, listener: Listener) -> Solved:
    began = time.perf_counter()
    compile_kernels()
    if time.perf_counter() - began > COMPILING:
        listener.note(f"compiled for this machine in {time.perf_counter() - began:.0f} s; later runs load it")
    began, share = time.perf_counter(), 0.0 if folder is None else min(PAGE_SHARE * a.deadline, PAGE_SECONDS)
    if folder is not None:
        listener.note(
            f"of the deadline {a.deadline - share:.3g} s are for the search, and {share:.3g} s for what the "
            "page shows beside its bounds; drawing the page takes a few seconds more"
        )
    found = search(problem, gap=a.target_gap, deadline=a.deadline - share, progress=listener.bounds)
    left = max(share, a.deadline - (time.perf_counter() - began))
    result = _facts(a, problem, found.lower, found.upper, found.seconds)
    result |= {
        "stopped": found.stopped,
        "plans": len(found.policy),
        "beliefs": found.beliefs,
        "trials": found.trials,
        "points": found.points,
        "searched": found.searched,
    }
    if folder is not None:
        _begin_folder(folder, problem, a)
        save_policies(folder, problem, found, result)
    if a.simulate:
        result["simulation"] = _simulated(a, problem, found, listener)
    report = None
    if folder is not None:
        report = save_solution(folder, problem, found, result, np.random.default_rng(a.seed), left)
        result["out"] = str(folder)
    return Solved(problem, found.lower, found.upper, found.policy, folder, report, result)


def _simulated(a: SolveSettings, problem: POMDP, found: Solution, listener: Listener) -> dict[str, Any]:
    """The policy's mean return over simulated episodes, and whether its bounds hold it."""
    with Progress("simulating", 1, quiet=listener.quiet) as bar:

        def at(done: int, total: int) -> None:
            bar.total = total
            bar.at(done)

        s = simulate(problem, found.policy, np.random.default_rng(a.seed), a.simulate, at)
    return {
        "episodes": a.simulate,
        "mean": s.mean,
        "standard_error": s.standard_error,
        "tail": s.tail,
        "inside": s.agrees(found.lower, found.upper),
    }


def _with_limits(
    a: SolveSettings, problem: POMDP, nodes: int, folder: Path | None, listener: Listener
) -> Solved:
    if a.simulate:
        raise SettingError("simulate", a.simulate, "0 beside memory: the value of a controller is exact")
    began = time.perf_counter()
    if nodes == 0:
        best = best_deterministic_memoryless(problem)
    else:
        with Progress("starts", a.starts, quiet=listener.quiet) as bar:
            best = best_controller(
                problem,
                nodes,
                np.random.default_rng(a.seed),
                a.starts,
                progress=lambda done, _, value: bar.at(done, {"value": value}),
                seconds=a.deadline,
            )
    if not math.isfinite(best.value):
        raise InputError(
            f"{problem.name}: at discount 1 no such policy is sure to end, so that none has a finite value; "
            "expected more memory (memory stochastic or a number), or a discount below 1"
        )
    upper = None
    if problem.discount < 1:  # at discount 1 the bound is over policies that end, and this one may never end
        fib = fib_q(problem)
        upper = float(sum(p * (fib @ b).max() for p, b in first_beliefs(problem)))
    seconds = time.perf_counter() - began
    result = {"value": best.value, "memory": a.memory, **_facts(a, problem, best.value, upper, seconds)}
    report = None
    if folder is not None:
        _begin_folder(folder, problem, a)
        report = save_controller(folder, problem, best, result)
        result["out"] = str(folder)
    return Solved(problem, best.value, upper, best.controller, folder, report, result)


def _expect_writable(folder: Path) -> None:
    """Make the folder and refuse, before anything is solved, one that cannot be written into."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise SettingError("out", str(folder), f"a folder that can be written into ({e.strerror})") from e


def _begin_folder(folder: Path, problem: POMDP, a: SolveSettings) -> None:
    asked = {"verb": "solve", "problem": problem.name, **vars(a)}
    write_config(folder, asked, resume=False)
