"""The page of acts: what is said, what each act tells, and how far the acts can be believed (acts.json)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.provenance import facts_of_runs
from turnwise.evaluation.pages.run_files import RunFiles, read_object
from turnwise.evaluation.pictures.style import number

_PARTS = ("acts/answer.html", "acts/sides.html")
_SIDES = {
    "agent": ("The agent", "its messages"),
    "partner": ("What answers it", "what is said to it between two of its messages"),
    "opening": ("What the agent knows beforehand", "all that stands before its first message"),
}
_WAYS = {
    "field": "named by the log",
    "function": "named by a function",
    "sentence": "each sentence for itself",
    "discover": "discovered by what stands around them",
}
_TOLD = {"answer": "of the partner’s next message", "reward": "of what the conversation earns"}


def acts_page(run: RunFiles) -> Page:
    """Each side with its acts, their sentences, and what they tell."""
    found = read_object(run.folder / "acts.json")
    values = {
        "title": f"{run.algorithm.title}: {run.name}",
        "aim": f"What is meant in {(run.config or {}).get('logs')}.",
        "facts": facts_of_runs([run], run.folder / "config.yaml"),
        "ended": run.ended,
        "notes": (found or {}).get("notes", []),
        "rated": (found or {}).get("rated", False),
        "sides": [side_view(side) for side in (found or {}).get("sides", [])],
        "turns": (found or {}).get("turns", 0),
        "conversations": (found or {}).get("conversations", 0),
    }
    return Page(_PARTS, "acts/words.html", values, [run])


def side_view(side: Mapping[str, Any]) -> dict[str, Any]:
    """One side as the page shows it."""
    title, what = _SIDES[side["side"]]
    acts = side["acts"]
    told = side.get("told") or {}
    sentence = f"{len(acts)} acts" if len(acts) != 1 else "One act"
    return {
        "id": side["side"],
        "title": title,
        "what": what,
        "way": _WAYS.get(side["way"], side["way"]),
        "by": side.get("by"),
        "count": f"{sentence} of {number(side['messages'], 0)} messages",
        "told": [(_TOLD[key], _figure(x)) for key, x in told.items()],
        "doubts": _doubts(side),
        "curve": _curve(side.get("curve") or [], len([a for a in acts if a["name"] != "other"])),
        "acts": [_act(a, side["messages"]) for a in acts],
        "measured": bool(told),
        "earned": any(a["earned"] for a in acts),
    }


def _act(act: Mapping[str, Any], messages: int) -> dict[str, Any]:
    return {
        "name": act["name"],
        "count": number(act["count"], 0),
        "share": f"{act['count'] / max(messages, 1):.1%}",
        "sentences": number(act["sentences"], 0),
        "typical": [e["text"] for e in act["typical"]],
        "borderline": [e["text"] for e in act["borderline"]],
        "told": _figure(act["told"]) if act["told"] else "too few",
        "earned": _figure(act["earned"]) if act["earned"] else "",
    }


def _figure(x: Mapping[str, float]) -> str:
    return f"{number(x['mean'], 2)} ({number(x['low'], 2)} to {number(x['high'], 2)})"


def _doubts(side: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what was asked, the answer): agreement, labels, and messages that were never seen."""
    found = []
    for index in side.get("agreement") or []:
        found.append(
            (
                "agreement with acts made anew of a random half of the conversations, with another seed",
                f"{number(index, 2)} (the same: 1; chance: 0)",
            )
        )
    if side.get("labels") is not None:
        named = number(side["labelled"], 0)
        words = f"agreement with the {side['kinds']} acts that the log names in {named} messages"
        found.append((words, f"{number(side['labels'], 2)} (the same: 1; chance: 0)"))
    other = side.get("other")
    if other and other["messages"]:
        words = f"of {number(other['messages'], 0)} messages that nothing was learnt from"
        found.append(
            (words, f"{other['new']:.1%} were never said before, {other['other']:.1%} are like no act")
        )
    return found


def _curve(curve: Sequence[Mapping[str, float]], chosen: int) -> list[dict[str, Any]]:
    """What each number of acts tells, the numbers around the chosen one and the small ones."""
    return [
        {"acts": int(x["acts"]), "told": _figure(x), "chosen": int(x["acts"]) == chosen}
        for x in curve
        if len(curve) <= 16 or x["acts"] <= 3 or abs(x["acts"] - chosen) <= 5 or x is curve[-1]
    ]
