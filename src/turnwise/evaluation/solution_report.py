"""What the report page of a solved POMDP shows, computed from `solution.json`; templates only lay it out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from turnwise.evaluation.plots import as_given, number
from turnwise.evaluation.solution_graph import drawn, laid_out
from turnwise.evaluation.solution_plots import (
    bounds_plot,
    entropy_plot,
    gap_plot,
    interval_plot,
    line_of_beliefs,
    starts_plot,
    triangle_of_beliefs,
)
from turnwise.run.errors import InputError

_NOTHING = 1e-9
"""a reward or a value below this is rounding"""
_CONTROLLER_ROWS = 60
_DENSE = 45
"""a graph with more arrows is easier read as a table"""
_RARE = 0.005
"""choices of a controller that are less probable are not listed"""
_NOTES = {
    "optimal policy": "May remember everything and looks where that pays. The policy in this folder is "
    "worth at least the lower bound.",
    "QMDP": "Acts as if the state would be seen after the next step, so it never chooses an action for what "
    "the action shows (Littman et al. 1995). It does use what it happens to see.",
    "best open-loop policy": "The best sequence of actions fixed beforehand: it sees nothing at all.",
}
_STOPPED = {
    "gap": "the gap asked for was reached",
    "deadline": "the deadline",
    "interrupted": "interrupted",
}


def solution_view(path: Path, solution: Mapping[str, Any]) -> dict[str, Any]:
    """Title, answer, facts and parts of the page. Raises InputError, naming `path`, if it is no solution."""
    try:
        return _limited(solution) if "value" in solution else _solved(solution)
    except KeyError as error:
        raise InputError(f"{path}: no {error.args[0]!r}; expected what turnwise solve --out writes") from None
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: expected what turnwise solve --out writes ({error})") from None


def bounds(lower: float, upper: float) -> tuple[str, str]:
    """Both as text with the decimals that their gap is worth, rounded outwards so that they stay bounds."""
    gap, largest = upper - lower, max(abs(lower), abs(upper))
    if gap <= 1e-9 * max(1.0, largest):
        text = as_given((lower + upper) / 2)
        return text, text
    size = math.floor(math.log10(largest))
    decimals = max(0, 2 - size, min(math.ceil(-math.log10(gap / 5)), 5 - size))
    down = math.floor(lower * 10**decimals + 1e-6) / 10**decimals
    up = math.ceil(upper * 10**decimals - 1e-6) / 10**decimals
    return _ended(number(down, decimals)), _ended(number(up, decimals))


def _ended(text: str) -> str:
    """Without a long fraction of zeros only."""
    whole, _, fraction = text.partition(".")
    return text if fraction.strip("0") or len(fraction) < 3 else whole


def between(low: float, high: float) -> str:
    """A range of something that cannot be negative, as short as it is true."""
    low = max(0.0, low)
    if high < _NOTHING:
        return "nothing"
    if number(low) == number(high):
        return number(high)
    if low < _NOTHING:
        return f"at most {_up(high)}"
    return " to ".join(bounds(low, high))


def _up(value: float) -> str:
    """Two significant digits, rounded up."""
    decimals = max(0, 1 - math.floor(math.log10(value)))
    return number(math.ceil(value * 10**decimals - 1e-6) / 10**decimals, decimals)


def _facts(s: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = "shown before the first action" if s["initial_observation"] == "shown" else "not shown"
    facts = [
        ("states", number(s["states"], 0)),
        ("actions", number(s["actions"], 0)),
        ("observations", number(s["observations"], 0)),
        ("discount", f"{s['discount']:g}"),
        ("episodes", "end" if s.get("episodic") else "go on for ever"),
        ("initial observation", shown),
        ("solved in", f"{number(s['seconds'])} s"),
    ]
    if "stopped" in s:
        facts.append(("stopped by", _STOPPED.get(s["stopped"], str(s["stopped"]))))
    for key, name in (("plans", "plans"), ("beliefs", "beliefs searched"), ("trials", "trials")):
        if key in s:
            facts.append((name, number(s[key], 0)))
    return facts


def _solved(s: Mapping[str, Any]) -> dict[str, Any]:
    lower, upper = bounds(s["lower"], s["upper"])
    name = s["problem"] or "A POMDP"
    return {
        "title": name,
        "asked": f"Solve {name}: a policy that may remember everything, and bounds of the best one’s worth.",
        "facts": _facts(s),
        "answer": {"sentence": _sentence(s, lower, upper), "notes": _notes(s)},
        "limited": None,
        "bounds": _over_time(s, (lower, upper)),
        "policies": _policies(s.get("references") or []),
        "information": _information(s["information"]) if s.get("information") else None,
        "beliefs": _beliefs(s),
        "graph": _graph(s),
        "states": s["states"],
    }


def _sentence(s: Mapping[str, Any], lower: str, upper: str) -> Markup:
    if lower == upper:
        said = Markup("The best policy is worth <b>{}</b>").format(lower)
    else:
        said = Markup("The best policy is worth between <b>{}</b> and <b>{}</b>").format(lower, upper)
    blind = next((r for r in s.get("references") or [] if "open-loop" in r["name"]), None)
    if blind is None:
        return said + "."
    low, high = s["lower"] - blind["upper"], s["upper"] - blind["lower"]
    if low < _NOTHING <= high:
        return said + Markup("; never looking costs {}, perhaps nothing.").format(between(low, high))
    return said + Markup("; never looking costs <b>{}</b>.").format(between(low, high))


def _notes(s: Mapping[str, Any]) -> list[str]:
    what = "expected sums of rewards" if s["discount"] == 1 else "expected sums of discounted rewards"
    notes = [f"Worth and costs are {what} from the start of an episode, in the units of the problem."]
    gap = s["upper"] - s["lower"]
    if gap > _NOTHING:
        notes.append(f"The policy in this folder falls short of the best by at most {_up(gap)}.")
    if s.get("stopped") in ("deadline", "interrupted"):
        cut = "The deadline ended the search" if s["stopped"] == "deadline" else "The search was interrupted"
        notes.append(f"{cut} before the gap asked for: the bounds hold, and a longer search narrows them.")
    if check := s.get("simulation"):
        notes.append(
            f"{number(check['episodes'], 0)} simulated episodes of it earned {number(check['mean'], 3)} on "
            f"average (standard error {number(check['standard_error'])}), "
            + ("which agrees with the bounds." if check["inside"] else "which is outside the bounds.")
        )
    return notes


def _over_time(s: Mapping[str, Any], ends: tuple[str, str]) -> dict[str, Any] | None:
    """Pictures of the bounds and of their gap; bounds that are not finite yet are left out."""
    trace = [row for row in s.get("trace") or [] if None not in row]
    if not trace:
        return None
    gap = s["upper"] - s["lower"]
    closed = gap <= _NOTHING
    return {
        "plot": bounds_plot(trace, ends),
        "gap": None if closed else gap_plot(trace, _up(gap)),
        "log": trace[0][0] > 0 and trace[-1][0] > 10 * trace[0][0],
    }


def _policies(references: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not references:
        return None
    best = references[0]
    rows, drawn_rows = [], []
    for r in references:
        low, high = sorted((float(r["lower"]), float(r["upper"])))
        ends = bounds(low, high)
        shown = ends[0] if ends[0] == ends[1] else " to ".join(ends)
        own = r is best
        loss = (0.0, high - low) if own else (best["lower"] - high, best["upper"] - low)
        rows.append(
            {"name": r["name"], "note": _NOTES.get(r["name"], ""), "value": shown, "loss": between(*loss),
             "best": own}
        )  # fmt: skip
        drawn_rows.append((r["name"], low, high, shown))
    return {
        "rows": rows,
        "plots": [interval_plot(drawn_rows, narrow=narrow) for narrow in (False, True)],
        "qmdp": any(r["name"] == "QMDP" for r in references),
    }


def _decimals(values: Iterable[float]) -> int:
    """Decimals for a column: three significant digits of its largest entry."""
    largest = max((abs(v) for v in values), default=0.0)
    return min(6, max(0, 2 - math.floor(math.log10(largest)))) if largest > _NOTHING else 0


def _small(value: float, decimals: int) -> str:
    """A column's entry; what is not zero never reads as zero."""
    if abs(value) <= _NOTHING:
        return "0"
    return (
        number(value, decimals)
        if abs(value) >= 0.5 * 10**-decimals
        else f"< {number(10**-decimals, decimals)}"
    )


def _pays(row: Mapping[str, Any]) -> bool:
    if "pays" in row:  # of an action: the share of its steps
        return row["pays"] > 0
    return row["given_up"] > _NOTHING and row["look"] > _NOTHING


def _information(found: Mapping[str, Any]) -> dict[str, Any]:
    actions, entropy, episodes = found["actions"], found["entropy"], found["episodes"]
    steps = [row for example in found["examples"] for row in example]
    d = {key: _decimals(row[key] for row in [*actions, *steps]) for key in ("given_up", "look")}

    def shown(row: Mapping[str, Any]) -> dict[str, Any]:
        texts = {key: _small(row[key], d[key]) for key in d}
        return {**texts, "entropy": number(row["entropy"], 3), "pays": _pays(row)}

    running, last = entropy[-1][4], entropy[-1][0] + 1
    if running == episodes:
        still = f"All {episodes} episodes still run at step {last}, where watching stops."
    else:
        still = (
            f"{running} of {episodes} episodes still run at step {last}, the last one watched; line and band "
            "are of those that run."
        )
    return {
        "episodes": episodes,
        "still": still,
        "plot": entropy_plot(entropy),
        "said": _looks_in_words(actions, d),
        "actions": [
            {"name": row["name"], "share": f"{number(100 * row['share'], 1)}%", **shown(row)}
            for row in actions
        ],
        "examples": [
            [
                {key: row[key] for key in ("action", "observation")}
                | {"reward": as_given(row["reward"]), **shown(row)}
                for row in example
            ]
            for example in found["examples"]
        ],
        "paid": any(_pays(row) for row in [*actions, *steps]),
    }


def _looks_in_words(actions: Sequence[Mapping[str, Any]], decimals: Mapping[str, int]) -> Markup:
    """Where the policy gains from seeing, and where it also gives up reward of the moment for it."""
    paying = [row for row in actions if _pays(row)]
    free = [row for row in actions if row["look"] > _NOTHING and not _pays(row)]
    said = []
    if len(paying) > 2:
        each = Markup(", ").join(
            Markup("<b>{}</b> (gives up {}, sees {})").format(
                row["name"], *(_small(row[key], decimals[key]) for key in ("given_up", "look"))
            )
            for row in sorted(paying, key=lambda row: -row["look"])
        )
        said.append(
            Markup(
                "It pays to look with {}: the reward to be had now that this gives up, and what seeing what "
                "follows is worth, both on average."
            ).format(each)
        )
    else:
        said += [_paid(row, decimals) for row in sorted(paying, key=lambda row: -row["look"])]
    if free:
        names = Markup(", ").join(
            Markup("<b>{}</b> ({})").format(row["name"], _small(row["look"], decimals["look"]))
            for row in sorted(free, key=lambda row: -row["look"])
        )
        said.append(
            Markup(
                "It gains from seeing what follows {}, and gives up nothing for that: at the beliefs where "
                "it acts so, no other action has a higher expected reward now. What such an action itself "
                "costs stands in its reward."
            ).format(names)
        )
    if not said:
        return Markup("In these episodes nothing that the policy sees is worth anything to it.")
    if not paying:
        said.append(Markup("Nowhere does it give up reward of the moment for a look."))
    return Markup(" ").join(said)


def _paid(row: Mapping[str, Any], decimals: Mapping[str, int]) -> Markup:
    look, lost = (_small(row[key], decimals[key]) for key in ("look", "given_up"))
    if row["look"] > row["given_up"]:
        ends = "more than it gives up"
    else:
        ends = "less than it gives up, so that the rest must come from what the action leads to"
    return Markup(
        "It pays to look with <b>{}</b>: on average that gives up {} of the reward to be had now, and seeing "
        "what follows is worth {}, {}."
    ).format(row["name"], lost, look, ends)


def _beliefs(s: Mapping[str, Any]) -> dict[str, Any] | None:
    grid = s.get("value_over_belief")
    if not grid:
        return None
    names = s["action_names"]
    states = s.get("state_names") or [f"state {i + 1}" for i in range(s["states"])]
    beliefs, values = np.array(grid["beliefs"], float), np.array(grid["values"], float)
    actions = ["at random" if a < 0 else names[a] for a in grid["actions"]]
    if beliefs.shape[1] == 3:
        return {"plot": triangle_of_beliefs(states, beliefs, values, actions), "vectors": None, "drawn": None}
    vectors = None if grid.get("vectors") is None else np.array(grid["vectors"], float)
    if vectors is None:
        return {"plot": line_of_beliefs(states, beliefs, values, actions, None), "vectors": 0, "drawn": 0}
    top = np.unique((beliefs @ vectors.T).argmax(1))
    kept = vectors[top]
    return {
        "plot": line_of_beliefs(states, beliefs, values, actions, kept),
        "vectors": len(vectors),
        "drawn": len(kept),
    }


def _graph(s: Mapping[str, Any]) -> dict[str, Any] | None:
    graph = s.get("graph")
    if not graph:
        return None
    if graph.get("nodes") is None:
        return {"count": number(graph["count"], 0), "plot": None}
    found = laid_out(graph, s["observation_names"])
    return {
        "count": number(graph["count"], 0),
        "plot": drawn(found),
        "rows": found.rows,
        "dense": len(found.arrows) > _DENSE,
        "unreached": found.unreached,
    }


def _limited(s: Mapping[str, Any]) -> dict[str, Any]:
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
    end = "." if upper is None else "; no policy whatever is worth more than <b>{}</b>."
    rows = [("this controller", value, value, best)]
    if upper is not None:
        rows.append(("best policy, any memory", value, upper, " to ".join(bounds(value, upper))))
    return {
        "title": name,
        "asked": f"Solve {name} with limited memory: the {what}.",
        "facts": [*_facts(s), ("memory", str(s["memory"]))],
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
    notes = [f"Worth is the expected sum of {what} from the start of an episode; it is exact."]
    if s["memory"] != "deterministic":
        notes.append("Another controller of the same size may be better: the search climbs from many starts.")
    if upper is None:
        notes.append("At discount 1 no bound of what other policies are worth is given beside it.")
        return notes
    notes.append(
        "The second figure is a bound that is cheap to compute (FIB), not a value that a policy need attain: "
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
