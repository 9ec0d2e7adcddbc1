"""Limited memory: what a POMDP is worth without memory, with a coin, and with one bit, beside other searches.

    python experiments/limited_memory.py                       all problems (minutes on one core), resumable
    python experiments/limited_memory.py --problems 4x4 cheese   some of them
    python experiments/limited_memory.py --table               merge what is there into .json and .md

`det` is the best deterministic memoryless policy, by enumeration (exact). `stochastic` and `two memories` are
the best that ascent along exact gradients finds from several hundred starts, so they are lower bounds. The
share is that of the starts that end within .001 of the best: it says how easily the best is found. In the
timing `null` nothing is seen before the first action (Cassandra's timing), in `shown` the first observation
is (Gymnasium's). The values beside ours (`earlier`) come from an independent program with 24 and 12 starts.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from common import add_choice, make_part, options, parse, read_part, write_page, write_results
from problems import read_problem

from turnwise.envs.pomdp import POMDP
from turnwise.exact.controller_search import (
    Best,
    best_controller,
    best_deterministic_memoryless,
    best_stochastic_memoryless,
)
from turnwise.run.errors import InputError
from turnwise.run.rehearsal import at_most

SEED, STARTS, SECONDS = 0, {1: 100, 2: 400}, 90.0
Row = tuple[float | None, float | None, float | None]
PROBLEMS: dict[str, tuple[str, float | None, dict[str, Row]]] = {
    # name: file, optimum with nothing shown, timing -> earlier values (det, stochastic, two memories)
    "4x4": (
        "4x4.pomdp",
        3.7323,
        {"null": (0.5167, 3.1586, 3.7323), "shown": (0.2296, 3.1539, 3.7323)},
    ),
    "cheese": (
        "cheese.95.POMDP",
        3.4862,
        {"null": (None, 2.0612, 3.4862), "shown": (0.5577, 2.0792, 3.5529)},
    ),
    "4x3": (
        "4x3.95.POMDP",
        1.8899,
        {"null": (0.4416, 0.7362, 1.0467), "shown": (0.4162, 0.7784, 1.1520)},
    ),
    "loadunload": (
        "loadunload.pomdp",
        4.5633,
        {"null": (0.7717, 1.3993, 4.5633), "shown": (0.6339, 1.4063, 4.6072)},
    ),
    "1d": ("1d.POMDP", 1.2603, {"null": (0.9535, 1.0448, 1.1465), "shown": (0.8140, 1.0248, 1.1284)}),
    "shuttle": (
        "shuttle.95.POMDP",
        32.8897,
        {"null": (18.9234, 18.9234, 31.8652), "shown": (18.9234, 18.9234, 31.8652)},
    ),
    "parr95": (
        "parr95.95.POMDP",
        7.2010,
        {"null": (6.3278, 6.3278, 6.4768), "shown": (6.3278, 6.3278, 6.4768)},
    ),
    "tiger.95": ("tiger.95.POMDP", 19.3714, {"null": (-20.0, -20.0, -13.8306)}),
    "tiger.aaai": ("tiger.aaai.POMDP", 1.9334, {"null": (-4.0, -4.0, -2.9183)}),
    "tmaze2": (
        "episodic/tmaze2.POMDP",
        2.6244,
        {"null": (1.42155, 1.42155, 2.6244), "shown": (1.4580, 1.4580, 2.9160)},
    ),
    "tmaze5": (
        "episodic/tmaze5.POMDP",
        1.91319,
        {"null": (1.03631, 1.03631, 1.91319), "shown": (1.06288, 1.06288, 2.12576)},
    ),
    "network": (
        "episodic/network.POMDP",
        34.53,
        {"null": (25.6073, 25.6073, 34.3935), "shown": (7.2007, 7.8127, 28.59)},
    ),
    "mini-hall2": (
        "mini-hall2.POMDP",
        2.7143,
        {"null": (None, 2.5619, None), "shown": (2.6710, 2.6710, 2.8298)},
    ),
    "paint": ("paint.95.POMDP", 3.2936, {"null": (0.3308, 0.3479, 1.6252)}),
    "heavenhell": (
        "episodic/heavenhell.POMDP",
        0.9044,
        {"null": (None, 0.2667, None), "shown": (None, 0.2049, None)},
    ),
    "corridor": ("", None, {"shown": (-np.inf, -(6 + 4 * 2**0.5), None)}),
}


def corridor() -> POMDP:
    """Sutton & Barto, example 13.1: left and right, swapped in the middle cell; -1 per step, undiscounted."""
    t = np.zeros((2, 4, 4))
    t[0, [0, 1, 2, 3], [0, 2, 1, 3]] = 1
    t[1, [0, 1, 2, 3], [1, 0, 3, 3]] = 1
    return POMDP.from_arrays(
        t,
        np.ones((2, 4, 1)),
        np.full((2, 4), -1.0),
        discount=1,
        start=np.eye(4)[0],
        ends=np.arange(4) == 3,
        name="corridor",
    )


def load(name: str, timing: str) -> POMDP:
    """The problem in one of the two timings."""
    problem = read_problem(PROBLEMS[name][0]) if PROBLEMS[name][0] else corridor()
    return problem.showing_initial() if timing == "shown" else problem


def summary(best: Best, seconds: float) -> dict[str, Any]:
    """The value that a search found, from how many starts, and which share of them found it."""
    share = float(np.mean(np.array(best.values) > best.value - 1e-3))
    value = best.value if np.isfinite(best.value) else None
    return {"value": value, "starts": len(best.values), "share": share, "seconds": round(seconds, 1)}


def one_problem(name: str, timing: str) -> dict[str, Any]:
    """All three columns of one row."""
    problem = load(name, timing)
    row: dict[str, Any] = {"name": name, "timing": timing, "shape": problem.shape}
    at = time.monotonic()
    try:
        row["det"] = summary(best_deterministic_memoryless(problem), time.monotonic() - at)
    except InputError as error:
        row["det"] = {"refused": str(error)}
    at = time.monotonic()
    starts = {k: at_most(4, n) for k, n in STARTS.items()}
    drawn = best_stochastic_memoryless(problem, np.random.default_rng(SEED), starts[1], seconds=SECONDS)
    row["stochastic"] = summary(drawn, time.monotonic() - at)
    at = time.monotonic()
    two = best_controller(problem, 2, np.random.default_rng(SEED), starts[2], seconds=SECONDS)
    row["two"] = summary(two, time.monotonic() - at)
    return row


def table(runs: Path) -> None:
    """Merge every finished row into limited_memory.json and limited_memory.md."""
    rows = []
    lines = [
        "| problem | timing | det | earlier | stochastic | earlier | share | two memories | earlier | share "
        "| optimum, nothing shown | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (_, optimum, timings) in PROBLEMS.items():
        for timing, earlier in timings.items():
            file = runs / f"{name}-{timing}.json"
            if not file.exists():
                continue
            row = read_part(file)
            found = [row[k] for k in ("det", "stochastic", "two")]
            kept = [None if e is None or not np.isfinite(e) else e for e in earlier]
            rows.append({**row, "earlier": kept, "optimum": optimum})
            cells = [name, timing]
            for column, (ours, theirs) in enumerate(zip(found, earlier, strict=True)):
                value = "too many" if "refused" in ours else "-inf" if ours["value"] is None else None
                cells += [value or f"{ours['value']:.4f}", "" if theirs is None else f"{theirs:.4f}"]
                cells += [f"{ours['share']:.0%}"] if column else []
            cells.append("" if optimum is None else f"{optimum:.4f}")
            cells.append(f"{sum(f.get('seconds', 0) for f in found):.0f}")
            lines.append("| " + " | ".join(cells) + " |")
    if rows:
        write_results(runs, "limited_memory", rows)
        write_page(runs, "limited_memory", "\n".join(lines))


def main() -> None:
    """Make the rows that are missing, and merge."""
    parser = options(__doc__, "limited_memory")
    add_choice(parser, "--problems", PROBLEMS, "problems")
    a = parse(parser)
    for name in [] if a.table else a.problems:
        for timing in PROBLEMS[name][2]:
            make_part(
                a.runs / f"{name}-{timing}.json", lambda name=name, timing=timing: one_problem(name, timing)
            )
        table(a.runs)
    table(a.runs)


if __name__ == "__main__":
    main()
