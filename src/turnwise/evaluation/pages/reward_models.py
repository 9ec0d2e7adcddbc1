"""The page of a reward model: how far it can be trusted, from `quality.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from turnwise.data.cards.feedback import describe_feedback, feedback_warnings
from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.provenance import facts_of_runs
from turnwise.evaluation.pages.run_files import RunFiles, read_object
from turnwise.evaluation.pages.training import training_view
from turnwise.evaluation.pictures.feedback import reliability_plot
from turnwise.evaluation.pictures.style import number

_PARTS = ("feedback/reward.html", "curves.html", "feedback/data.html")
_NAMES = {
    "tau": "Kendall’s tau",
    "log_loss": "log loss, nats (a coin: 0.693)",
    "rmse": "root mean squared error",
    "r2": "R² (always giving the mean: 0)",
    "length_correlation": "correlation of rewards with length",
    "disagreement": "disagreement of the members",
}


def reward_page(run: RunFiles) -> Page:
    """Accuracy and calibration on held-out feedback, where it is most wrong, curves and feedback."""
    shown = {"id": "r0", "title": run.name, "folder": run.folder.name, "there": True, **training_view(run)}
    values = {
        "title": f"{run.algorithm.title}: {run.name}",
        "aim": f"A reward model of {(run.config or {}).get('feedback')}.",
        "facts": facts_of_runs([run], run.folder / "config.yaml"),
        "family": run.algorithm.family,
        "ended": run.ended,
        "runs": [shown],
        **reward_view(read_object(run.folder / "quality.json")),
        **feedback_view(run.card),
    }
    return Page(_PARTS, "feedback/words.html", values, [run])


def feedback_view(card: Mapping[str, Any] | None) -> dict[str, Any]:
    """The feedback that was learnt from, by its card (`card.json`)."""
    return {
        "card_lines": describe_feedback(card) if card else [],
        "warnings": feedback_warnings(card) if card else [],
        "learnt_items": (card or {}).get("learnt"),
        "heldout_items": (card or {}).get("held_out"),
    }


def reward_view(quality: Mapping[str, Any] | None) -> dict[str, Any]:
    """The figures of `quality.json`, which `measures.judges.judge` computes, as the page shows them."""
    q = quality or {}
    calibration = q.get("calibration")
    return {
        "answer": answer_of_reward(q),
        "figures": _figures(q),
        "ranked": "tau" in q,
        "pairs": "longer_wins" in q,
        "accurate": "accuracy" in q,
        "items": q.get("items"),
        "prompts": q.get("prompts"),
        "reliability": reliability_plot(calibration["curve"], "reliability") if calibration else None,
        "by_margin": q.get("by_margin", []),
        "by_length": q.get("by_length", []),
        "worst": q.get("worst", []),
    }


def _figures(q: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value), each beside what it must beat if there is such a thing."""
    found = []
    if "accuracy" in q:
        of = "accuracy over pairs of replies, held out" if "tau" in q else "accuracy, held out"
        found.append((of, f"{q['accuracy']:.1%}{_interval(q)}"))
    if q.get("base_rate") is not None:
        found.append(("always the commoner answer", f"{q['base_rate']:.1%}"))
    if q.get("longer_wins") is not None:
        found.append(("the longer reply wins", f"{q['longer_wins']:.1%}"))
    if q.get("auc"):
        found.append(("a liked reply above a disliked one (AUC; a coin: 50%)", "".join(auc_figures(q))))
    if q.get("ties"):
        found.append(("ties, not counted", number(q["ties"], 0)))
    found += [(text, number(q[k], 3)) for k, text in _NAMES.items() if q.get(k) is not None]
    if calibration := q.get("calibration"):
        found.append(("calibration error (ECE; perfect: 0)", number(calibration["ece"], 3)))
        found.append(("Brier score (a coin: 0.25)", number(calibration["brier"], 3)))
    return found


def _interval(estimate: Mapping[str, Any]) -> str:
    if estimate.get("low") is None:
        return ""
    return f" (95% interval {estimate['low']:.1%} to {estimate['high']:.1%})"


def answer_of_reward(q: Mapping[str, Any]) -> dict[str, Any] | None:
    """How good it is on held-out feedback, beside a rule that needs no model."""
    if "rmse" in q:
        return _answer_of_scores(q)
    if "accuracy" not in q:
        return None
    form = "It gives the preferred reply the higher reward in <b>{}</b>{} of the held-out pairs."
    if q.get("base_rate") is not None:
        form = "It tells liked from disliked in <b>{}</b>{} of the held-out replies."
    return {"sentence": Markup(form).format(*accuracy_figures(q)), "notes": without_model(q)}


def _answer_of_scores(q: Mapping[str, Any]) -> dict[str, Any]:
    form = "On held-out scores its root mean squared error is <b>{}</b>{}."
    ends = f" (95% interval {number(q['low'], 3)} to {number(q['high'], 3)})" if "low" in q else ""
    sentence = Markup(form).format(number(q["rmse"], 3), ends)
    if q["r2"] is None:
        return {"sentence": sentence, "notes": ["All held-out scores are the same, so there is no R²."]}
    note = f"Its squared error is {1 - q['r2']:.0%} of the error of always giving their mean"
    gain = q["gain"]
    if gain["low"] is None:
        return {"sentence": sentence, "notes": [f"{note}."]}
    note += f" (95% interval {1 - gain['high']:.0%} to {1 - gain['low']:.0%})"
    if gain["low"] <= 0 <= gain["high"]:
        note += ": these items do not settle whether it does better"
    return {"sentence": sentence, "notes": [f"{note}."]}


def accuracy_figures(q: Mapping[str, Any]) -> tuple[str, str]:
    """Accuracy; and its interval if it has one."""
    return f"{q['accuracy']:.1%}", _interval(q)


def auc_figures(q: Mapping[str, Any]) -> tuple[str, str]:
    """How often a liked reply ranks above a disliked one; and its interval."""
    return f"{q['auc']['mean']:.1%}", _interval(q["auc"])


def without_model(q: Mapping[str, Any]) -> list[str]:
    """How right a rule without a model is, and whether the model's difference to it is settled."""
    plain, rule = q.get("longer_wins"), "choosing the longer reply"
    if plain is not None and plain < 0.5:
        plain, rule = 1 - plain, "choosing the shorter reply"
    if q.get("base_rate") is not None:
        plain, rule = q["base_rate"], "always giving the commoner answer"
    if plain is None:
        return []
    right, gain = f"{rule} is right in {plain:.1%}", q["gain"]
    if gain["low"] is None or gain["low"] <= 0 <= gain["high"]:
        note = f"Without a model, {right}: these items do not settle whether the model does better."
    else:
        note = f"That is {'more' if gain['low'] > 0 else 'less'} than without a model: {right}."
    if gain["low"] is not None:
        ends = " to ".join(f"{number(100 * gain[k], 1, signed=True)}" for k in ("low", "high"))
        note += f" The 95% interval of the difference, item by item, is {ends} percentage points."
    return [note]
