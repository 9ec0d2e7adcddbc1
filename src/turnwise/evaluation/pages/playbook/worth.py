"""What a plan is worth, in words: promised by its model, earned in the world, beside what it must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from turnwise.evaluation.measures.playbook.schema import Bounds, Playbook, Worth
from turnwise.evaluation.pages.run_files import RunFiles
from turnwise.evaluation.pages.solutions.figures import bounds, rounded_up
from turnwise.evaluation.pages.standings import decimals_of_rows
from turnwise.evaluation.pictures.comparison import Interval, comparison_plot
from turnwise.evaluation.pictures.style import as_given, number

_ORDER = ("true", "predicted", "other", "optimum", "clone", "logged")
_REFERENCES = ("logged", "clone", "optimum")
_NAMES = {"true": "earned when it spoke", "predicted": "promised by its model", "optimum": "best possible",
          "clone": "clone of the logged agent", "logged": "logged agent"}  # fmt: skip


def worth_view(book: Playbook, run: RunFiles) -> dict[str, Any]:
    """The sentence, its notes, a table and pictures."""
    rows = sorted(_with_evaluation(book, run), key=lambda row: _ORDER.index(row["role"]))
    by_role = {row["role"]: row for row in reversed(rows)}  # the first of each role counts
    decimals = decimals_of_rows(rows)
    said = _sentence(by_role, decimals, f"{100 * book['confidence']:g}")
    return {
        "sentence": said,
        "notes": _notes(by_role, book["bounds"], book["unit"], decimals),
        "measured": "true" in by_role,
        "rows": [_row(row, decimals) for row in rows],
        "plots": _plots(rows, decimals),
    }


def _with_evaluation(book: Playbook, run: RunFiles) -> list[Worth]:
    """The rows of the playbook; an evaluation of the run, which is newer, takes the place of the old one."""
    rows = list(book["worth"])
    found = run.evaluation
    if found is not None and found.get("mean") is not None:
        rows = [row for row in rows if row["role"] != "true"]
        rows.append(_worth("true", _NAMES["true"], found))
        roles = {"behaviour": "logged", "optimum": "optimum", "baseline": "clone"}
        for known in found.get("references", []):
            role = roles.get(str(known.get("role")))
            if role and known.get("mean") is not None and not any(row["role"] == role for row in rows):
                rows.append(_worth(role, str(known["name"]), known))
    returns = (run.card or {}).get("return")
    if returns and not any(row["role"] == "logged" for row in rows):
        rows.append(_worth("logged", _NAMES["logged"], returns))
    return rows


def _worth(role: Any, name: str, figures: Mapping[str, Any]) -> Worth:
    count = figures.get("episodes", figures.get("n"))
    return Worth(role=role, name=name, mean=figures["mean"], low=figures.get("low"), high=figures.get("high"),
                 n=count, note=str(figures.get("note") or ""))  # fmt: skip


def _sentence(rows: Mapping[str, Worth], decimals: int, confidence: str) -> Markup | None:
    """True and predicted worth with their intervals, then what they must beat."""
    promised, earned = rows.get("predicted"), rows.get("true")
    if earned is not None:
        held = f"In {_count(earned)} conversations" if _count(earned) else "In conversations"
        said = Markup("{} this plan earned <b>{}</b>{}").format(
            held, number(earned["mean"], decimals), _interval(earned, decimals, confidence)
        )
        if promised is not None:
            said += Markup("; its model had promised <b>{}</b>{}").format(
                number(promised["mean"], decimals), _interval(promised, decimals, "")
            )
    elif promised is not None:
        said = Markup("In the model that it was made in, this plan earns <b>{}</b>{}").format(
            number(promised["mean"], decimals), _interval(promised, decimals, confidence)
        )
    else:
        return None
    beside = [
        Markup("{} <b>{}</b>").format(
            {"logged": "the logged agent earned", "clone": "its clone", "optimum": "the best possible is"}[
                role
            ],
            as_given(rows[role]["mean"]) if role == "optimum" else number(rows[role]["mean"], decimals),
        )
        for role in _REFERENCES
        if role in rows
    ]
    if beside:
        listed = Markup(", ").join(beside)
        said += Markup(". ") + listed[:1].upper() + listed[1:]
    return said + "."


def _interval(row: Worth, decimals: int, confidence: str) -> str:
    ends = _ends(row, decimals)
    if ends is None:
        return ""
    return f" ({confidence}% interval {ends})" if confidence else f" ({ends})"


def _ends(row: Worth, decimals: int) -> str | None:
    if row["low"] is None or row["high"] is None:
        return None
    return f"{number(row['low'], decimals)} to {number(row['high'], decimals)}"


def _count(row: Worth) -> str:
    count = row.get("n")
    return number(count, 0) if count else ""


def _notes(rows: Mapping[str, Worth], solved: Bounds | None, unit: str, decimals: int) -> list[str]:
    promised, earned = rows.get("predicted"), rows.get("true")
    notes = []
    if promised is not None and earned is not None:
        notes.append(_apart(promised, earned, decimals))
    elif promised is not None:
        notes.append(
            "Nobody has talked to it yet, so what it earns in the world is not known: a plan looks better in "
            "the model that it was made for than it is."
        )
    elif earned is not None:
        notes.append("What its model promised is not recorded.")
    if promised is not None and promised["low"] is not None:
        models = f" {_count(promised)}" if _count(promised) else ""
        notes.append(
            f"The interval of the promise is over{models} models that were fitted to resampled logs."
        )
    if "logged" not in rows:
        notes.append("What the logged agent earned is not known.")
    if "optimum" not in rows:
        notes.append("What the best possible agent would earn is not known.")
    if solved is not None:
        notes.append(_solved(solved))
    if unit:
        notes.append(f"Rewards are in {unit}.")
    return notes


def _apart(promised: Worth, earned: Worth, decimals: int) -> str:
    """Predicted minus true, in words."""
    difference = promised["mean"] - earned["mean"]
    if all(x is not None for row in (promised, earned) for x in (row["low"], row["high"])):
        assert promised["low"] is not None and promised["high"] is not None
        assert earned["low"] is not None and earned["high"] is not None
        if promised["low"] <= earned["high"] and earned["low"] <= promised["high"]:
            return (
                f"Promised minus earned is {number(difference, decimals, signed=True)}: their intervals "
                "overlap, so the model’s promise is not refuted."
            )
    more = "more than was earned: it believes in luck" if difference > 0 else "less than was earned"
    size = number(abs(difference), decimals)
    signed = number(difference, decimals, signed=True)
    return f"Promised minus earned is {signed}: the model promises {size} {more}."


def _solved(found: Bounds) -> str:
    low, high = bounds(found["lower"], found["upper"])
    gap = max(0.0, found["upper"] - found["lower"])
    near = f"; the plan is within {rounded_up(gap)} of the best one there" if gap > 1e-9 else ""
    between = f"worth {low}" if low == high else f"worth between {low} and {high}"
    return (
        f"Inside the model the best plan is {between}{near} (found in {number(found['seconds'], 1)} s). That "
        "says how well the model was solved, and nothing about how right the model is."
    )


def _row(row: Worth, decimals: int) -> dict[str, Any]:
    ends = _ends(row, decimals)
    given = ends is None and row["role"] in _REFERENCES
    return {
        "name": row["name"],
        "note": row.get("note") or "",
        "mean": as_given(row["mean"]) if given else number(row["mean"], decimals),
        "interval": ends or ("exact" if row["role"] == "optimum" else "not given"),
        "n": _count(row),
        "best": row["role"] == "true",
        "reference": row["role"] in _REFERENCES,
    }


def _plots(rows: Sequence[Worth], decimals: int) -> list[Markup]:
    """Wide and narrow; none if there is neither a promise nor a measurement."""
    drawn = [Interval(r["name"], r["mean"], r["low"], r["high"], r["role"] == "true")
             for r in rows if r["role"] not in _REFERENCES]  # fmt: skip
    known = [Interval(r["name"], r["mean"], r["low"], r["high"]) for r in rows if r["role"] in _REFERENCES]
    if not drawn:
        return []
    return [
        comparison_plot(drawn, known, score="return of a conversation", decimals=decimals, narrow=narrow)
        for narrow in (False, True)
    ]
