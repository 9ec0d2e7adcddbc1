"""compare.json: several policies by what logs say of them, as a page that leads with the one to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from turnwise.evaluation.pages.estimates import SURE
from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.provenance import facts_of_runs
from turnwise.evaluation.pages.run_files import read_object, read_run
from turnwise.evaluation.pages.standings import decimals_of_rows
from turnwise.evaluation.pictures.comparison import Interval, comparison_plot
from turnwise.evaluation.pictures.step_curve import Line, Steps, step_curve_plot
from turnwise.evaluation.pictures.style import number
from turnwise.run.errors import InputError

FILE, PAGE = "compare.json", "compare.html"


def compared_page(folder: Path) -> Page:
    """The page of `compare.json`, which `turnwise compare --out` writes.

    InputError, naming the file, if it is none.
    """
    path = folder / FILE
    found = read_object(path) or {}
    run = read_run(folder, folder.resolve().name)
    try:
        view = compared_view(found)
        count, logs = number(found["conversations"], 0), found["logs"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration) as error:
        raise InputError(f"{path}: expected what turnwise compare --out writes ({error!r})") from None
    values = {
        "title": "Which policy to take, by logs alone",
        "aim": f"Ask {count} conversations of {logs}, from which none of the policies has learnt, what each "
        "would earn.",
        "facts": facts_of_runs([run], path),
        "compared": view,
    }
    return Page(("estimate/compared.html",), "estimate/words.html", values, [run])


def compared_view(found: Mapping[str, Any]) -> dict[str, Any]:
    """All that the template shows."""
    rows, safe = found["rows"], found["safe"]
    logged = next(row for row in rows if row["logged"])
    known = [{"low": row["low"], "high": row["high"]} for row in (logged, safe) if row["low"] is not None]
    decimals = decimals_of_rows(known)
    step = next((row for row in rows if row["name"] == safe["name"] and not row["logged"]), None)
    return {
        "heading": "The answer",
        "sentence": _sentence(found, logged, decimals),
        "notes": _notes(found, decimals),
        "forest": _forest(rows, safe, logged, decimals),
        "rows": [_row(row, safe, decimals) for row in rows],
        "promised": any(row["promised"] is not None for row in rows),
        "whys": [(row["name"], row["why"]) for row in rows if row["why"]],
        "curve": None if step is None else _curve(step, logged, decimals),
        "warnings": [w[:1].upper() + w[1:] for w in found["warnings"]],
    }


def _sentence(found: Mapping[str, Any], logged: Mapping[str, Any], decimals: int) -> Markup:
    safe, count = found["safe"], sum(not row["logged"] for row in found["rows"])
    if not safe["t"]:
        return Markup(
            "<b>Keep the agent that you have.</b> Of {} these logs vouch for nothing that is better than its "
            "{} with certainty."
        ).format("this policy" if count == 1 else f"these {count} policies", _mean(logged, decimals))
    gain = _mean({**safe["gain"], "value": safe["gain"]["value"]}, decimals)
    who = Markup("Take <b>{}</b>").format(safe["name"])
    if safe["t"] < 1:
        who = Markup("Go <b>{:.0%}</b> of the way to <b>{}</b>").format(safe["t"], safe["name"])
    return who + Markup(". That is worth <b>{}</b>: {} more than what the logged agent earned, {}.").format(
        number(safe["value"], decimals), gain, _mean(logged, decimals)
    )


def _notes(found: Mapping[str, Any], decimals: int) -> list[str]:
    safe, first = found["safe"], found["rows"][0]
    notes = []
    if 0 < safe["t"] < 1:
        notes.append(
            "At each turn the policy chooses with that probability, and the logged agent otherwise."
            if found["way"] == "mixed"
            else "At each turn it draws from the geometric mean of the policy and the logged agent."
        )
    if safe.get("run"):
        run = safe["as_run"]
        what = run["of"] if run["t"] == 1 else f"{run['t']:.0%} of the way from a clone to {run['of']}"
        notes.append(f"What can talk is in {safe['run']}: {what}, worth {_mean(run['worth'], decimals)}.")
    notes += [note[:1].upper() + note[1:] + "." for note in safe.get("notes", [])]
    if not first["logged"] and first["sure"] != "vouch":
        notes.append(
            f"{first['name']} has the highest number, {number(first['value'], decimals)}, and nothing "
            "vouches for that."
        )
    return notes


def _forest(
    rows: Sequence[Mapping[str, Any]], safe: Mapping[str, Any], logged: Mapping[str, Any], decimals: int
) -> list[Markup]:
    """The safe step and all candidates, the best first, with the logged agent as a line: wide and narrow."""
    drawn = [
        Interval(
            row["name"],
            row["value"],
            row["low"],
            row["high"],
            best=safe["t"] == 1 and row["name"] == safe["name"],
            sure=row["sure"] == "vouch",
        )
        for row in rows
        if not row["logged"] and row["value"] is not None
    ]
    if 0 < safe["t"] < 1:
        name = f"{safe['t']:.0%} of the way to {safe['name']}"
        drawn.insert(0, Interval(name, safe["value"], safe["low"], safe["high"], best=True))
    if not drawn:
        return []
    line = [Interval("logged agent", logged["value"], logged["low"], logged["high"])]
    return [
        comparison_plot(drawn, line, score="return of a conversation", decimals=decimals, narrow=narrow,
                        key="compared")
        for narrow in (False, True)
    ]  # fmt: skip


def _row(row: Mapping[str, Any], safe: Mapping[str, Any], decimals: int) -> dict[str, Any]:
    known, gain = row["value"] is not None, row["gain"]
    return {
        "name": row["name"],
        "reference": row["logged"],
        "safe": row["name"] == safe["name"] and (bool(safe["t"]) or row["logged"]),
        "worth": _mean(row, decimals) if known else "no number",
        "gain": "" if row["logged"] or gain["value"] is None else _mean(gain, decimals, signed=True),
        "best": f"{row['best']:.0%}",
        "worse": "" if row["logged"] else f"{row['worse']:.0%}",
        "sure": "" if row["logged"] else SURE[row["sure"]],
        "reached": "" if row["logged"] else f"{row['reached'] or 0:.0%}",
        "promised": "" if row["promised"] is None else _mean(row["promised"], decimals),
    }


def _curve(row: Mapping[str, Any], logged: Mapping[str, Any], decimals: int) -> list[Markup] | None:
    """Steps towards the policy that the safe choice goes to."""
    steps = [x for x in row["steps"] if x["value"] is not None]
    if len(steps) < 2:
        return None
    t, values, low, high = (tuple(x[key] for x in steps) for key in ("t", "value", "low", "high"))
    vouched = tuple(bool(x["vouched"]) for x in steps)
    drawn = Steps(Line(t, values, low, high), vouched, row["reached"], logged["value"], None, None)
    return [step_curve_plot(drawn, decimals, narrow=narrow) for narrow in (False, True)]


def _mean(row: Mapping[str, Any], decimals: int, *, signed: bool = False) -> str:
    value = number(row["value"], decimals, signed=signed)
    if row["low"] is None or row["high"] is None:
        return value
    low, high = (number(row[end], decimals, signed=signed) for end in ("low", "high"))
    return f"{value} ({low} to {high})"
