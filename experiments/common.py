"""What all experiments share: their options, parts that are made once, and results beside the script.

An experiment consists of parts: one run, one row of its table. Each part is a JSON file in the folder of
runs. A part that is there is not made again, so an experiment that was stopped goes on where it was.
`--table` makes no part. It merges those that are there into NAME.json, NAME.md and NAME.svg beside the
script.

With TURNWISE_REHEARSAL=1 runs are tiny. Their results mean nothing: they are written into a folder among the
runs, and no committed result changes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from turnwise.recipes.tasks import Task
from turnwise.run.files.lock import has_ended
from turnwise.run.folder import write_text
from turnwise.run.rehearsal import at_most, rehearsing

HERE = Path(__file__).parent
DATA = Path(os.environ.get("TURNWISE_DATA", HERE.parents[1] / "shared" / "data"))
"""data sets that are not part of the repository"""


def options(doc: str | None, name: str) -> argparse.ArgumentParser:
    """The options of every experiment; its docstring is the help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs") / name, help="folder of runs and parts")
    parser.add_argument("--table", action="store_true", help="make nothing, merge the parts that are there")
    return parser


def add_choice(parser: argparse.ArgumentParser, flag: str, known: Iterable[str], help: str) -> None:
    """An option that takes some of the known names; by default all of them."""
    names = list(known)
    parser.add_argument(flag, nargs="+", default=names, choices=names, metavar="NAME", help=help)


def add_seeds(parser: argparse.ArgumentParser, *default: int) -> None:
    """Seeds, one run each."""
    parser.add_argument("--seeds", nargs="+", type=int, default=list(default), help="one run each")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options of this call; the folder of runs exists afterwards, and PyTorch has one thread."""
    a = parser.parse_args()
    torch.set_num_threads(1)
    a.runs.mkdir(parents=True, exist_ok=True)
    return a


def trained(config: Any, data: Any, out: Path, **settings: Any) -> Path:
    """The run `out` with these settings: made, gone on with if it was stopped, or there."""
    if not has_ended(out):
        from turnwise.recipes.training.fit import fit

        fit(config, data, out=out, resume=(out / "config.yaml").exists(), **settings)
    return out


def logs_of(task: Task, n: int, seed: int, file: Path) -> Path:
    """Logged conversations of a task, written once."""
    if not file.exists():
        from turnwise.data.files.writing import write_jsonl

        file.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(file, task.rows(at_most(60, n), seed))
    return file


def make_part(file: Path, make: Callable[[], Any]) -> Any:
    """Make a part and write it, unless its file is there: then None."""
    if file.exists():
        return None
    began = time.monotonic()
    found = make()
    write_text(file, json.dumps(found) + "\n")
    print(f"{file}: {time.monotonic() - began:.0f} s", flush=True)
    return found


def read_part(file: Path) -> Any:
    """What `make_part` wrote."""
    return json.loads(file.read_text(encoding="utf-8"))


def read_truths_and_rows(runs: Path) -> tuple[dict[str, Any], list[Any]]:
    """Parts named truth-PROBLEM, by problem, and all other parts, in the order of their files' names."""
    files = sorted(runs.glob("*.json"))
    truths = {f.stem.removeprefix("truth-"): read_part(f) for f in files if f.name.startswith("truth-")}
    return truths, [read_part(f) for f in files if not f.name.startswith("truth-")]


def story_of(doc: str | None) -> str:
    """The docstring of an experiment without its title and its usage: the text of its page."""
    return (doc or "").split("\n\n", 2)[2].strip()


def write_results(runs: Path, name: str, results: Any) -> None:
    """NAME.json."""
    write_text(_place(runs, f"{name}.json"), json.dumps(results, indent=1) + "\n")


def write_page(runs: Path, name: str, text: str) -> None:
    """NAME.md."""
    write_text(_place(runs, f"{name}.md"), text + "\n")


def pyplot() -> Any:
    """Matplotlib, drawing SVG in which nothing depends on the day."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "turnwise"
    import matplotlib.pyplot as plt

    return plt


def write_figure(runs: Path, name: str, figure: Any) -> None:
    """NAME.svg; closes the figure."""
    figure.savefig(_place(runs, f"{name}.svg"), metadata={"Date": None})
    pyplot().close(figure)


def _place(runs: Path, file: str) -> Path:
    """Beside the script; in a rehearsal among the runs."""
    folder = runs / "results" if rehearsing() else HERE
    folder.mkdir(exist_ok=True)
    return folder / file
