"""Planning while acting on Tiger, Tag and RockSample[7,8]: returns of POMCP beside certified bounds.

    python experiments/pomcp.py                        all settings (minutes on one core), resumable
    python experiments/pomcp.py --problems tiger       some of them
    python experiments/pomcp.py --table                merge what is there into .json and .md

Returns are means over episodes with one standard error. The rollouts `random` take any legal action, all
alike; `listen` (Tiger) listens for ever; `informed` takes with probability 1/2 what were best if the state
were seen, else any action. The belief is exact, or particles. Bounds are certified by SARSOP
(`turnwise.exact.sarsop.solve`, and APPL's for RockSample[7,8]). "Published" are means of POMCP as remembered
from the comparison in Somani et al. 2013, whose rollouts know more about the problem than `random` does. They
are there for orientation. Exploration constants were chosen on a few episodes of seed 1; these episodes are
of seed 0. Simulations a second are those of the first move, on one core.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import add_choice, make_part, options, parse, read_part, write_page, write_results
from problems import read_problem

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import CLASSICS
from turnwise.exact.pomcp.planner import Config, Planner, informed, plan_episodes
from turnwise.run.rehearsal import at_most

SEED, STEPS, PARTICLES = 0, 90, 10_000
"""what follows step 90 weighs .95^90 = .0099"""


@dataclass(frozen=True)
class Task:
    """A problem, how it is planned for, and what is known of it."""

    bounds: tuple[float, float]
    published: float | None
    exploration: float
    episodes: int
    settings: tuple[tuple[str, bool, int], ...]
    """(rollouts, exact belief, simulations)"""


TASKS = {
    "tiger": Task(
        (19.3713, 19.3714), None, 110.0, 40,
        (("random", True, 1000), ("listen", True, 1000), ("listen", False, 1000), ("listen", True, 10_000)),
    ),
    "tag": Task(
        (-6.108, -1.925), -7.14, 20.0, 100,
        (("random", True, 1000), ("random", True, 10_000), ("informed", True, 1000),
         ("informed", False, 1000), ("informed", True, 10_000)),
    ),
    "rock-sample-7-8": Task(
        (21.142, 24.499), 16.8, 5.0, 60,
        (("random", True, 1000), ("random", True, 10_000), ("informed", True, 1000),
         ("informed", False, 1000), ("informed", True, 10_000)),
    ),
}  # fmt: skip


def load(name: str) -> POMDP:
    """The problem, from code or from its file."""
    return CLASSICS[name]() if name in CLASSICS else read_problem(f"{name}.POMDP.gz")


def rollouts(problem: POMDP, kind: str) -> np.ndarray | None:
    """[S, A], the rollouts' probabilities of actions in each state; None: any action, all alike."""
    S, A, _ = problem.shape
    if kind == "listen":
        return np.tile(np.eye(A)[problem.actions.index("listen")], (S, 1))
    return informed(problem) if kind == "informed" else None


def one_setting(name: str, kind: str, exact: bool, simulations: int) -> dict[str, Any]:
    """A row of the table: returns, and what they took."""
    task, problem = TASKS[name], load(name)
    legal = None
    if name.startswith("rock-sample"):
        legal = (problem.expected_rewards() > -100).T  # the rover knows where it is
    config = Config(at_most(100, simulations), task.exploration, exact_belief=exact, particles=PARTICLES)

    def run(config: Config, episodes: int, steps: int) -> np.ndarray:
        rng, policy = np.random.default_rng(SEED), rollouts(problem, kind)
        return plan_episodes(problem, config, episodes, rng, steps=steps, policy=policy, legal=legal)

    run(Config(1, 1.0, exact_belief=exact), 1, 1)  # compilation
    began = time.monotonic()
    returns = run(config, at_most(2, task.episodes), at_most(3, STEPS))
    return {
        "name": name,
        "rollouts": kind,
        "belief": "exact" if exact else f"{PARTICLES:,} particles",
        "simulations": simulations,
        "episodes": len(returns),
        "mean": float(returns.mean()),
        "standard_error": float(returns.std(ddof=1) / math.sqrt(len(returns))),
        "returns": [round(r, 4) for r in returns.tolist()],
        "seconds": round(time.monotonic() - began, 1),
    }


def speed(name: str, kind: str, exact: bool) -> int:
    """Simulations a second at the first move of an episode, 20,000 of them, to two digits."""
    task, problem = TASKS[name], load(name)
    simulations = at_most(100, 20_000)
    policy = rollouts(problem, kind)
    config = Config(simulations, task.exploration, exact_belief=exact, particles=PARTICLES)
    planner = Planner(problem, config, np.random.default_rng(SEED), policy=policy)
    began = time.perf_counter()
    planner.act()
    return int(float(f"{simulations / (time.perf_counter() - began):.1e}"))


def table(runs: Path) -> None:
    """Merge every finished row into pomcp.json and pomcp.md."""
    rows = []
    lines = [
        "| problem | rollouts | belief | simulations a move | mean return | episodes | bounds of V* "
        "| published | simulations a second | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, task in TASKS.items():
        for setting in task.settings:
            file = runs / f"{name}-{'-'.join(map(str, setting))}.json"
            if not file.exists():
                continue
            row = read_part(file)
            rows.append({**row, "bounds": task.bounds, "published": task.published})
            low, high = task.bounds
            cells = [name, row["rollouts"], row["belief"], f"{row['simulations']:,}"]
            cells += [f"{row['mean']:.2f} ± {row['standard_error']:.2f}", str(row["episodes"])]
            cells += [f"{low:.2f} to {high:.2f}", "" if task.published is None else f"{task.published:.2f}"]
            cells += [f"{row['speed']:,}", f"{row['seconds']:.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
    if rows:
        write_results(runs, "pomcp", rows)
        write_page(runs, "pomcp", "\n".join(lines))


def main() -> None:
    """Make the rows that are missing, and merge."""
    parser = options(__doc__, "pomcp")
    add_choice(parser, "--problems", TASKS, "problems")
    a = parse(parser)
    for name in [] if a.table else a.problems:
        for kind, exact, simulations in TASKS[name].settings:

            def row(setting: tuple[str, str, bool, int] = (name, kind, exact, simulations)) -> dict[str, Any]:
                return {**one_setting(*setting), "speed": speed(*setting[:3])}

            make_part(a.runs / f"{name}-{kind}-{exact}-{simulations}.json", row)
        table(a.runs)
    table(a.runs)


if __name__ == "__main__":
    main()
