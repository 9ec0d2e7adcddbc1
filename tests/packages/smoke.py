"""Whether an installed Turnwise works far from its repository: `make package` runs this, all fresh.

    cd anywhere && PYTHON smoke.py [REPOSITORY]

It must be run by the Python that Turnwise is installed for. Each command is one of a newcomer's first. With
`REPOSITORY`, what is imported must not come from there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SMALL = ("--width", "16", "--layers", "1", "--heads", "2", "--context", "64", "--vocab", "300")


def turnwise(*words: str) -> dict:
    """The result of a command, as a script gets it."""
    program = Path(sys.executable).with_name("turnwise")
    done = subprocess.run([program, *words, "--json"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"turnwise {' '.join(words)} exited with {done.returncode}:\n{done.stderr[-3000:]}")
    print(f"turnwise {' '.join(words)}")
    return json.loads(done.stdout)


def names(repository: str) -> None:
    """Every public name is there, from where it was installed."""
    import turnwise as tw

    place = Path(tw.__file__).resolve()
    if repository and place.is_relative_to(Path(repository).resolve()):
        raise SystemExit(f"turnwise is imported from {place}, which is the repository")
    for name in tw.__all__:
        assert getattr(tw, name) is not None, name
    print(f"{len(tw.__all__)} names of turnwise {tw.__version__} from {place.parent}")


def main() -> None:
    names(sys.argv[1] if len(sys.argv) > 1 else "")
    os.environ["TURNWISE_REHEARSAL"] = "1"  # a few steps each: that it works, not what comes of it
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        help = subprocess.run(
            [sys.executable, "-m", "turnwise.cli", "--help"], capture_output=True, text=True
        )
        assert help.returncode == 0 and "train" in help.stdout, help
        turnwise("data", "make", "--task", "helpdesk", "--conversations", "40", "--out", "logs.jsonl")
        card = turnwise("data", "check", "--logs", "logs.jsonl")
        assert card["conversations"] > 0 and card["return"] is not None
        turnwise("train", "bc", "--logs", "logs.jsonl", "--out", "bc", *SMALL)
        turnwise("train", "ilql", "--logs", "logs.jsonl", "--policy", "bc", "--out", "ilql")
        found = turnwise("evaluate", "ilql")
        assert found, "a result"
        assert (Path("ilql") / "report.html").stat().st_size > 10_000, "a page with its styles"
        turnwise("train", "ppo", "tiger", "--out", "ppo")
        assert turnwise("solve", "tiger"), "a result"
    print("all of it works")


if __name__ == "__main__":
    main()
