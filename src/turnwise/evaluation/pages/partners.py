"""The page of a partner from logs: how good a partner it is, before its curves and its conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.logs import logs_page
from turnwise.evaluation.pages.run_files import RunFiles, read_object
from turnwise.run.errors import InputError

QUALITY, TELLING = "partner_quality.json", "telling.json"
SIDES = ("partner", "task")
PARTS = ("partners/answer.html", "logs/data.html", "curves.html", "logs/conversations.html")


def partner_page(run: RunFiles) -> Page:
    """What `turnwise evaluate` found of the partner, else what its training held out says. InputError for
    files that are none of these."""
    quality, told = (read_object(run.folder / name) for name in (QUALITY, TELLING))
    try:
        view = partner_view(quality, told)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        name = TELLING if quality is None else QUALITY
        raise InputError(f"{run.folder / name}: expected what turnwise writes ({error!r})") from None
    page, source = logs_page(run), (run.config or {}).get("logs")
    aim = None if source is None else f"Learn the other side of the conversations of {source}, to talk with."
    return replace(page, parts=PARTS, values={**page.values, "aim": aim, "partner": view})


def partner_view(quality: Mapping[str, Any] | None, told: Mapping[str, Any] | None) -> dict[str, Any]:
    """All that the template shows."""
    found = quality or {}
    tests = [("answers at logged places", "answers_test"), ("whole talks", "talks_test")]
    down = found.get("downstream")
    return {
        "asked": quality is not None,
        "held_out": found.get("held_out"),
        "lines": list((quality or told or {}).get("lines", ())),
        "signs": [
            (what, [(s["sign"], f"{s['held']:.0%}", f"{s['logged']:.0%}") for s in found[key]["signs"]])
            for what, key in tests
            if found.get(key)
        ],
        "task": None if down is None else down["task"],
        "returns": [] if down is None else [_returns(row) for row in down["policies"]],
    }


def _returns(row: Mapping[str, Any]) -> dict[str, str]:
    cells = {k: f"{x['mean']:.3f} ({x['low']:.3f} to {x['high']:.3f})" for k, x in row.items() if k in SIDES}
    return {"policy": row["policy"], "gap": f"{row['gap']:+.3f}", **cells}
