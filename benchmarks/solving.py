"""The solver beside APPL's SARSOP (C++), in one run on one thread.

    python benchmarks/solving.py --appl PATH/TO/pomdpsol [--seconds 60] [--at 30] [--json FILE]

APPL (https://github.com/AdaCompNUS/sarsop) is built outside of this repository; it prints bounds as it goes.
Each problem is solved by APPL and then by ours for `seconds`. Both intervals at the end are printed, and how
long ours takes to reach the gap that APPL had after `at` seconds. Both read the same file, in which an
absorbing state takes the place of ends; no clock counts the reading. Compiled kernels are loaded before the
clock starts, as APPL is compiled before. Without APPL there is nothing to compare with, and nothing runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import CLASSICS
from turnwise.envs.rows import Rows
from turnwise.exact.files.pomdp import read_pomdp
from turnwise.exact.files.write import write_pomdp
from turnwise.exact.sarsop.solve import solve

DATA = Path(os.environ.get("TURNWISE_DATA", Path(__file__).parents[2] / "shared" / "data")) / "pomdp"
PROBLEMS = {
    "tiger-grid": "tiger-grid.POMDP",
    "Tag": "tag.POMDP.gz",
    "RockSample[5,5]": "RockSample_5_5.POMDP.gz",
    "Hallway": "hallway.original.pomdp",
    "Hallway, ends at the goal": "hallway.pomdp",
    "RockSample[7,8]": "rock-sample-7-8",
}
ROW = re.compile(r"^\s*([\d.]+)\s+\d+\s+\d+\s+(-?[\d.]+)\s+(-?[\d.]+)\s+([\d.]+)\s+\d+\s+\d+", re.M)


def endless(problem: POMDP) -> POMDP:
    """The same problem with plain names and no ends: they lead to a state that is never left and pays 0."""
    S, A, O = problem.shape
    states, actions = tuple(f"s{i}" for i in range(S)), tuple(f"a{i}" for i in range(A))
    seen = tuple(f"o{i}" for i in range(O))
    problem = replace(problem, states=states, actions=actions, observations=seen)
    if not problem.episodic:
        return problem
    t, e = problem.transitions, problem.emissions
    row, column = t.of_entries(), np.where(problem.ends, S, t.indices)
    last = np.arange(A) * (S + 1) + S
    rows = np.append(row + row // S, last)
    columns, data = np.append(column, np.full(A, S)), np.append(t.data, np.ones(A))
    pay = np.append(problem.rewards, np.zeros(A))
    places, at = np.unique(rows * (S + 1) + columns, return_inverse=True)  # several ends of a row are one now
    mass = np.minimum(np.bincount(at, data), 1.0)
    mean = np.bincount(at, data * pay) / np.where(mass > 0, mass, 1)
    transitions = Rows.from_entries(places // (S + 1), places % (S + 1), mass, (A * (S + 1), S + 1))
    place = e.of_entries()
    emissions = Rows.from_entries(
        np.append(place + place // S, last),
        np.append(e.indices, np.zeros(A)),
        np.append(e.data, np.ones(A)),
        (A * (S + 1), e.width),
    )
    return replace(
        problem,
        states=(*states, "end"),
        start=np.append(problem.start, 0.0),
        transitions=transitions,
        emissions=emissions,
        rewards=mean,
        ends=transitions.indices == S,
        seen_rewards=None,
        initial=None,
    )


def appl(binary: Path, file: Path, seconds: float) -> list[tuple[float, ...]]:
    """Rows of (seconds, lower, upper, gap)."""
    command = [
        str(binary),
        "--timeout",
        str(seconds),
        "--precision",
        "1e-3",
        "--output",
        "/dev/null",
        str(file),
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = [tuple(float(x) for x in row) for row in ROW.findall(said)]
    if not rows:
        raise SystemExit(f"{binary} printed no bounds:\n{said[-2000:]}")
    return rows


def measure(name: str, a: argparse.Namespace) -> dict[str, object]:
    """One problem, by both solvers."""
    source = PROBLEMS[name]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "problem.pomdp"
        write_pomdp(endless(CLASSICS[source]() if source in CLASSICS else read_pomdp(a.data / source)), file)
        problem = read_pomdp(file)
        theirs = appl(a.appl, file, a.seconds)
    trace: list[tuple[float, float, float]] = []
    solve(problem, gap=1e9)  # load what is compiled
    found = solve(problem, gap=1e-3, deadline=a.seconds, progress=lambda *row: trace.append(row))
    trace.append((found.seconds, found.lower, found.upper))
    wanted = [gap for seconds, _, _, gap in theirs if seconds <= a.at][-1]
    there = [seconds for seconds, lower, upper in trace if upper - lower <= wanted]
    _, lower, upper, gap = theirs[-1]
    return {
        "problem": name,
        "appl": [lower, upper],
        "ours": [found.lower, found.upper],
        "gap_ratio": found.gap / gap,
        "appl_gap_then": wanted,
        "seconds_to_that_gap": there[0] if there else None,
        "time_ratio": there[0] / a.at if there else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--appl", type=Path, help="APPL's pomdpsol")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of problems")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each solver")
    parser.add_argument("--at", type=float, default=30.0, help="when APPL's gap is taken as the goal of ours")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    if a.appl is None:
        print("solving: nothing to compare with; give APPL's pomdpsol by --appl PATH")
        return
    results = []
    for name in a.problems:
        r = measure(name, a)
        results.append(r)
        there = "not reached" if r["time_ratio"] is None else f"{r['seconds_to_that_gap']:.1f} s"
        share = "" if r["time_ratio"] is None else f", {r['time_ratio']:.2f} of its time"
        print(
            f"{name}\n  after {a.seconds:g} s: APPL {r['appl'][0]:.4f} to {r['appl'][1]:.4f}, ours "
            f"{r['ours'][0]:.4f} to {r['ours'][1]:.4f}: {r['gap_ratio']:.2f} of its gap\n"
            f"  ours to its gap of {a.at:g} s ({r['appl_gap_then']:.4f}): {there}{share}",
            flush=True,
        )
    if a.json is not None:
        a.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
