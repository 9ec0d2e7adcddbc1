"""What the page of a POMDP solved with limited memory shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from turnwise.evaluation.pages.solutions.figures import between, bounds, facts_of
from turnwise.evaluation.pictures.comparison import interval_plot
from turnwise.evaluation.pictures.solutions import starts_plot
from turnwise.evaluation.pictures.style import as_given, number

_CONTROLLER_ROWS = 60
"""a controller with more rows is not listed"""
_RARE = 0.005
"""choices of a controller below this probability are not listed"""


def limited_view(s: Mapping[str, Any]) -> dict[str, Any]:
    """Title, answer, facts and the controller."""
    value, name = s["value"], s["problem"] or "A POMDP"
    upper = None if s["upper"] is None else max(s["upper"], value)
    best, most = as_given(value), "" if upper is None else bounds(value, upper)[1]
    what = {
        "deterministic": "best deterministic memoryless policy",
        "stochastic": "best stochastic memoryless policy found",
    }.get(str(s["memory"]), f"best controller of {s['memory']} memories found")
    # Starts at which the search had nothing to evaluate are marked by a value that is no return.
    values = [v for v in s["starts"] if v is not None and abs(v) < 1e19]
    near = sum(abs(v - value) <= 1e-6 * max(1.0, abs(value)) for v in values)
    end = "." if upper is None else "; no policy is worth more than <b>{}</b>."
    rows = [("this controller", value, value, best)]
    if upper is not None:
        rows.append(("best policy, any memory", value, upper, " to ".join(bounds(value, upper))))
    return {
        "title": name,
        "aim": f"Solve {name} with limited memory: the {what}.",
        "facts": [*facts_of(s), ("memory", str(s["memory"]))],
        "answer": {
            "sentence": Markup("The {} is worth <b>{}</b>" + end).format(what, best, most),
            "notes": _limited_notes(s, value, upper),
        },
        "limited": {
            "plots": [interval_plot(rows, narrow=narrow) for narrow in (False, True)],
            "starts": starts_plot(values, value) if len(values) > 1 else None,
            "near": near,
            "count": len(s["starts"]),
            "failed": len(s["starts"]) - len(values),
            "enumerated": s["memory"] == "deterministic",
            **_controller(s),
        },
    }


def _limited_notes(s: Mapping[str, Any], value: float, upper: float | None) -> list[str]:
    what = "rewards" if s["discount"] == 1 else "discounted rewards"
    notes = [f"The value is the expected sum of {what} from the start of an episode; it is exact."]
    if s["memory"] != "deterministic":
        notes.append(
            "Another controller of the same size may be better: the search climbs from random starts."
        )
    if upper is None:
        notes.append("At discount 1 there is no bound on the value of other policies.")
        return notes
    notes.append(
        "The second figure is a bound that is cheap to compute (FIB). A policy need not attain it: "
        f"remembering more gains {between(0.0, upper - value)}."
    )
    return notes


def _controller(s: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of the controller's table, or why there is none."""
    if s["controller"] is None:
        return {"table": None, "rows": None, "memories": None}
    p = np.array(s["controller"], float)
    memories, inputs = p.shape[:2]
    if memories * inputs > _CONTROLLER_ROWS:
        return {"table": None, "rows": memories * inputs, "memories": memories}
    table = []
    for m in range(memories):
        for i, seen in enumerate(s["input_names"]):
            if m > 0 and seen == "(nothing yet)":  # only ever read in the first memory
                continue
            likely = sorted(np.argwhere(p[m, i] > _RARE).tolist(), key=lambda at: -p[m, i, at[0], at[1]])
            choices = [
                {
                    "action": s["action_names"][a],
                    "next": k + 1,
                    "probability": f"{number(100 * p[m, i, a, k], 0)}%",
                }
                for a, k in likely
            ]
            table.append({"memory": m + 1, "input": seen, "choices": choices})
    return {"table": table, "rows": len(table), "memories": memories}
