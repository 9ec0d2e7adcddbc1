"""Conversations on the page of a playbook: the belief from turn to turn beside what was said."""

from __future__ import annotations

from typing import Any

from turnwise.evaluation.measures.playbook.schema import Playbook, Talk, Turn
from turnwise.evaluation.pages.playbook.phrases import Phrases, quoted
from turnwise.evaluation.pages.playbook.plan import bars
from turnwise.evaluation.pictures.states import COLOURS, belief_columns, percent
from turnwise.evaluation.pictures.style import number

_SHOWN = 40  # conversations
_TURNS = 40  # of each
_SOURCES = {"live": "spoken by the plan", "log": "from the logs"}


def talks_view(book: Playbook, say: Phrases) -> dict[str, Any]:
    """The conversations in the order of the file, live ones first."""
    names = [s["name"] for s in book["states"]]
    order = sorted(book["talks"], key=lambda t: t["source"] != "live")
    items = [_talk(t, i, names, say) for i, t in enumerate(order[:_SHOWN])]
    surprising = any(i["surprise"] is not None for i in items)
    return {
        "items": items,
        "more": max(0, len(order) - _SHOWN),
        "legend": [{"c": i % COLOURS, "name": name} for i, name in enumerate(names)],
        "surprising": surprising,
        "sources": sorted({_SOURCES[t["source"]] for t in order}),
    }


def _talk(talk: Talk, index: int, names: list[str], say: Phrases) -> dict[str, Any]:
    turns = talk["turns"][:_TURNS]
    beliefs = [talk["first_belief"], *(t["belief"] for t in turns if t["belief"] is not None)]
    likely = [t["probability"] for t in talk["turns"] if t["probability"] is not None]
    worth = talk["worth"]
    return {
        "key": f"talk-0-{index}",
        "order": index,
        "id": talk["id"] or f"conversation {index + 1}",
        "source": _SOURCES[talk["source"]],
        "return": worth,
        "worth": None if worth is None else number(worth, 2, signed=True),
        "ended": talk["ended"],
        "hidden": talk.get("hidden"),
        "surprise": 1 - min(likely) if likely else None,
        "opening": talk["opening"],
        "opening_as": _named(talk["opening"], say.openings[talk["first"]]),
        "first": bars(talk["first_belief"], names),
        "turns": [_turn(t, names, say) for t in turns],
        "cut": len(talk["turns"]) - len(turns),
        "spark": belief_columns(beliefs),
        "columns": belief_columns(beliefs, large=True),
    }


def _turn(t: Turn, names: list[str], say: Phrases) -> dict[str, Any]:
    marks = []
    if t.get("fallback"):
        marks.append("the plan had lost track here: the clone spoke")
    if _far(t["distance"]):
        marks.append("what was said is read as other")
    heard = []
    if _far(t["heard_distance"]):
        heard.append("read as other")
    if t.get("impossible"):
        heard.append("the model thought this impossible")
    planned = t.get("planned")
    return {
        "said": t["said"],
        "act": _named(t["said"], say.acts[t["act"]]),
        "distance": _distance(t["distance"]),
        "planned": None if planned is None or planned == t["act"] else quoted(say.acts[planned]),
        "marks": marks,
        "heard": t["heard"],
        "answer": None if t["heard"] is None else _named(t["heard"], say.answers[t["answer"]]),
        "heard_distance": _distance(t["heard_distance"]),
        "heard_marks": heard,
        "probability": None if t["probability"] is None else percent(t["probability"]),
        "reward": None if not t["reward"] else number(t["reward"], 2, signed=True),
        "belief": None if t["belief"] is None else bars(t["belief"], names),
    }


def _named(text: str, phrase: str) -> str | None:
    """What a message was read as; None if that is the message itself."""
    return None if " ".join(text.split()) == phrase else quoted(phrase)


def _far(distance: float | None) -> bool:
    return distance is not None and distance >= 1


def _distance(distance: float | None) -> str | None:
    """A distance is worth a word if there is one."""
    return None if not distance else number(distance, 2)
