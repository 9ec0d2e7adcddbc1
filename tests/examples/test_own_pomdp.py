from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_pomdp.py"


def test_the_example_prints_what_looking_is_worth() -> None:
    """Without a test: treat -.7 * 20 + .3 * 10 = -11, send home .7 * 5 - .3 * 30 = -5.5, the better one.

    One test, then treat if positive (.07 well, .24 ill) and send home if negative (.63, .06):
    -1 + .99 (-.07 * 20 + .24 * 10 + .63 * 5 - .06 * 30) = 1.3265, which the best policy must reach.
    """
    out = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, check=True, timeout=300)
    lower, upper, blind, worth = (float(x) for x in re.findall(r"-?\d+\.\d+", out.stdout))
    assert blind == -5.5
    assert 1.3265 <= lower <= upper <= lower + 0.0015
    assert abs(worth - (lower - blind)) <= 0.001
    assert len(EXAMPLE.read_text().splitlines()) <= 40
