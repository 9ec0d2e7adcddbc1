"""The result of a comparison: methods and references in order, as a table, a picture and a sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from turnwise.evaluation.pictures.plots import Interval, as_given, comparison_plot, number

_BASELINE = re.compile(r"bc$|behaviou?r(al)? cloning", re.IGNORECASE)


def standings(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of methods and references, best first, with the share of the gap from baseline to optimum."""
    sign = 1 if asked.get("higher_is_better", True) else -1
    blank = dict.fromkeys(("mean", "low", "high", "episodes", "success", "turns", "note"))
    rows = [{**blank, **row, "reference": False} for row in asked.get("rows", [])]
    rows += [{**blank, **row, "reference": True} for row in asked.get("references", [])]
    rows.sort(key=lambda row: (row["mean"] is None, -sign * (row["mean"] or 0)))
    scored = [row for row in rows if row["mean"] is not None]
    methods = [row for row in scored if not row["reference"]]
    references = [row for row in scored if row["reference"]]
    optimum = next((r for r in references if "optim" in r["name"].lower()), None)
    behaviour = next((r for r in references if "behavi" in r["name"].lower()), None)
    baseline = next((r for r in methods if _BASELINE.match(r["name"])), None)
    floor = baseline or behaviour
    widths = [(r["high"] - r["low"]) / 2 for r in scored if r["low"] is not None and r["high"] > r["low"]]
    decimals = min(4, max(0, 1 - math.floor(math.log10(min(widths))))) if widths else 3
    for row in rows:
        row["gap"] = None
        scored_method = row["mean"] is not None and not row["reference"]
        if optimum and floor and scored_method and optimum["mean"] != floor["mean"]:
            row["gap"] = (row["mean"] - floor["mean"]) / (optimum["mean"] - floor["mean"])
        row["best"] = bool(methods) and row is methods[0]
        row["shown"] = "" if row["mean"] is None else _figure(row, decimals)
    has = {key: any(row[key] is not None for row in rows) for key in ("gap", "success", "turns", "episodes")}
    return {
        "rows": rows,
        "methods": methods,
        "references": references,
        "optimum": optimum,
        "behaviour": behaviour,
        "baseline": baseline,
        "floor": floor,
        "decimals": decimals,
        "has": has,
        "sign": sign,
    }


def _figure(row: Mapping[str, Any], decimals: int) -> str:
    """Estimates with the decimals that their intervals carry; references without one as given."""
    if row["low"] is None and row["reference"]:
        return as_given(row["mean"])
    return number(row["mean"], decimals)


def comparison_plots(table: Mapping[str, Any], score: str) -> list[Markup]:
    """The comparison as a picture for wide screens and one for narrow ones; none without a method."""
    if not table["methods"]:
        return []
    bars = [Interval(r["name"], r["mean"], r["low"], r["high"], r["best"]) for r in table["methods"]]
    lines = [Interval(r["name"], r["mean"], r["low"], r["high"]) for r in table["references"]]
    return [
        comparison_plot(bars, lines, score=score, decimals=table["decimals"], narrow=narrow)
        for narrow in (False, True)
    ]


def answer(table: Mapping[str, Any], score: str, confidence: float) -> dict[str, Any] | None:
    """The result in one sentence with its figures, and what the intervals do and do not show."""
    if not table["methods"]:
        return None
    best, decimals, sign = table["methods"][0], table["decimals"], table["sign"]
    interval = ""
    if best["low"] is not None:
        ends = f"{number(best['low'], decimals)} to {number(best['high'], decimals)}"
        interval = f" ({100 * confidence:g}% interval {ends})"
    form = "<b>{}</b> leads in {}: <b>{}</b>{}"
    if score.startswith("mean"):
        form = "<b>{}</b> reaches a {} of <b>{}</b>{}"
    sentence = Markup(form).format(best["name"], score, best["shown"], interval)
    others = [r for r in (table["baseline"], table["behaviour"], table["optimum"]) if r and r is not best]
    beside = [Markup("{} for {}").format(r["shown"], _the(r)) for r in others]
    if beside:
        sentence += ", against " + Markup(" and ").join(
            filter(None, [Markup(", ").join(beside[:-1]), beside[-1]])
        )
    floor, notes = table["floor"], []
    if best["gap"] is not None and best is not floor:
        sentence += Markup(": {}% of the way from {} to the optimum").format(
            number(100 * best["gap"], 0), _the(floor)
        )
    if best is table["baseline"]:
        notes.append(f"No other method does better than {best['name']}.")
    notes += _overlaps(table)
    if best["gap"] is not None and sign * (best["mean"] - floor["mean"]) < 0:
        notes.append(f"It is worse than {_the(floor)}.")
    return {"sentence": sentence + ".", "notes": notes}


def _overlaps(table: Mapping[str, Any]) -> list[str]:
    """How the best method's interval lies to those of the next best and of what it should beat."""
    best, floor, decimals = table["methods"][0], table["floor"], table["decimals"]
    others = [r for r in [*table["methods"][1:2], floor] if r and r is not best and r["low"] is not None]
    if best["low"] is None:
        return []
    found: dict[bool, list[str]] = {False: [], True: []}
    for i, row in enumerate(others):
        if row not in others[:i]:
            overlap = best["low"] <= row["high"] and row["low"] <= best["high"]
            ends = f"{number(row['low'], decimals)} to {number(row['high'], decimals)}"
            found[overlap].append(f"{_the(row)} ({ends})")
    doubt = ", so these conversations do not settle which is better"
    says = {False: ("lies apart from", ""), True: ("overlaps", doubt)}
    return [
        f"Its interval {says[key][0]} {'those' if len(names) > 1 else 'that'} of {' and '.join(names)}"
        f"{says[key][1]}."
        for key, names in found.items()
        if names
    ]


def _the(row: Mapping[str, Any]) -> str:
    return f"the {row['name']}" if row["reference"] else row["name"]
