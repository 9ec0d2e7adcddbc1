"""The page of a POMDP learnt from episodes: what its plan is worth, and how well it predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.provenance import facts_of_runs
from turnwise.evaluation.pages.run_files import RunFiles, read_object
from turnwise.evaluation.pages.solutions.figures import bounds
from turnwise.evaluation.pages.training import training_view
from turnwise.evaluation.pictures.style import as_given, number
from turnwise.run import outwards
from turnwise.run.errors import InputError

_PARTS = ("world/answer.html", "curves.html")
DECIMALS = 4


def world_page(run: RunFiles) -> Page:
    """What the plan earned and was promised, the best that is known, and the model beside other predictors.

    InputError, naming the folder, for files that no run writes.
    """
    result, env = read_object(run.folder / "result.json"), str((run.config or {}).get("env"))
    try:
        values = {
            "title": f"{run.algorithm.title} in {env}",
            "aim": f"Learn a model of {env} from random episodes, and plan in it.",
            "facts": facts_of_runs([run], run.folder / "config.yaml", env),
            "answer": None if result is None else _answer(result, run.evaluation),
            "folder": str(run.folder),
            "measured": run.evaluation is not None,
            "predictors": [] if result is None else _predictors(result),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{run.folder}: expected what turnwise train and evaluate write ({error})") from None
    shown = {"id": "r0", "title": run.name, "folder": run.folder.name, "there": True, **training_view(run)}
    return Page(_PARTS, "world/words.html", {**values, "runs": [shown]}, [run])


def _answer(result: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    worth = {row["role"]: row for row in result["worth"]}
    earned = evaluation if evaluation is not None and evaluation["same_env"] else worth["true"]
    promised, solved = worth["predicted"], result["bounds"]
    rows = [
        ("this plan, in the environment", *_figure(earned)),
        ("this plan, in models of the episodes: its promise", *_figure(promised)),
    ]
    if evaluation is not None and evaluation["same_env"]:
        rows.append(("random actions", *_figure(evaluation["random"])))
        rows += [(name, value, "") for name, value in _best(evaluation["truth"])]
    rows.append(
        (
            "bounds of the plan’s value in the model that it was made in",
            " to ".join(bounds(solved["lower"], solved["upper"])),
            "",
        )
    )
    over = promised["mean"] - earned["mean"]
    return {
        "earned": _figure(earned),
        "promised": _figure(promised),
        "over": number(over, DECIMALS, signed=True),
        "states": result["states"],
        "episodes": number(result["episodes"], 0),
        "rows": rows,
    }


def _best(truth: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of the environment's best; bounds are rounded outwards."""
    names = {
        "lower": "best policy with memory, at least",
        "upper": "best policy with memory, at most",
        "stochastic": "best stochastic policy without memory that was found",
        "maximum": "maximum",
    }
    moved = {"lower": outwards.down, "upper": outwards.up}
    return [
        (name, as_given(moved[key](truth[key], 4) if key in moved else truth[key]))
        for key, name in names.items()
        if truth.get(key) is not None
    ]


def _figure(row: Mapping[str, Any]) -> tuple[str, str]:
    """(mean, interval), as people read them."""
    mean = number(row["mean"], DECIMALS)
    if row.get("low") is None:
        return mean, ""
    return mean, f"{number(row['low'], DECIMALS)} to {number(row['high'], DECIMALS)}"


def _predictors(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(who, nats per symbol, standard error), the best one first."""
    found = sorted(result["nats_per_symbol"].items(), key=lambda each: each[1]["mean"])
    return [(name, number(x["mean"], DECIMALS), number(x["standard_error"], DECIMALS)) for name, x in found]
