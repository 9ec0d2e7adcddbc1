"""A step towards a policy, as the head of its page (step.json): what talks, and its worth by the logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.run_files import RunFiles, read_object
from turnwise.evaluation.pages.standings import decimals_of_rows
from turnwise.evaluation.pictures.style import number
from turnwise.run.errors import InputError

FILE = "step.json"
PART = "estimate/step.html"
OF_TALK = ("logs/result.html", "logs/conversations.html")
"""what is shown of one that has talked; nothing was trained, so that there are no curves"""


def with_step(page: Page, run: RunFiles) -> Page:
    """The page of a run, led by what the step is; as it was if there is no step.json.

    InputError, naming the file, if it is none.
    """
    path = run.folder / FILE
    found = read_object(path)
    if found is None:
        return page
    try:
        view = step_view(found)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: expected what a safe step is written with ({error!r})") from None
    talked = run.evaluation is not None
    parts = [p for p in page.parts if p.startswith("estimate/") or (talked and p in OF_TALK)]
    values = {**page.values, "title": run.algorithm.title, "aim": None, "step": view}
    return replace(page, parts=(PART, *parts), values=values)


def step_view(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows."""
    worth, now = found["worth"], found["now"]
    decimals = decimals_of_rows(
        [{"low": r["low"], "high": r["high"]} for r in (worth, now) if r["low"] is not None]
    )
    mixed = found["way"] == "mixed"
    if found["t"] == 1:
        who = Markup("This is <b>{}</b>, taken as it is.").format(found["of"])
    elif mixed:
        who = Markup(
            "A coin is tossed at each turn: at <b>{:.0%}</b> of them {} chooses, at the others a clone of "
            "the logged agent ({})."
        ).format(found["t"], found["of"], found["clone"])
    else:
        who = Markup(
            "It goes <b>{:.0%}</b> of the way from a clone of the logged agent ({}) to {}: the geometric "
            "mean of both."
        ).format(found["t"], found["clone"], found["of"])
    said = Markup(
        "By {} conversations of {} it would earn <b>{}</b>: {} more than the logged agent’s {}."
    ).format(
        number(found["conversations"], 0),
        found["logs"],
        _mean(worth, decimals),
        _mean(worth["gain"], decimals),
        _mean(now, decimals),
    )
    notes = [note[:1].upper() + note[1:] + "." for note in found["notes"]]
    return {"who": who, "said": said, "notes": notes}


def _mean(row: Mapping[str, Any], decimals: int, *, signed: bool = False) -> str:
    value = number(row["value"], decimals, signed=signed)
    if row["low"] is None or row["high"] is None:
        return value
    low, high = (number(row[end], decimals, signed=signed) for end in ("low", "high"))
    return f"{value} ({low} to {high}, 95%)"
