"""Optimal values of classic POMDPs with certified bounds, beside values that independent solvers found.

    python experiments/pomdp_bounds.py                          all (about 15 minutes on one core), resumable
    python experiments/pomdp_bounds.py --problems tiger.95 Tag  some of them
    python experiments/pomdp_bounds.py --table                  merge what is there into .json and .md

One thread, at most 60 seconds each, target gap .001. Both timings: nothing is shown before the first action,
or the first observation is (where observations do not depend on the action). 2,000 episodes of each policy
are its Monte-Carlo check. "Known" are values of APPL's SARSOP, of pomdp-solve's incremental pruning, or
closed forms. An interval is what APPL or another search had reached after a minute.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import add_choice, make_part, options, parse, read_part, write_page, write_results
from problems import read_problem

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import CLASSICS
from turnwise.exact.sarsop.solve import solve
from turnwise.exact.simulation import simulate
from turnwise.run.rehearsal import at_most

GAP, SECONDS, EPISODES = 1e-3, 60, 2000
BUILT_IN = "rock-sample-7-8"
PROBLEMS: dict[str, tuple[str, float, float]] = {
    # name: file, the known value as an interval
    "tiger.95": ("tiger.95.POMDP", 19.3714, 19.3714),
    "tiger.aaai": ("tiger.aaai.POMDP", 1.93344, 1.93344),
    "1d": ("1d.POMDP", 1.26034, 1.26034),
    "parr95": ("parr95.95.POMDP", 7.20104, 7.20104),
    "cheese": ("cheese.95.POMDP", 3.48621, 3.48621),
    "4x3": ("4x3.95.POMDP", 1.88988, 1.88989),
    "4x4": ("4x4.pomdp", 3.73227, 3.73237),
    "shuttle": ("shuttle.95.POMDP", 32.8897, 32.8897),
    "paint": ("paint.95.POMDP", 3.2936, 3.2936),
    "mini-hall2": ("mini-hall2.POMDP", 2.7143, 2.7143),
    "loadunload": ("loadunload.pomdp", 4.5627, 4.5633),
    "heavenhell, resets": ("heavenhell.pomdp", 8.6410, 8.6411),
    "heavenhell, episodic": ("episodic/heavenhell.POMDP", 0.904382, 0.904382),
    "tmaze2": ("episodic/tmaze2.POMDP", 2.6244, 2.6244),
    "tmaze5": ("episodic/tmaze5.POMDP", 1.91319, 1.91319),
    "cheese, episodic": ("episodic/cheese.95.POMDP", 16.4835, 16.4835),
    "4x3, episodic": ("episodic/4x3.POMDP", 0.40973, 0.40983),
    "RockSample[4,4]": ("RockSample_4_4.POMDP.gz", 17.9245, 17.9245),
    "network": ("episodic/network.POMDP", 34.5334, 34.5703),
    "RockSample[5,5]": ("RockSample_5_5.POMDP.gz", 19.2369, 20.66),
    "tiger-grid": ("tiger-grid.POMDP", 2.258, 2.529),
    "Hallway, restarts": ("hallway.original.pomdp", 0.994, 1.206),
    "Hallway, ends at the goal": ("hallway.pomdp", 0.502, 0.556),
    "Tag": ("tag.POMDP.gz", -6.108, -2.359),
    "RockSample[7,8]": (BUILT_IN, 21.142, 24.499),
}


def problem_of(name: str) -> POMDP:
    """A problem of a file, or a built-in one."""
    file = PROBLEMS[name][0]
    return CLASSICS[file]() if file == BUILT_IN else read_problem(file)


def one(name: str) -> dict[str, Any]:
    """Both timings of one problem."""
    problem, found = replace(problem_of(name), initial=None), {}
    for timing in ("null", "shown"):
        try:
            timed = problem if timing == "null" else problem.showing_initial()
        except ValueError as e:
            found[timing] = {"undefined": str(e)}
            continue
        s = solve(timed, gap=GAP, deadline=at_most(1, SECONDS))
        m = simulate(timed, s.policy, np.random.default_rng(0), at_most(20, EPISODES))
        found[timing] = {
            "lower": s.lower,
            "upper": s.upper,
            "seconds": round(s.seconds, 2),
            "plans": len(s.policy),
            "beliefs": s.beliefs,
            "stopped": s.stopped,
            "simulated": m.mean,
            "standard_error": m.standard_error,
            "agrees": m.agrees(s.lower, s.upper),
        }
        print(name, timing, found[timing], flush=True)
    return found


def table(runs: Path) -> None:
    """Merge into pomdp_bounds.json and .md."""
    rows = {}
    for name in PROBLEMS:
        file = runs / f"{slug(name)}.json"
        if file.exists():
            rows[name] = {"known": PROBLEMS[name][1:], **read_part(file)}
    if not rows:
        return
    write_results(runs, "pomdp_bounds", rows)
    lines = [
        "| problem | known | our bounds | gap | seconds | plans | episodes (s.e.) | bounds, o_0 shown |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, r in rows.items():
        low, high = r["known"]
        known = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        n = r["null"]
        shown = r["shown"]
        later = "not defined" if "undefined" in shown else f"{shown['lower']:.4f} to {shown['upper']:.4f}"
        lines.append(
            f"| {name} | {known} | {n['lower']:.4f} to {n['upper']:.4f} | {n['upper'] - n['lower']:.4f} | "
            f"{n['seconds']:.1f} | {n['plans']:,} | {n['simulated']:.3f} ({n['standard_error']:.3f})"
            f"{'' if n['agrees'] else ' **outside**'} | {later} |"
        )
    write_page(runs, "pomdp_bounds", "\n".join(lines))


def slug(name: str) -> str:
    """The name in characters that a file may have."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)


def main() -> None:
    """Make the rows that are missing, and merge."""
    parser = options(__doc__, "pomdp_bounds")
    add_choice(parser, "--problems", PROBLEMS, "problems")
    a = parse(parser)
    for name in [] if a.table else a.problems:
        make_part(a.runs / f"{slug(name)}.json", lambda name=name: one(name))
        table(a.runs)
    table(a.runs)


if __name__ == "__main__":
    main()
