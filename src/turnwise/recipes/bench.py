"""Every method on every task: one table of what each policy earns live, and what it took.

    logs of a task and a seed ──► a run for each method ──► live conversations ──► a cell of the table

A cell is a folder with a run and its evaluation. Cells that are there are not made again, so a bench of other
tasks, methods or seeds in the same folder adds to its table. All settings are the algorithms' own defaults:
nothing is tuned on the returns that the table shows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.recipes.catalogue import ALGORITHMS
from turnwise.recipes.settings.bench import METHODS, TASKS, BenchSettings
from turnwise.recipes.side_by_side import named, result_of, workers
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.lock import RESULT, has_ended, locked
from turnwise.run.folder import write_config, write_json
from turnwise.run.rehearsal import at_most

FILE, CELL = "bench.json", "cell.json"


@dataclass(frozen=True)
class Place:
    """A task as the bench has it."""

    task: str
    settings: Mapping[str, Any]
    conversations: int
    """that are logged"""


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    title: str
    per: str
    """what a decision is"""
    algorithm: str
    given: Mapping[str, Any] = field(default_factory=dict)
    """keywords of `fit`"""
    begins_with: str | None = None
    """the method whose policy it begins with"""
    live: bool = False
    """whether it learns by talking with the task"""


PLACES = dict(
    zip(
        TASKS,
        (
            Place("helpdesk", {"acts": True}, 8000),
            Place("maze", {"observed": "full", "acts": True}, 1240),
            Place("maze", {"observed": "part", "acts": True}, 1240),
            Place("twenty", {"acts": True}, 5000),
            Place("dealer", {"acts": True}, 5000),
        ),
        strict=True,
    )
)
ROWS = dict(
    zip(
        METHODS,
        (
            Method("behaviour cloning", "act", "act-bc"),
            Method("Monte-Carlo Q", "act", "act-mc"),
            Method("IQL", "act", "act-iql"),
            Method("IQL without memory", "act", "act-iql", {"memory": "none"}),
            Method("CQL", "act", "act-cql"),
            Method("plan in a learnt POMDP", "act", "pomdp"),
            Method("PPO, live, from the clone", "act", "act-ppo", {}, "act-bc", live=True),
            Method("behaviour cloning", "token", "bc"),
            Method("Monte-Carlo Q", "token", "mc", {}, "bc"),
            Method("ILQL", "token", "ilql", {}, "bc"),
            Method("IQL", "turn", "turn-iql", {}, "bc"),
            Method("PPO, live, from the clone", "token", "talk-ppo", {}, "bc", live=True),
        ),
        strict=True,
    )
)


def bench(a: BenchSettings, say: Callable[[str], None]) -> dict[str, Any]:
    """Fill the cells that are asked for and not there, and make the table of all that are: bench.json.

    `say` is told of each cell. Ctrl-C stops at a checkpoint (Interrupted), and the same call goes on.
    SettingError for a folder whose cells were made with other settings, or that holds something else.
    """
    decisive = {k: getattr(a, k) for k in ("conversations", "talks", "episodes")}
    resume = (a.out / "config.yaml").exists()
    write_config(a.out, {"algorithm": "bench", **decisive}, resume=resume)
    with locked(a.out):
        with workers(a.workers) as pool:
            homes = [(task, seed) for seed in a.seeds for task in a.tasks]
            for future in [pool.submit(_fill, task, seed, a) for task, seed in homes]:
                for text in result_of(future):
                    say(text)
        found = table_of(a.out, decisive)
        write_json(a.out / FILE, found)
        # The page would say that it has not come to its end.
        write_json(a.out / RESULT, {"algorithm": "bench"})
    return found


def _fill(task: str, seed: int, a: BenchSettings) -> list[str]:
    """All cells of a task and a seed; a line for each."""
    import torch

    torch.set_num_threads(1)
    wanted = {x for name in a.methods for x in (name, ROWS[name].begins_with) if x is not None}
    found = []
    for name in (x for x in METHODS if x in wanted):
        named(name)
        folder = a.out / task / f"seed-{seed}" / name
        if not (folder / CELL).exists():
            write_json(folder / CELL, _cell(task, seed, name, folder, a))
        found.append(f"{task}, seed {seed}: {_said(json.loads((folder / CELL).read_text('utf-8')))}")
    return found


def _cell(task: str, seed: int, name: str, folder: Path, a: BenchSettings) -> dict[str, Any]:
    """Train and measure one; what cannot be done says why."""
    from turnwise.data.files.writing import write_jsonl
    from turnwise.recipes.measuring.evaluate import evaluate
    from turnwise.recipes.tasks import find_task
    from turnwise.recipes.training.fit import fit

    place, method = PLACES[task], ROWS[name]
    world = find_task(place.task, place.settings)
    task_object = world.make(**world.settings)
    logs = folder.parent / "logs.jsonl"
    if not logs.exists():
        logs.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(logs, world.rows(at_most(60, a.conversations or place.conversations), seed))
    given = dict(method.given)
    if method.begins_with is not None:
        given["policy"] = str(folder.parent / method.begins_with)
    if not method.live:
        given["estimate"] = False  # the truth is known here
    config = ALGORITHMS[method.algorithm].config(**({"talks": a.talks} if method.live else {}))
    began, cell = time.process_time(), {"task": task, "method": name, "seed": seed}
    before = _seconds(folder)
    try:
        if not has_ended(folder):
            data: Any = task_object if method.live else str(logs)
            resume = (folder / "config.yaml").exists()
            fit(config, data, out=folder, seed=seed, resume=resume, **given)
        seconds = before + time.process_time() - began
        write_json(folder / "seconds.json", {"seconds": seconds})
        found = evaluate(folder, task_object, episodes=a.episodes, seed=seed, quiet=True).result
    except SettingError:
        raise  # of this call, and of no cell
    except InputError as error:
        return {**cell, "failed": str(error)}
    kept = {k: found[k] for k in ("mean", "low", "high", "episodes")}
    return {**cell, **kept, "talks": a.talks if method.live else 0, "seconds": round(seconds, 1)}


def _seconds(folder: Path) -> float:
    """Processor seconds of a training that ended before it was measured."""
    path = folder / "seconds.json"
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"]) if path.exists() else 0.0


def _said(cell: Mapping[str, Any]) -> str:
    title = f"{ROWS[cell['method']].title} per {ROWS[cell['method']].per}"
    if "failed" in cell:
        return f"{title}: {cell['failed']}"
    return f"{title}: {cell['mean']:.3f} ({cell['low']:.3f} to {cell['high']:.3f}), {cell['seconds']:.0f} s"


def table_of(out: Path, decisive: Mapping[str, Any]) -> dict[str, Any]:
    """The table of all cells in a folder: per task what is known of it, and a row for each method."""
    from turnwise.recipes.tasks import find_task

    cells = [json.loads(path.read_text("utf-8")) for path in sorted(out.glob(f"*/seed-*/*/{CELL}"))]
    columns = []
    for name, place in PLACES.items():
        here = [x for x in cells if x["task"] == name]
        if not here:
            continue
        world = find_task(place.task, place.settings)
        ends = world.known("behaviour"), world.known("optimum")
        rows = [_row(m, [x for x in here if x["method"] == m], *ends) for m in METHODS]
        columns.append({
            "task": name, "words": world.words, "behaviour": ends[0], "optimum": ends[1],
            "conversations": decisive["conversations"] or place.conversations,
            "rows": [row for row in rows if row is not None],
        })  # fmt: skip
    return {"columns": columns, **decisive}


def _row(
    method: str, cells: Sequence[Mapping[str, Any]], behaviour: float | None, optimum: float | None
) -> dict[str, Any] | None:
    """Cells of a method on a task as one: with one seed its interval is over conversations, with several over
    seeds (Student's)."""
    from turnwise.evaluation.measures.intervals import student_interval

    done = [x for x in cells if "failed" not in x]
    if not cells:
        return None
    found: dict[str, Any] = {"method": method, "title": ROWS[method].title, "per": ROWS[method].per}
    if not done:
        return {**found, "failed": cells[0]["failed"]}
    mean = float(np.mean([x["mean"] for x in done]))
    low, high = done[0]["low"], done[0]["high"]
    if len(done) > 1:
        low, high = student_interval(np.array([x["mean"] for x in done]))
    share = None
    if behaviour is not None and optimum is not None:
        share = (mean - behaviour) / (optimum - behaviour)
    return {
        **found, "mean": mean, "low": low, "high": high, "share": share,
        "seeds": sorted(x["seed"] for x in done), "talks": done[0]["talks"],
        "seconds": round(float(np.mean([x["seconds"] for x in done])), 1),
    }  # fmt: skip


def lines_of(found: Mapping[str, Any]) -> list[str]:
    """The table as Markdown."""
    lines: list[str] = []
    for x in found["columns"]:
        ends = ", ".join(
            f"{word} {x[key]:.3f}"
            for key, word in (("behaviour", "the logged policy earns"), ("optimum", "the best possible one"))
            if x[key] is not None
        )
        lines += [
            f"## {x['words']}",
            "",
            f"{x['conversations']:,} logged conversations; {ends}.",
            "",
            "| method | per | mean return (95%) | of the way | seeds | live talk | CPU-s |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in x["rows"]:
            if "failed" in row:
                lines.append(f"| {row['title']} | {row['per']} | not done: {row['failed']} | | | | |")
                continue
            worth = f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
            share = "" if row["share"] is None else f"{row['share']:.0%}"
            seeds, talks = " ".join(map(str, row["seeds"])), row["talks"] or ""
            about = (row["title"], row["per"], worth, share, seeds, talks, f"{row['seconds']:.0f}")
            lines.append(f"| {' | '.join(map(str, about))} |")
        lines.append("")
    return lines
