"""What the report page of a solved POMDP shows, computed from `solution.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.run_files import read_object, read_run
from turnwise.evaluation.pages.solutions.figures import (
    NOTHING,
    between,
    bounds,
    decimals_of,
    facts_of,
    rounded_up,
    small,
)
from turnwise.evaluation.pages.solutions.limited_memory import limited_view
from turnwise.evaluation.pictures.beliefs import line_of_beliefs, triangle_of_beliefs
from turnwise.evaluation.pictures.comparison import interval_plot
from turnwise.evaluation.pictures.graph import drawn, laid_out
from turnwise.evaluation.pictures.solutions import bounds_plot, entropy_plot, gap_plot
from turnwise.evaluation.pictures.style import as_given, number
from turnwise.run.errors import InputError

_DENSE = 45
"""a graph with more arrows is easier read as a table"""
_NOTES = {
    "optimal": "It may remember everything, and it looks where that pays. The policy in this folder is worth "
    "at least the lower bound.",
    "qmdp": "It acts as if the state would be seen after the next step, so it never chooses an action for "
    "what the action shows (Littman et al. 1995). It does use what it happens to see.",
    "open-loop": "The best sequence of actions fixed beforehand: it sees nothing at all.",
}
"""what is to know of each policy in `references`, by its `policy`"""


_PARTS = tuple(
    f"solution/{name}.html" for name in ("answer", "bounds", "information", "episodes", "beliefs", "graph")
)
_LIMITED_PARTS = ("solution/answer.html", "solution/worth.html", "solution/controller.html")


def solution_page(folder: Path) -> Page:
    """The page of `solution.json`, which `recipes/solutions.py` writes for `turnwise solve`.

    Raises InputError, naming the file, if it is no solution.
    """
    path = folder / "solution.json"
    solution = read_object(path) or {}
    run = read_run(folder, folder.resolve().name)
    played = read_object(folder / "evaluation.json")
    limited = "value" in solution  # a controller has one exact value, a policy of beliefs has two bounds
    try:
        values = limited_view(solution) if limited else _solved(solution)
        if played is not None:
            values["answer"]["notes"].append(_played(played))
    except KeyError as error:
        raise InputError(f"{path}: no {error.args[0]!r}; expected what turnwise solve --out writes") from None
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: expected what turnwise solve --out writes ({error})") from None
    return Page(_LIMITED_PARTS if limited else _PARTS, "solution/words.html", values, [run])


def _solved(s: Mapping[str, Any]) -> dict[str, Any]:
    lower, upper = bounds(s["lower"], s["upper"])
    name = s["problem"] or "A POMDP"
    return {
        "title": name,
        "aim": f"Solve {name}: a policy that may remember everything, and bounds on the best one’s value.",
        "facts": facts_of(s),
        "answer": {"sentence": _sentence(s, lower, upper), "notes": _notes(s)},
        "limited": None,
        "bounds": _over_time(s, (lower, upper)),
        "policies": _policies(s.get("references") or [], s["discount"]),
        "information": _information(s["information"]) if s.get("information") else None,
        "beliefs": _beliefs(s),
        "graph": _graph(s),
        "states": s["states"],
    }


def _sentence(s: Mapping[str, Any], lower: str, upper: str) -> Markup:
    if lower == upper:
        sentence = Markup("The best policy is worth <b>{}</b>").format(lower)
    else:
        sentence = Markup("The best policy is worth between <b>{}</b> and <b>{}</b>").format(lower, upper)
    blind = next((r for r in s.get("references") or [] if r["policy"] == "open-loop"), None)
    if blind is None:
        return sentence + "."
    low, high = s["lower"] - blind["upper"], s["upper"] - blind["lower"]
    if low < NOTHING <= high:
        return sentence + Markup("; never looking costs {}, perhaps nothing.").format(between(low, high))
    return sentence + Markup("; never looking costs <b>{}</b>.").format(between(low, high))


def _notes(s: Mapping[str, Any]) -> list[str]:
    what = "expected sums of rewards" if s["discount"] == 1 else "expected sums of discounted rewards"
    notes = [f"Values and costs are {what} from the start of an episode, in the units of the problem."]
    gap = s["upper"] - s["lower"]
    if gap > NOTHING:
        notes.append(f"The policy in this folder falls short of the best by at most {rounded_up(gap)}.")
    if s.get("stopped") in ("deadline", "interrupted"):
        if not s.get("searched", True):
            notes.append(
                "The deadline was over before the search began. These are first bounds, of plans that never "
                "look and of an agent that is told more; they hold, and a longer deadline narrows them."
            )
        else:
            by_time = s["stopped"] == "deadline"
            cut = "The deadline ended the search" if by_time else "The search was interrupted"
            notes.append(
                f"{cut} before the target gap was reached. The bounds hold; a longer search narrows them."
            )
    if check := s.get("simulation"):
        notes.append(
            f"{number(check['episodes'], 0)} simulated episodes of the policy earned "
            f"{number(check['mean'], 3)} on average (standard error {number(check['standard_error'])}), "
            + ("which agrees with the bounds." if check["inside"] else "which is outside the bounds.")
        )
    return notes


def _played(e: Mapping[str, Any]) -> str:
    """What the policy earned when it acted (turnwise evaluate), beside what is proved of it."""
    chance = e["random"]
    said = (
        f"In {number(e['episodes'], 0)} episodes of {e['env']} the policy earned {number(e['mean'])} on "
        f"average (95% interval {number(e['low'])} to {number(e['high'])})"
    )
    if e["value"]["lower"] is not None:
        low, high = bounds(e["value"]["lower"], e["value"]["upper"])
        fits = "does not agree" if e["above"] or e["below"] else "agrees"
        worth = f"it is worth {low}" if low == high else f"it is worth {low} to {high}"
        said += f", which {fits} with the proof that {worth} there"
    return (
        f"{said}. Actions at random earned {number(chance['mean'])} ({number(chance['low'])} to "
        f"{number(chance['high'])})."
    )


def _over_time(s: Mapping[str, Any], ends: tuple[str, str]) -> dict[str, Any] | None:
    """Pictures of the bounds and of their gap. Rows whose bounds are not finite yet are left out."""
    trace = [row for row in s.get("trace") or [] if None not in row]
    if not trace:
        return None
    gap = s["upper"] - s["lower"]
    closed = gap <= NOTHING
    return {
        "plot": bounds_plot(trace, ends),
        "gap": None if closed else gap_plot(trace, rounded_up(gap)),
        "log": trace[0][0] > 0 and trace[-1][0] > 10 * trace[0][0],
    }


def _policies(references: Sequence[Mapping[str, Any]], discount: float) -> dict[str, Any] | None:
    if not references:
        return None
    best = next(r for r in references if r["policy"] == "optimal")
    rows, drawn_rows = [], []
    for r in references:
        low, high = sorted((float(r["lower"]), float(r["upper"])))
        ends = bounds(low, high)
        shown = ends[0] if ends[0] == ends[1] else " to ".join(ends)
        own = r is best
        loss = (0.0, high - low) if own else (best["lower"] - high, best["upper"] - low)
        rows.append(
            {"name": r["name"], "note": _NOTES.get(r["policy"], ""), "value": shown, "loss": between(*loss),
             "best": own}
        )  # fmt: skip
        drawn_rows.append((r["name"], low, high, shown))
    return {
        "rows": rows,
        "plots": [interval_plot(drawn_rows, narrow=narrow) for narrow in (False, True)],
        "qmdp": any(r["policy"] == "qmdp" for r in references),
        "why": "at discount 1 its value has no bounds here"
        if discount == 1
        else "the time for the page was over before its values were known",
    }


def _pays(row: Mapping[str, Any]) -> bool:
    """Whether reward is given up for a look of worth that the action given up would not have shown.

    A row of an action has the share of its steps at which it is so, a row of a step has the answer.
    """
    return row["pays"] > 0


def _information(found: Mapping[str, Any]) -> dict[str, Any]:
    actions, entropy, episodes = found["actions"], found["entropy"], found["episodes"]
    steps = [row for example in found["examples"] for row in example]
    d = {key: decimals_of(row[key] for row in [*actions, *steps]) for key in ("given_up", "look", "more")}

    def shown(row: Mapping[str, Any]) -> dict[str, Any]:
        texts = {key: small(row[key], d[key]) for key in d}
        return {**texts, "entropy": number(row["entropy"], 3), "pays": _pays(row)}

    running, last = entropy[-1][4], entropy[-1][0] + 1
    if running == episodes:
        still = f"All {episodes} episodes still run at step {last}, the last one followed."
    else:
        still = (
            f"{running} of {episodes} episodes still run at step {last}, the last one followed; line and "
            "band cover those that run."
        )
    return {
        "episodes": episodes,
        "still": still,
        "plot": entropy_plot(entropy),
        "findings": _looks_in_words(actions, d),
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
    """What the policy gains from seeing after which action, and what it gives up for that."""
    seeing = sorted((row for row in actions if row["look"] > NOTHING), key=lambda row: -row["look"])
    paying = sorted((row for row in actions if _pays(row)), key=lambda row: -row["more"])
    moving = [row for row in seeing if not _pays(row) and row["given_up"] > NOTHING]
    free = [row for row in seeing if not _pays(row) and row["given_up"] <= NOTHING]
    if not seeing:
        return Markup("In these episodes the policy gains nothing from what it sees.")
    findings = [_paid(row, decimals) for row in paying]
    if len(paying) > 2:
        each = Markup(", ").join(
            Markup("<b>{}</b> ({} for {})").format(
                row["name"], *(small(row[key], decimals[key]) for key in ("given_up", "more"))
            )
            for row in paying
        )
        findings = [
            Markup(
                "It pays to look with {}. The first figure is the immediate reward that this gives up, the "
                "second the value of seeing what the action given up would not have shown, both on average."
            ).format(each)
        ]
    if free:
        findings.append(
            Markup(
                "It gains from seeing what follows {}, and gives up nothing for that: at the beliefs where "
                "it acts so, no other action has a higher expected immediate reward. The cost of the action "
                "itself is part of its reward."
            ).format(_by_name(free, decimals))
        )
    if moving:
        findings.append(
            Markup(
                "It gains from seeing what follows {}, but the action given up would have shown as much: "
                "what it gives up, it gives up to get somewhere."
            ).format(_by_name(moving, decimals))
        )
    if not paying:
        findings.append(Markup("It never gives up immediate reward for a look."))
    return Markup(" ").join(findings)


def _by_name(rows: Sequence[Mapping[str, Any]], decimals: Mapping[str, int]) -> Markup:
    """The actions, each with what its look is worth."""
    return Markup(", ").join(
        Markup("<b>{}</b> ({})").format(row["name"], small(row["look"], decimals["look"])) for row in rows
    )


def _paid(row: Mapping[str, Any], decimals: Mapping[str, int]) -> Markup:
    more, lost = (small(row[key], decimals[key]) for key in ("more", "given_up"))
    if row["more"] > row["given_up"]:
        ends = "more than it gives up"
    else:
        ends = "less than it gives up: the rest must come from where the action leads"
    return Markup(
        "It pays to look with <b>{}</b>: on average it gives up {} of immediate reward, and what it shows "
        "beyond what the action given up would have shown is worth {}, {}."
    ).format(row["name"], lost, more, ends)


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
