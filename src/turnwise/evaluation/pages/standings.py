"""The result of a comparison: methods and references in order, as a table, a picture and a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from turnwise.evaluation.pictures.comparison import Interval, comparison_plot
from turnwise.evaluation.pictures.style import as_given, number

_NOUNS = {"optimum": "optimum", "behaviour": "behaviour policy", "baseline": "baseline"}


def standings(compared: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of methods and references, best first, each with the share of the gap that it closes.

    gap = (row - floor) / (optimum - floor)

    The optimum is the entry whose role says so. The floor is the entry with the role `baseline`, or else
    `behaviour`. Without both, or if the optimum is not better than the floor, there is no gap. A role is
    declared, never read from a name.
    """
    sign = 1 if compared.get("higher_is_better", True) else -1
    blank = dict.fromkeys(("mean", "low", "high", "episodes", "success", "turns", "note", "role"))
    rows = [{**blank, "role": "method", **row, "reference": False} for row in compared.get("rows", [])]
    rows += [{**blank, **row, "reference": True} for row in compared.get("references", [])]
    rows.sort(key=lambda row: (row["mean"] is None, -sign * (row["mean"] or 0)))
    scored = [row for row in rows if row["mean"] is not None]
    methods = [row for row in scored if not row["reference"]]
    optimum, behaviour, baseline = (_with_role(scored, r) for r in ("optimum", "behaviour", "baseline"))
    floor = baseline or behaviour
    decimals = decimals_of_rows(scored)
    wide = optimum is not None and floor is not None and sign * (optimum["mean"] - floor["mean"]) > 0
    for row in rows:
        row["gap"] = None
        scored_method = row["mean"] is not None and not row["reference"]
        if optimum and floor and wide and scored_method:
            row["gap"] = (row["mean"] - floor["mean"]) / (optimum["mean"] - floor["mean"])
        row["best"] = bool(methods) and row is methods[0]
        row["called"] = _called(row)
        row["shown"] = "" if row["mean"] is None else _figure(row, decimals)
    has = {key: any(row[key] is not None for row in rows) for key in ("gap", "success", "turns", "episodes")}
    return {
        "rows": rows,
        "methods": methods,
        "references": [row for row in scored if row["reference"]],
        "optimum": optimum,
        "behaviour": behaviour,
        "baseline": baseline,
        "floor": floor,
        "decimals": decimals,
        "has": has,
        "sign": sign,
        "ends": (floor and floor["called"], optimum and optimum["called"]),  # of the gap: 0% and 100%
    }


def _with_role(rows: Sequence[dict[str, Any]], role: str) -> dict[str, Any] | None:
    return next((row for row in rows if row["role"] == role), None)


def decimals_of_rows(rows: Sequence[Mapping[str, Any]]) -> int:
    """As many as the narrowest interval carries: +-0.04 is worth three, +-0.4 two."""
    widths = [(r["high"] - r["low"]) / 2 for r in rows if r["low"] is not None and r["high"] > r["low"]]
    return min(4, max(0, 1 - math.floor(math.log10(min(widths))))) if widths else 3


def _figure(row: Mapping[str, Any], decimals: int) -> str:
    """Estimates with the decimals that their intervals carry; references without an interval as given."""
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
    best, floor = table["methods"][0], table["floor"]
    sentence = _leader(table, score, confidence) + _beside(table)
    # A negative share is hard to read: that the best method is behind the floor is said in the notes.
    if best["gap"] is not None and best is not floor and best["gap"] >= 0:
        sentence += _share(best, floor)
    notes = []
    if best is table["baseline"] and len(table["methods"]) > 1:
        notes.append(f"No other method does better than {best['name']}.")
    notes += _overlaps(table)
    # The best method may still be worse than what it must beat: its place among methods does not say so.
    worse = [r["called"] for r in _must_beat(table) if table["sign"] * (best["mean"] - r["mean"]) < 0]
    if worse:
        notes.append(f"Its mean is worse than that of {' and that of '.join(worse)}.")
    if _impossible(table):
        notes.append(
            "Its whole interval is better than the optimum, which no policy exceeds: the optimum is of "
            "another task, or something is wrong with it or with the evaluation."
        )
    return {"sentence": sentence + ".", "notes": notes}


def _share(best: Mapping[str, Any], floor: Mapping[str, Any]) -> Markup:
    """How far the best method came. A mean above the optimum is chance, and no share of anything."""
    if best["gap"] > 1:
        return Markup(": as far as the optimum, by these conversations")
    share = number(100 * best["gap"], 0)
    return Markup(": {}% of the way from {} to the optimum").format(share, floor["called"])


def _impossible(table: Mapping[str, Any]) -> bool:
    """Whether the best method's whole interval is better than what no policy exceeds."""
    best, optimum, sign = table["methods"][0], table["optimum"], table["sign"]
    if optimum is None or best is optimum or best["low"] is None:
        return False
    end = best["low"] if sign > 0 else best["high"]
    return sign * (end - optimum["mean"]) > 0


def _must_beat(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The baseline and the behaviour policy, as far as they are known."""
    return [r for r in (table["baseline"], table["behaviour"]) if r]


def _leader(table: Mapping[str, Any], score: str, confidence: float) -> Markup:
    """The best method, its score and its interval."""
    best = table["methods"][0]
    interval = ""
    if best["low"] is not None:
        interval = f" ({100 * confidence:g}% interval {_ends(best, table['decimals'])})"
    form = "<b>{}</b> has the best {}: <b>{}</b>{}"
    if score.startswith("mean"):
        form = "<b>{}</b> reaches a {} of <b>{}</b>{}"
    return Markup(form).format(best["name"], score, best["shown"], interval)


def _beside(table: Mapping[str, Any]) -> Markup:
    """What the best method must beat, and what it cannot."""
    best = table["methods"][0]
    others = [r for r in (table["baseline"], table["behaviour"], table["optimum"]) if r and r is not best]
    if not others:
        return Markup("")
    *most, last = [Markup("{} for {}").format(r["shown"], r["called"]) for r in others]
    listed = Markup(" and ").join([Markup(", ").join(most), last]) if most else last
    return Markup(", against ") + listed


def _overlaps(table: Mapping[str, Any]) -> list[str]:
    """How the best method's interval lies to those of the next best and of what it should beat."""
    best, decimals = table["methods"][0], table["decimals"]
    if best["low"] is None:
        return []
    found: dict[bool, list[str]] = {False: [], True: []}
    others = [*table["methods"][1:2], *_must_beat(table)]
    for i, row in enumerate(others):
        if row is best or row["low"] is None or row in others[:i]:
            continue
        overlap = best["low"] <= row["high"] and row["low"] <= best["high"]
        # Behind the baseline, the behaviour policy is worth a word only if it is not clearly beaten.
        if overlap or row is not table["behaviour"] or row is table["floor"]:
            found[overlap].append(_called(row, _ends(row, decimals)))
    doubt = ", so these conversations do not settle which is better"
    verbs = {False: ("lies apart from", ""), True: ("overlaps", doubt)}
    return [
        f"Its interval {verbs[key][0]} {'those' if len(names) > 1 else 'that'} of {' and '.join(names)}"
        f"{verbs[key][1]}."
        for key, names in found.items()
        if names
    ]


def _ends(row: Mapping[str, Any], decimals: int) -> str:
    return f"{number(row['low'], decimals)} to {number(row['high'], decimals)}"


def _called(row: Mapping[str, Any], detail: str = "") -> str:
    """A row in a sentence: its name, and of a reference with a role `the optimum (its name)`.

    A name is the user's word and takes no article, unless it says the role itself: `the exact optimum`.
    `detail` goes into the same brackets.
    """
    noun = _NOUNS.get(row["role"]) if row["reference"] else None
    said, name = row["name"], None
    if noun is not None:
        names_its_role = noun in row["name"].casefold()
        said = f"the {row['name']}" if names_its_role else f"the {noun}"
        name = None if names_its_role or row["name"] == row["role"] else row["name"]
    beside = "; ".join(filter(None, (name, detail)))
    return f"{said} ({beside})" if beside else said
