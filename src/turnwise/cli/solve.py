"""turnwise solve."""

from __future__ import annotations

import math
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from turnwise.cli.say import console, notice, parse
from turnwise.run.errors import InputError
from turnwise.run.folder import expect_fresh, write_config

MEMORY = "none, deterministic, stochastic, or a number of memory nodes"


@dataclass(frozen=True)
class Solve:
    """Bounds of the best value of a POMDP, and a policy: with the whole history, or with limited memory."""

    problem: Annotated[str, tyro.conf.Positional]
    """a .pomdp or .pomdpx file (.gz too), or a built-in problem by name"""
    target_gap: float = 1e-3
    """stop when the bounds are as near as this, in units of the return"""
    deadline: float = 60.0
    """stop after so many seconds"""
    memory: str = "none"
    """none: the whole history counts. Limits: deterministic or stochastic (a policy of the last observation),
    or the number of nodes of a stochastic controller"""
    initial_observation: str = "none"
    """shown: the agent sees an observation before its first action (Gymnasium's timing); none: it does not"""
    simulate: int = 0
    """check the policy by so many episodes against its own bounds"""
    starts: int = 24
    """with a limit of memory: points that the search begins from"""
    seed: int = 0
    """of simulations and searches"""
    out: Path | None = None
    """run folder to write: policy, bounds over time, report page"""
    json: bool = False
    """print one result object on stdout"""


def run(args: Sequence[str]) -> dict[str, Any]:
    """Solve, print, and write what was asked for."""
    a = parse(Solve, args, "solve", Solve.__doc__ or "")
    nodes = _nodes(a.memory)
    if a.initial_observation not in ("shown", "none"):
        raise InputError(f"--initial-observation {a.initial_observation}: expected shown or none")
    if a.out is not None:
        expect_fresh(a.out, resume=False)
    problem = load(a.problem, a.initial_observation)
    if a.out is not None:
        _expect_writable(a.out)
    out = console(a.json)
    S, A, O = problem.shape
    out.print(
        f"{problem.name}: {S:,} states, {A} actions, {O} observations, discount {problem.discount:g}, "
        f"{'episodes end' if problem.episodic else 'continuing'}, "
        f"{'an observation is shown first' if problem.initial is not None else 'nothing is shown first'}"
    )
    result = _exact(a, problem, out) if nodes is None else _limited(a, problem, nodes, out)
    if a.out is None:
        out.print(
            "[dim]nothing is written; --out FOLDER keeps the policy, the bounds and a report page[/dim]"
        )
    return result


def load(where: str, initial_observation: str) -> Any:
    """The problem of a file or of a name."""
    from dataclasses import replace

    from turnwise.envs.problems.classics import CLASSICS
    from turnwise.exact.files.pomdp import read_pomdp
    from turnwise.exact.files.pomdpx import read_pomdpx

    path = Path(where)
    if where in CLASSICS:
        problem = CLASSICS[where]()
    elif path.exists():
        names = path.name.lower().removesuffix(".gz")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            problem = read_pomdpx(path) if names.endswith(".pomdpx") else read_pomdp(path)
        for w in said:
            notice(f"mind: {w.message}")
    else:
        raise InputError(f"{where}: neither a file nor a built-in problem; these are {', '.join(CLASSICS)}")
    if initial_observation == "none":
        return replace(problem, initial=None)
    try:
        return problem.showing_initial()
    except ValueError as e:
        raise InputError(f"--initial-observation shown: {e}") from e


def _nodes(memory: str) -> int | None:
    """Memories of the controller asked for: None no limit, 0 deterministic memoryless."""
    named = {"none": None, "deterministic": 0, "stochastic": 1}
    if memory in named:
        return named[memory]
    if memory.isdecimal() and 1 <= int(memory) <= 64:
        return int(memory)
    raise InputError(f"--memory {memory}: expected {MEMORY} (1 to 64)")


def _facts(problem: Any, lower: float, upper: float | None, seconds: float) -> dict[str, Any]:
    S, A, O = problem.shape
    return {
        "problem": problem.name,
        "lower": lower,
        "upper": upper,
        "gap": None if upper is None else upper - lower,
        "seconds": seconds,
        "states": S,
        "actions": A,
        "observations": O,
        "discount": problem.discount,
        "initial_observation": "none" if problem.initial is None else "shown",
    }


def _exact(a: Solve, problem: Any, out: Any) -> dict[str, Any]:
    import numpy as np

    from turnwise.exact.sarsop.search import compile_kernels
    from turnwise.exact.sarsop.solve import solve

    began = time.perf_counter()
    compile_kernels()
    if time.perf_counter() - began > 5:
        notice(f"compiled for this machine in {time.perf_counter() - began:.0f} s; later runs load it")
    with Bounds(a.deadline) as bar:
        found = solve(problem, gap=a.target_gap, deadline=a.deadline, progress=bar.at)
    result = _facts(problem, found.lower, found.upper, found.seconds)
    result |= {
        "stopped": found.stopped,
        "plans": len(found.policy),
        "beliefs": found.beliefs,
        "trials": found.trials,
    }
    out.print(
        f"optimal value between [bold]{found.lower:.6g}[/bold] and [bold]{found.upper:.6g}[/bold], "
        f"gap {found.gap:.3g} after {found.seconds:.2f} s ({_why(found.stopped, a)})"
    )
    out.print(f"policy: {len(found.policy):,} plans (alpha vectors); searched {found.beliefs:,} beliefs")
    if a.out is not None:
        from turnwise.recipes.solutions import save_policies

        _begin_folder(a)
        save_policies(a.out, problem, found, result)
    if a.simulate:
        result["simulation"] = _simulated(a, problem, found, out)
    if a.out is not None:
        from turnwise.recipes.solutions import save_solution

        notice("looking at where the policy looks, and writing the page")
        page = save_solution(a.out, problem, found, result, np.random.default_rng(a.seed))
        out.print(f"report: {page}")
        result["out"] = str(a.out)
    if (s := result.get("simulation")) and not s["inside"]:
        result["exit"] = 1
    return result


def _why(stopped: str, a: Solve) -> str:
    return {
        "gap": f"the gap asked for is {a.target_gap:g}",
        "deadline": f"the deadline is {a.deadline:g} s",
        "interrupted": "interrupted: the best so far",
    }[stopped]


def _simulated(a: Solve, problem: Any, found: Any, out: Any) -> dict[str, Any]:
    import numpy as np

    from turnwise.exact.simulation import simulate
    from turnwise.run.progress import Progress

    with Progress("simulating", 1, quiet=a.json) as bar:

        def at(done: int, total: int) -> None:
            bar.total = total
            bar.at(done)

        s = simulate(problem, found.policy, np.random.default_rng(a.seed), a.simulate, at)
    inside = s.agrees(found.lower, found.upper)
    out.print(
        f"{a.simulate:,} episodes: mean return {s.mean:.4f} +- {s.standard_error:.4f} (1 s.e.), "
        + ("within its bounds" if inside else "[red]outside its bounds[/red] by more than 3 s.e.")
    )
    return {
        "episodes": a.simulate,
        "mean": s.mean,
        "standard_error": s.standard_error,
        "tail": s.tail,
        "inside": inside,
    }


def _limited(a: Solve, problem: Any, nodes: int, out: Any) -> dict[str, Any]:
    import numpy as np

    from turnwise.exact.bounds import fib_q
    from turnwise.exact.controller_search import best_controller, best_deterministic_memoryless
    from turnwise.exact.sarsop.search import first_beliefs
    from turnwise.run.progress import Progress

    if a.simulate:
        raise InputError(
            "--simulate: the value of a controller is exact; expected no --simulate with --memory"
        )
    began = time.perf_counter()
    if nodes == 0:
        best = best_deterministic_memoryless(problem)
    else:
        with Progress("starts", a.starts, quiet=a.json) as bar:
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
            "expected more memory (--memory stochastic or a number), or a discount below 1"
        )
    upper = None
    if problem.discount < 1:  # at discount 1 the bound is over policies that end, and this one may never end
        fib = fib_q(problem)
        upper = float(sum(p * (fib @ b).max() for p, b in first_beliefs(problem)))
    seconds = time.perf_counter() - began
    result = {"value": best.value, "memory": a.memory, **_facts(problem, best.value, upper, seconds)}
    what = {0: "best deterministic memoryless policy", 1: "best stochastic memoryless policy found"}
    out.print(
        f"{what.get(nodes, f'best stochastic controller of {nodes} nodes found')}: exact value "
        f"[bold]{best.value:.6g}[/bold] after {seconds:.2f} s"
        + ("" if upper is None else f"; the fast informed bound of all policies is {upper:.6g}")
    )
    if a.out is not None:
        from turnwise.recipes.solutions import save_controller

        _begin_folder(a)
        page = save_controller(a.out, problem, best, result)
        out.print(f"report: {page}")
        result["out"] = str(a.out)
    return result


def _expect_writable(folder: Path) -> None:
    """Make the folder and refuse, before anything is solved, one that cannot be written into."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise InputError(f"--out {folder}: {e.strerror}; expected a folder that can be written into") from e


def _begin_folder(a: Solve) -> None:
    assert a.out is not None
    asked = {k: v for k, v in vars(a).items() if k not in ("out", "json")}
    write_config(a.out, {"verb": "solve", **asked}, resume=False)


class Bounds:
    """Bounds as they close in, on stderr, after 2 s: a live line in a terminal, else a line now and then."""

    def __init__(self, deadline: float):
        self.deadline, self.next, self.live = deadline, 2.0, sys.stderr.isatty()
        self.shown = False

    def __enter__(self) -> Bounds:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown and self.live:
            print(file=sys.stderr)

    def at(self, seconds: float, lower: float, upper: float) -> None:
        """Called about ten times a second."""
        if seconds < self.next:
            return
        self.next = seconds + (0.2 if self.live else 15.0)
        left = max(0.0, self.deadline - seconds)
        text = f"{lower:.6g} to {upper:.6g}  gap {upper - lower:.3g}  {left:.0f} s left at most"
        print(
            f"\r\x1b[K{text}" if self.live else text,
            end="" if self.live else "\n",
            file=sys.stderr,
            flush=True,
        )
        self.shown = True
