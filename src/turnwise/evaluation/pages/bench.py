"""bench.json: methods on tasks as a page, a picture and a table for each task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.provenance import facts_of_runs
from turnwise.evaluation.pages.run_files import read_object, read_run
from turnwise.evaluation.pictures.comparison import Interval, comparison_plot
from turnwise.evaluation.pictures.style import number
from turnwise.run.errors import InputError

FILE = "bench.json"


def bench_page(folder: Path) -> Page:
    """The page of `bench.json`, which `turnwise bench` writes. InputError, naming the file, if it is none."""
    path = folder / FILE
    found = read_object(path) or {}
    run = read_run(folder, folder.resolve().name)
    try:
        columns = [_column(x, i) for i, x in enumerate(found["columns"])]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: expected what turnwise bench writes ({error!r})") from None
    values = {
        "title": "Methods on tasks",
        "aim": "What each method makes of the same logs, or of live talk, in conversations with the task "
        "itself, beside the policy that wrote the logs and the best possible one. All settings are defaults.",
        "facts": facts_of_runs([run], path),
        "columns": columns,
    }
    return Page(("bench.html",), "words.html", values, [run])


def _column(x: Mapping[str, Any], index: int) -> dict[str, Any]:
    """A task: its picture, and a row for each method, the best first."""
    done = sorted((row for row in x["rows"] if "failed" not in row), key=lambda row: -row["mean"])
    names = {id(row): f"{row['title']} per {row['per']}" for row in x["rows"]}
    drawn = [Interval(names[id(row)], row["mean"], row["low"], row["high"], best=k == 0)
             for k, row in enumerate(done)]  # fmt: skip
    ends = (("behaviour", "logged policy"), ("optimum", "optimum"))
    known = [Interval(word, x[key], None, None) for key, word in ends if x[key] is not None]
    plots = [
        comparison_plot(drawn, known, score="mean return", decimals=3, narrow=narrow, key=f"bench{index}")
        for narrow in ((False, True) if drawn else ())
    ]
    return {
        "id": f"t{index}",
        "name": x["words"],
        "conversations": number(x["conversations"], 0),
        "known": [f"{word} {number(x[key], 3)}" for key, word in ends if x[key] is not None],
        "plots": plots,
        "rows": [
            {
                "name": names[id(row)],
                "mean": f"{number(row['mean'], 3)} ({number(row['low'], 3)} to {number(row['high'], 3)})",
                "share": "" if row["share"] is None else f"{row['share']:.0%}",
                "seeds": len(row["seeds"]),
                "talks": number(row["talks"], 0) if row["talks"] else "none",
                "seconds": number(row["seconds"], 0),
            }
            for row in done
        ],
        "failed": [f"{names[id(row)]}: {row['failed']}" for row in x["rows"] if "failed" in row],
    }
