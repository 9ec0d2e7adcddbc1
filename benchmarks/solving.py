"""The solver beside APPL's SARSOP (C++), in one run on one thread: time to the gap that APPL has at the end.

    python benchmarks/solving.py --appl PATH/TO/pomdpsol --data FOLDER_OF_PROBLEMS [--seconds 30] [--out FILE]

APPL (https://github.com/AdaCompNUS/sarsop) is built outside of this repository; it prints bounds as it goes.
Each problem is solved by APPL for `seconds`, then by ours until it has APPL's final gap, then by ours for as
long as APPL had. APPL takes no `goals:` line and no gzip, so that it gets a plain copy. Compiled kernels are
loaded before the clock starts, as APPL is compiled before; reading the file is in nobody's time.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

from turnwise.envs.classics import CLASSICS
from turnwise.exact.pomdp_file import read_pomdp
from turnwise.exact.pomdp_write import write_pomdp
from turnwise.exact.sarsop import solve

PROBLEMS = {
    "tiger-grid": "tiger-grid.POMDP",
    "Tag": "tag.POMDP.gz",
    "RockSample[5,5]": "RockSample_5_5.POMDP.gz",
    "Hallway": "hallway.original.pomdp",
}
ROW = re.compile(r"^\s*([\d.]+)\s+\d+\s+\d+\s+(-?[\d.]+)\s+(-?[\d.]+)\s+([\d.]+)\s+\d+\s+\d+", re.M)


def plain(source: Path, folder: Path) -> Path:
    """A copy that APPL reads."""
    read = gzip.decompress if source.suffix == ".gz" else bytes
    text = read(source.read_bytes()).decode()
    target = folder / "problem.pomdp"
    target.write_text("\n".join(x for x in text.splitlines() if not x.startswith("goals:")) + "\n")
    return target


def appl(binary: Path, file: Path, seconds: float) -> tuple[float, float, float, float]:
    """(seconds, lower, upper, gap) of its last row."""
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
    rows = ROW.findall(said)
    if not rows:
        raise SystemExit(f"{binary} said nothing that could be read:\n{said[-2000:]}")
    t, lower, upper, gap = (float(x) for x in rows[-1])
    return t, lower, upper, gap


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--appl", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pomdp"))
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=[*PROBLEMS, *CLASSICS])
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    if a.appl is None:
        print("solving: no --appl PATH given, nothing to compare with")
        return
    results = []
    for name in a.problems:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name in CLASSICS:
                problem, file = CLASSICS[name](), Path(folder) / "problem.pomdp"
                write_pomdp(problem, file)
                file = plain(file, Path(folder))
            else:
                source = a.data / PROBLEMS[name]
                problem, file = read_pomdp(source), plain(source, Path(folder))
            t, lower, upper, gap = appl(a.appl, file, a.seconds)
        began = time.perf_counter()
        same = solve(problem, gap=gap, deadline=2 * a.seconds)
        ours = time.perf_counter() - began
        full = solve(problem, gap=1e-3, deadline=t)
        row = {
            "problem": name, "appl_seconds": t, "appl": [lower, upper], "appl_gap": gap,
            "seconds_to_that_gap": ours, "time_ratio": ours / t, "reached": same.gap <= gap,
            "ours_after_as_long": [full.lower, full.upper], "gap_ratio": full.gap / gap,
        }  # fmt: skip
        results.append(row)
        there = "" if row["reached"] else ", NOT REACHED"
        print(
            f"{name}: APPL {t:.1f} s, {lower:.4f} to {upper:.4f}, gap {gap:.4f}\n"
            f"  ours to that gap: {ours:.1f} s, {ours / t:.2f} of its time{there}\n"
            f"  ours after {full.seconds:.1f} s: {full.lower:.4f} to {full.upper:.4f}, gap {full.gap:.4f}, "
            f"{full.gap / gap:.2f} of its gap",
            flush=True,
        )
    if a.out is not None:
        a.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
