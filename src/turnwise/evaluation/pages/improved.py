"""improve.json: from logs to a better policy, as a page that leads with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from turnwise.evaluation.pages.compared import compared_view
from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.provenance import facts_of_runs
from turnwise.evaluation.pages.run_files import read_object, read_run
from turnwise.evaluation.pictures.comparison import Interval, comparison_plot
from turnwise.evaluation.pictures.style import number
from turnwise.run.errors import InputError

FILE = "improve.json"


def improved_page(folder: Path) -> Page:
    """The page of `improve.json`, which `turnwise improve` writes. InputError, naming the file, if it is
    none."""
    path = folder / FILE
    found = read_object(path) or {}
    run = read_run(folder, folder.resolve().name)
    try:
        view = improved_view(found, run.evaluation)
        compared = None if found["compared"] is None else compared_view(found["compared"])
        if compared is not None:  # the answer has been given
            compared |= {"heading": "By the logs alone", "sentence": None}
        logs, count = found["logs"], number(found["conversations"], 0)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration) as error:
        raise InputError(f"{path}: expected what turnwise improve writes ({error!r})") from None
    values = {
        "title": "A better policy from logged conversations",
        "aim": f"Learn from {count} conversations of {logs}, and say how much better what was learnt is.",
        "facts": facts_of_runs([run], path),
        "improved": view,
        "compared": compared,
    }
    parts = ("improve/answer.html", *(["estimate/compared.html"] if compared else []), "improve/stages.html")
    return Page(parts, "estimate/words.html", values, [run])


def said_before(found: Mapping[str, Any], page: str) -> dict[str, str]:
    """What improve.json says to do and what that would earn, as plain text, and where its page is."""
    rows = [] if found["compared"] is None else found["compared"]["rows"]
    logged = next((row for row in rows if row["logged"]), None)
    return {"sentence": _sentence(found, logged).striptags(), "page": page}


def improved_view(found: Mapping[str, Any], live: Mapping[str, Any] | None) -> dict[str, Any]:
    """All that the templates show; `live` is what the policy earned in talk, if anybody measured it."""
    choice, compared = found["choice"], found["compared"]
    rows = [] if compared is None else compared["rows"]
    logged = next((row for row in rows if row["logged"]), None)
    return {
        "sentence": _sentence(found, logged),
        "why": list(choice["why"]),
        "sure": _sure(found),
        "live": None if live is None or logged is None else _live(live, logged),
        "learnt": number(found["learnt"], 0),
        "judging": number(found["judging"], 0),
        "opinions": _opinions(found, rows, logged),
        "forest": _forest(found, logged),
        "stages": [
            {
                "title": x["title"],
                "about": x["about"],
                "page": None if x["failed"] else f"{x['name']}/report.html",
                "seconds": "" if x["failed"] else f"{x['seconds']:,.0f} s",
                "failed": x["failed"],
            }
            for x in found["stages"]
        ],
        "seconds": f"{found['seconds'] / 60:,.1f} minutes",
        "memory": f"{found['memory']['gigabytes']:.1f} GB",
    }


def _sentence(found: Mapping[str, Any], logged: Mapping[str, Any] | None) -> Markup:
    """What to do, and how much better that is."""
    choice = found["choice"]
    now = "" if logged is None else Markup(" It earned {}.").format(_ends(logged))
    if choice["word"] == "keep":
        return Markup("<b>Keep the agent that you have.</b>") + now
    assert logged is not None
    who = Markup("Take <b>{}</b>").format(choice["name"])
    if choice["t"] < 1:
        who = Markup("Go <b>{:.0%}</b> of the way to <b>{}</b>").format(choice["t"], choice["name"])
    return who + Markup(". It would earn <b>{}</b> a conversation, where the logged agent earned {}.").format(
        _ends(choice["worth"]), _ends(logged)
    )


def _sure(found: Mapping[str, Any]) -> Markup | None:
    choice = found["choice"]
    if choice["word"] == "keep":
        return None
    if choice["word"] == "vouched":
        return Markup(
            "<b>How sure:</b> the logs vouch for it. They hold enough of what it would do, and it is better "
            "with certainty, all candidates at once."
        )
    step = found["compared"]["safe"].get("as_run")
    said = Markup(
        "<b>How sure:</b> models say it, and not the logs alone. Let it talk in a part of the conversations "
        "first."
    )
    if step is not None:
        way = step["of"] if step["t"] == 1 else f"{step['t']:.0%} of the way to {step['of']}"
        said += Markup(" What the logs vouch for is less: {}, worth {}.").format(way, _ends(step["worth"]))
    return said


def _live(live: Mapping[str, Any], logged: Mapping[str, Any]) -> Markup:
    value = {"value": live["mean"], "low": live["low"], "high": live["high"]}
    return Markup("<b>Measured since:</b> in {} live conversations it earned <b>{}</b>.").format(
        number(live["episodes"], 0), _ends(value)
    )


def _opinions(found: Mapping[str, Any], rows: Any, logged: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    by_name = {row["name"]: row for row in rows}
    told = sorted(found["opinions"].items(), key=lambda x: -x[1]["value"])
    return [
        {
            "name": name,
            "chosen": name == found["choice"]["name"],
            "second": _ends(o),
            "first": _promised(by_name.get(name)),
            "gain": "" if logged is None else number(o["value"] - logged["value"], 3, signed=True),
        }
        for name, o in told
    ]


def _promised(row: Mapping[str, Any] | None) -> str:
    return "" if row is None or row["promised"] is None else _ends(row["promised"])


def _forest(found: Mapping[str, Any], logged: Mapping[str, Any] | None) -> list[Markup]:
    """What the second model says of each policy, with the logged agent as a line: wide and narrow."""
    if logged is None or not found["opinions"]:
        return []
    told = sorted(found["opinions"].items(), key=lambda x: -x[1]["value"])
    drawn = [Interval(n, o["value"], o["low"], o["high"], best=n == found["choice"]["name"]) for n, o in told]
    line = [Interval("logged agent", logged["value"], logged["low"], logged["high"])]
    return [
        comparison_plot(drawn, line, score="return of a conversation, by the second model", decimals=3,
                        narrow=narrow, key="opinions")
        for narrow in (False, True)
    ]  # fmt: skip


def _ends(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "no number"
    value = number(row["value"], 3)
    if row["low"] is None or row["high"] is None:
        return value
    return f"{value} ({number(row['low'], 3)} to {number(row['high'], 3)})"
