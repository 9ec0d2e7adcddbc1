"""Reading a `.pomdp` file of RockSample[7,8]'s size: 12,545 states, 13 actions, 18.6 MB of text.

    python benchmarks/parsing.py [--json FILE]

The file is written from the built-in problem into a temporary folder and read in a process of its own. Memory
is the process's peak minus its peak after the imports (Linux).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from turnwise.envs.problems.classics import CLASSICS
from turnwise.exact.files.write import write_pomdp

READ = """
import re, sys, time
from turnwise.exact.files.pomdp import read_pomdp
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before, began = peak(), time.perf_counter()
problem = read_pomdp(sys.argv[1])
print(time.perf_counter() - began, peak() - before, *problem.shape)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rock-sample-7-8.pomdp"
        write_pomdp(CLASSICS["rock-sample-7-8"](), file)
        size = file.stat().st_size / 1e6
        done = subprocess.run(
            [sys.executable, "-c", READ, str(file)], capture_output=True, text=True, check=True
        )
    seconds, megabytes, *shape = (float(x) for x in done.stdout.split())
    found = {"file_mb": size, "seconds": seconds, "mb_above_imports": megabytes, "shape": shape}
    print(f"{size:.1f} MB of text, {shape[0]:,.0f} states: {seconds:.1f} s, {megabytes:.0f} MB above imports")
    if a.json is not None:
        a.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
