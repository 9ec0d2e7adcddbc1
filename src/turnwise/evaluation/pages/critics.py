"""What a run's critic knows, as pages show it: the sentence, its figures, and colours of conversations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from turnwise.evaluation.measures.critics.figures import ENOUGH
from turnwise.evaluation.pages.run_files import RunFiles
from turnwise.evaluation.pictures.style import number
from turnwise.run.errors import InputError

UNMEASURED = (
    "This critic was never held against conversations that it has not seen: its colours say nothing yet."
)
_MINUS = re.compile(r"(?<!\w)-(?=\d)")  # a sign, and no hyphen: -0.3, but not model-2
_PLACES = (("first", "the first turn"), ("last", "the last turn"), ("all", "all turns"))


@dataclass(frozen=True)
class Scale:
    """How the conversations of a run are drawn: what full colour is, and the axes of V."""

    full: float
    """the advantage that gets full colour: one standard deviation of the return"""
    knows: bool
    """whether the critic was shown to know anything; if not, nothing is coloured"""
    sentence: str
    """what is known of the critic"""
    returns: tuple[float, float] | None
    """the range of returns that the axes of V show"""
    mean: float | None
    """the mean return, drawn across"""


def scale_of(run: RunFiles) -> Scale:
    """From critic.json; without it nothing is known of the critic, and the card may know the returns."""
    found = run.critic
    if found is None:
        returns = (run.card or {}).get("return") or {}
        ends = (returns["min"], returns["max"]) if {"min", "max"} <= returns.keys() else None
        return Scale(float(returns.get("std") or 1.0), False, UNMEASURED, ends, returns.get("mean"))
    try:
        r = found["returns"]
        ends = (float(r["low"]), float(r["high"]))
        return Scale(r["std"], found["knows"] is True, typeset(found["sentence"]), ends, r["mean"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{run.folder / 'critic.json'}: no {error}; expected what train writes") from None


def critic_view(run: RunFiles) -> dict[str, Any] | None:
    """The figures of critic.json as the templates show them; None for a run without one."""
    found = run.critic
    if found is None:
        return None
    e = found["estimates"]
    shift = (run.evaluation or {}).get("shift") or found.get("shift")
    return {
        "sentence": typeset(found["sentence"]),
        "knows": found["knows"],
        "judged": "R² after calibration" if found["judged_by"] == "calibrated_r2" else "R²",
        "improved": e["improved"],
        "discount": _discount(e),
        "heldout": found["heldout"],
        "enough": ENOUGH,
        "cut": found["cut"],
        "learnt": found["learnt"],
        "std": number(found["returns"]["std"]),
        "rows": [_row(name, place, words, found) for name in ("v", "q") for place, words in _PLACES]
        if "q" in found
        else [],
        "turns": [
            _row(name, place, f"turn {place}", found)
            for name in ("v", "q")
            for place in found.get(name, {})
            if place.isdigit()
        ],
        "shift": shift and shift["sentence"],
        "far": bool(shift) and shift["p95"] > shift["far"],
    }


def typeset(text: str) -> str:
    """A text with minus signs where hyphens stand for them."""
    return _MINUS.sub("−", text)


def _discount(e: Mapping[str, Any]) -> str:
    """Which return the values are held against, in words."""
    if e["gamma"] == 1 and e["gamma_within_turn"] == 1:
        return "undiscounted, as its gamma of 1 says"
    within = f" and {e['gamma_within_turn']:g} a token" if e["gamma_within_turn"] != 1 else ""
    return f"discounted by its gamma, {e['gamma']:g} a turn{within}"


def _row(name: str, place: str, words: str, found: Mapping[str, Any]) -> dict[str, Any]:
    entry = found[name][place]
    own, theirs = entry["critic"], entry["words"]
    return {
        "name": f"{name.upper()}, {words}",
        "judged": name == "q" and place == "all",
        "turns": f"{entry['turns']:,}",
        "constant": number(entry["constant"]),
        "figures": [
            _figure(x)
            for x in (
                *(own[k] for k in ("r2", "calibrated_r2", "spearman", "slope", "intercept")),
                *(theirs[k] for k in (found["judged_by"], "spearman")),
            )
        ],
    }


def _figure(x: Mapping[str, float] | None) -> tuple[str, str]:
    """The figure and its interval; empty if it cannot be told."""
    if x is None:
        return "", ""
    return number(x["value"], 2), f"{number(x['low'], 2)} to {number(x['high'], 2)}"
