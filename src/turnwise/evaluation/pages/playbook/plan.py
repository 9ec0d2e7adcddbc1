"""The plan itself: hidden states, what answers tell, the graph, and the acts with their worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from turnwise.evaluation.measures.playbook.schema import Act, Graph, Playbook
from turnwise.evaluation.pages.playbook.phrases import Phrases, quoted
from turnwise.evaluation.pictures.plan import Box, Way, plan_graph
from turnwise.evaluation.pictures.states import COLOURS, percent
from turnwise.evaluation.pictures.style import number

_TRAITS = 4  # of a state
_ACTS = 80  # rows of the table of acts
_NOTABLE = 0.02  # nats: an act whose answers tell less is no question


def bars(belief: Sequence[float], names: Sequence[str]) -> list[dict[str, Any]]:
    """The parts of a belief for a bar, and the likely ones in words."""
    likely = sorted(range(len(belief)), key=lambda i: -belief[i])[: 4 if len(belief) < 5 else 3]
    shown = {i for i in likely if belief[i] >= 0.05}
    return [
        {
            "c": i % COLOURS,
            "width": f"{100 * b:.1f}",
            "name": names[i],
            "percent": percent(b),
            "said": i in shown,
        }
        for i, b in enumerate(belief)
    ]


def states_view(book: Playbook, say: Phrases) -> list[dict[str, Any]]:
    """Each state with how common it is and what sets it apart."""
    return [
        {
            "name": s["name"],
            "c": i % COLOURS,
            "width": f"{100 * s['start']:.1f}",
            "start": percent(s["start"]),
            "share": None if s["share"] is None else percent(s["share"]),
            "traits": [say.trait(t) for t in s["traits"][:_TRAITS]],
        }
        for i, s in enumerate(book["states"])
    ]


def looks_view(book: Playbook, say: Phrases) -> dict[str, Any]:
    """What answers do to the belief, for the acts that ask; most informative first."""
    names = [s["name"] for s in book["states"]]
    found = []
    for look in sorted(book["looks"], key=lambda look: -look["information"]):
        doubt = -math.fsum(p * math.log(p) for p in look["before"] if p > 0)
        if look["information"] < _NOTABLE or doubt <= 0:
            continue
        found.append(
            {
                "act": quoted(say.acts[look["act"]]),
                "removes": percent(min(1.0, look["information"] / doubt)),
                "before": bars(look["before"], names),
                "rest": percent(look["rest"]) if look["rest"] >= 0.005 else None,
                "ends": percent(look["ends"]) if look["ends"] >= 0.005 else None,
                "answers": [
                    {
                        "answer": quoted(say.answers[seen["answer"]]),
                        "probability": percent(seen["probability"]),
                        "after": bars(seen["after"], names),
                    }
                    for seen in look["answers"]
                ],
            }
        )
    return {"asked": found, "silent": len(book["looks"]) - len(found), "known": bool(book["looks"])}


def graph_view(book: Playbook, say: Phrases) -> dict[str, Any] | None:
    """The graph as a picture and as a list; None if there is none."""
    graph = book["graph"]
    if graph is None or not graph["nodes"]:
        return None
    names = [s["name"] for s in book["states"]]
    boxes = graph_boxes(book, say)
    rows = []
    for i, box in enumerate(boxes, 1):
        leads = sorted((e for e in graph["edges"] if e["source"] == i - 1), key=lambda e: -e["probability"])
        rows.append(
            {
                "number": i,
                "turn": box.turn + 1,
                "says": quoted(box.says),
                "probability": percent(box.probability),
                "belief": bars(box.belief, names),
                "ends": percent(box.ends) if box.ends >= 0.005 else None,
                "hidden": percent(box.hidden) if box.hidden >= 0.005 else None,
                "after": [quoted(a) for way in box.ways if way.source is None for a in way.answers],
                "leads": [
                    {
                        "answers": [quoted(say.answers[o]) for o in e["answers"][:6]],
                        "more": max(0, len(e["answers"]) - 6),
                        "probability": percent(e["probability"]),
                        "to": e["target"] + 1,
                    }
                    for e in leads
                ],
            }
        )
    return {
        "plot": plan_graph(boxes, names),
        "rows": rows,
        "left_out": percent(graph["left_out"]) if graph["left_out"] >= 0.005 else None,
        "longest": graph["longest"],
        "legend": [{"c": i % COLOURS, "name": name} for i, name in enumerate(names)],
    }


def graph_boxes(book: Playbook, say: Phrases) -> list[Box]:
    """The places of the graph as they are drawn, in their order; none if there is no graph."""
    graph = book["graph"]
    return [] if graph is None else [_drawn(graph, i, say) for i in range(len(graph["nodes"]))]


def _drawn(graph: Graph, i: int, say: Phrases) -> Box:
    node = graph["nodes"][i]
    ways = [
        Way(e["source"], tuple(say.answers[o] for o in e["answers"]), e["probability"])
        for e in sorted(graph["edges"], key=lambda e: -e["probability"])
        if e["target"] == i
    ]
    if len(say.openings) > 1 and graph["openings"][i]:
        leading = sorted(graph["openings"][i], key=lambda pair: -pair[1])
        texts = tuple(say.openings[f] for f, _ in leading)
        ways.append(Way(None, texts, math.fsum(p for _, p in leading)))
    gone = math.fsum(e["probability"] for e in graph["edges"] if e["source"] == i) + graph["ends"][i]
    says, ends = say.acts[node["act"]], graph["ends"][i]
    return Box(node["turn"], says, node["probability"], node["belief"], ways, ends, max(0.0, 1 - gone))


def acts_view(book: Playbook, say: Phrases) -> dict[str, Any]:
    """Acts with what logged conversations earned after them, and with what the model says they are worth."""
    used = [i for i, a in enumerate(book["acts"]) if a.get("count") != 0 or a["planned"]]  # or never known of
    order = sorted(used, key=lambda i: _rank(book["acts"][i]))
    rows = []
    for i in order[:_ACTS]:
        act = book["acts"][i]
        logged = act["logged_return"]
        interval = ""
        if logged is not None and logged["low"] is not None and logged["high"] is not None:
            interval = f"{number(logged['low'], 2)} to {number(logged['high'], 2)}"
        rows.append(
            {
                "says": quoted(say.acts[i]),
                "name": act["name"] if act["name"] and act["name"] != say.acts[i] else None,
                "examples": [" ".join(x.split()) for x in act.get("examples", [])[:4]],
                "count": number(act.get("count") or 0, 0),
                "logged": "" if logged is None else number(logged["mean"], 2),
                "interval": interval,
                "q": "" if act["q"] is None else number(act["q"], 2),
                "q_start": "" if act["q_start"] is None else number(act["q_start"], 2),
                "planned": "" if act["planned"] is None else number(act["planned"], 2),
            }
        )
    return {"rows": rows, "more": max(0, len(order) - _ACTS)}


def _rank(act: Act) -> tuple[float, float]:
    """What the plan uses most comes first, then what was logged most."""
    return -(act["planned"] or 0.0), -(act.get("count") or 0)
