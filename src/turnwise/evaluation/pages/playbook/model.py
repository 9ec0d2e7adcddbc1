"""How far the model can be believed: what it predicts, how many states, and the two warnings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from turnwise.evaluation.measures.playbook.schema import Figure, Fit, Playbook
from turnwise.evaluation.pictures.states import choices_plot
from turnwise.evaluation.pictures.style import number

_TOLD = {
    "wording": (
        "The agent’s wording still predicts the answer",
        "The agent’s wording tells nothing more about the answer",
        "given the act and the belief. Then acts are too coarse, or the words themselves matter: what the "
        "model calls one act is several",
        "given the act and the belief",
    ),
    "dropped": (
        "What the codebook dropped predicts what the logged agent did",
        "What the codebook dropped does not predict what the logged agent did",
        "given the belief. The logged agent acted on something that the model does not see, so what followed "
        "its acts may be due to that, and the plan may be wrong",
        "given the belief",
    ),
}


def warnings_view(book: Playbook) -> list[dict[str, Any]]:
    """Each warning in words: whether it applies, by how much, and what that means."""
    found = []
    for w in book["warnings"]:
        warns, calm, means, given = _TOLD[w["kind"]]
        gain = w["gain"]
        applies = gain["low"] is not None and gain["low"] > 0
        unknown = gain["low"] is None
        if unknown:
            said = f"{warns if gain['mean'] > 0 else calm}, {given}, but there is too little for an interval"
        elif applies:
            said = f"{warns}, {means}"
        else:
            said = f"{calm}, {given}, as far as this could be measured"
        figure = f"{_nats(gain)} nats gained per {'answer' if w['kind'] == 'wording' else 'act'}"
        found.append({"applies": applies, "said": f"{said}.", "figure": figure, "note": w.get("note") or ""})
    return found


def _nats(f: Figure) -> str:
    text = number(f["mean"], 3)
    if f["low"] is None or f["high"] is None:
        return text
    return f"{text} ({number(f['low'], 3)} to {number(f['high'], 3)})"


def fit_view(book: Playbook) -> dict[str, Any] | None:
    """Predictors beside the model, and held-out likelihood against the number of states."""
    fit = book["fit"]
    if fit is None:
        return None
    rows = [
        {
            "name": p["name"],
            "mean": number(p["mean"], 3),
            "interval": _interval(p),
            "best": p["kind"] == "model",
            "reference": p["kind"] == "true",
        }
        for p in sorted(fit["predictors"], key=lambda p: -p["mean"])
    ]
    chosen = fit["chosen"], fit.get("phases", fit["chosen"])
    return {
        "rows": rows,
        "verdict": _verdict(fit),
        "conversations": None if fit["conversations"] is None else number(fit["conversations"], 0),
        "choices": [
            {"states": c["states"], "mean": number(c["mean"], 3), "interval": _interval(c),
             "best": (c["states"], c.get("phases", c["states"])) == chosen}
            for c in fit["choices"]
        ],
        "chosen": fit["chosen"],
        "phases": chosen[1],
        "plot": choices_plot(fit["choices"], chosen) if len(fit["choices"]) > 1 else None,
    }  # fmt: skip


def _interval(f: Figure) -> str:
    if f["low"] is None or f["high"] is None:
        return "none"
    return f"{number(f['low'], 3)} to {number(f['high'], 3)}"


def _verdict(fit: Fit) -> str | None:
    """What the comparison comes to, in a sentence."""
    own = next((p for p in fit["predictors"] if p["kind"] == "model"), None)
    others = [p for p in fit["predictors"] if p["kind"] not in ("model", "true")]
    if own is None or not others:
        return None
    better = [p for p in others if p["mean"] < own["mean"]]
    if better:
        names = _listed([p["name"] for p in better])
        verb = "predicts" if len(better) == 1 else "predict"
        return (
            f"{names[:1].upper()}{names[1:]} {verb} held-out conversations better than this model: there is "
            "something in them that its hidden states do not hold."
        )
    blind = next((p for p in others if p["kind"] == "one-step"), None)
    if blind is None:
        return "Nothing that was compared predicts held-out conversations better than this model."
    return (
        "Nothing that was compared predicts held-out conversations better than this model. Its hidden states "
        f"gain {number(blind['mean'] - own['mean'], 3)} nats per symbol over a model without them."
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
