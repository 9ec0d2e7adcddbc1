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
    few = q.get("few", False)  # a share of so few items, or of a quarter of them, would look like knowledge
    calibration = None if few else q.get("calibration")
    return {
        "answer": answer_of_reward(q),
        "figures": _figures(q),
        "ranked": "tau" in q,
        "pairs": "rules" in q and "auc" not in q,
        "accurate": "accuracy" in q or bool(q.get("auc")),
        "items": q.get("items"),
        "prompts": q.get("prompts"),
        "reliability": reliability_plot(calibration["curve"], "reliability") if calibration else None,
        "by_margin": [] if few else q.get("by_margin", []),
        "by_length": [] if few else q.get("by_length", []),
        "worst": q.get("worst", []),
    }


def _figures(q: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value), each beside what it must beat if there is such a thing."""
    found = []
    if q.get("auc"):
        name = "a liked reply above a disliked one (AUC; a coin: 50%)"
        found.append((name, f"{part_in_words(q, q['auc']['mean'])}{interval_words(q['auc'])}"))
    if "accuracy" in q and "auc" not in q:
        of = "accuracy over pairs of replies, held out" if "tau" in q else "accuracy, held out"
        found.append((of, f"{part_in_words(q, q['accuracy'])}{interval_words(q)}"))
    for rule, right in q.get("rules", {}).items():
        found.append((f"the {rule} reply wins", part_in_words(q, right)))
    if q.get("words"):
        name = "a bag of words that learnt from the same"
        if "rmse" in q:
            ends = (
                ""
                if q["words"]["low"] is None
                else " (95% interval {} to {})".format(*(number(q["words"][k], 3) for k in ("low", "high")))
            )
            found.append((f"{name}: R²", f"{number(q['words']['mean'], 3)}{ends}"))
        else:
            found.append((name, f"{part_in_words(q, q['words']['mean'])}{interval_words(q['words'])}"))
    if "liked" in q:
        found.append(("liked and disliked, held out", f"{q['liked']:,} and {q['disliked']:,}"))
    if "base_rate" in q and not q.get("few"):
        found.append(("right at reward 0 (above: liked)", f"{q['accuracy']:.1%}{interval_words(q)}"))
        found.append(("always the answer that is commoner in what was learnt from", f"{q['base_rate']:.1%}"))
    if q.get("ties"):
        found.append(("ties, not counted", number(q["ties"], 0)))
    found += [(text, number(q[k], 3)) for k, text in _NAMES.items() if q.get(k) is not None]
    if "base_log_loss" in q:
        name = "log loss of always giving the share of likes that was learnt from"
        found.append((name, number(q["base_log_loss"], 3)))
    if (calibration := q.get("calibration")) and not q.get("few"):
        found.append(("calibration error (ECE; perfect: 0)", number(calibration["ece"], 3)))
        found.append(("Brier score (a coin: 0.25)", number(calibration["brier"], 3)))
    return found


def interval_words(estimate: Mapping[str, Any]) -> str:
    """` (95% interval 58.0% to 69.0%)` of a share; nothing if it has none."""
    if estimate.get("low") is None:
        return ""
    return f" (95% interval {estimate['low']:.1%} to {estimate['high']:.1%})"


def part_in_words(q: Mapping[str, Any], right: float) -> str:
    """A share in percent, or in counts if it is one of few: "83.3%" of 6 would look like knowledge."""
    if q.get("few"):
        return f"{number(right * q['compared'], 1 if right * q['compared'] % 1 else 0)} of {q['compared']:,}"
    return f"{right:.1%}"


def part_of(q: Mapping[str, Any], right: float, things: str) -> str:
    """`63.5% of the held-out pairs`, or `5 of the 6 held-out pairs` if they are few."""
    if not q.get("few"):
        return f"{right:.1%} of the {things}"
    if q["compared"] == 1:
        return f"{part_in_words(q, right)} {things}".replace("pairs", "pair")
    return part_in_words(q, right).replace(" of ", " of the ") + f" {things}"


def answer_of_reward(q: Mapping[str, Any]) -> dict[str, Any] | None:
    """How good it is on held-out feedback, beside a rule that needs no model; before it, what forbids to
    say so.
    """
    if "rmse" in q:
        return _answer_of_scores(q)
    cautions, sentence, notes = q.get("cautions", []), None, list[str]()
    if q.get("auc"):
        form = "It gives a liked reply a higher reward than a disliked one in <b>{}</b>{}."
        of = part_of(q, q["auc"]["mean"], "pairs of a liked and a disliked reply that were held out")
        sentence = Markup(form).format(of, interval_words(q["auc"]))
        notes = ["That share is the AUC; a coin is right in 50%.", *without_model(q)]
    elif "accuracy" in q:
        things = "pairs of replies in held-out rankings" if "tau" in q else "held-out pairs"
        form = "It gives the preferred reply the higher reward in <b>{}</b>{}."
        of = part_of(q, q["accuracy"], things)
        sentence, notes = Markup(form).format(of, interval_words(q)), without_model(q)
    elif not cautions:
        return None
    return {"cautions": cautions, "sentence": sentence, "notes": notes}


def _answer_of_scores(q: Mapping[str, Any]) -> dict[str, Any]:
    form = "On held-out scores its root mean squared error is <b>{}</b>{}."
    ends = f" (95% interval {number(q['low'], 3)} to {number(q['high'], 3)})" if "low" in q else ""
    sentence = Markup(form).format(number(q["rmse"], 3), ends)
    found = {"cautions": q.get("cautions", []), "sentence": sentence}
    if q["r2"] is None:
        return found | {"notes": ["All held-out scores are the same, so there is no R²."]}
    note = f"Its squared error is {1 - q['r2']:.0%} of the error of always giving their mean"
    gain = q["gain"]
    if gain["low"] is None:
        return found | {"notes": [f"{note}."]}
    note += f" (95% interval {1 - gain['high']:.0%} to {1 - gain['low']:.0%})"
    if gain["low"] <= 0 <= gain["high"]:
        note += ": these items do not settle whether it does better"
    return found | {"notes": [f"{note}."]}


def without_model(q: Mapping[str, Any]) -> list[str]:
    """How right a rule without a model is, and whether the model's difference to it is settled."""
    if "rule" not in q:
        return []
    rule = f"choosing the {q['rule']} reply, which was preferred more often in what was learnt from,"
    gain, right = q["gain"], f"{rule} is right in {part_in_words(q, q['rules'][q['rule']])}"
    if gain["low"] is None or gain["low"] <= 0 <= gain["high"] or q.get("few"):
        note = f"Without a model, {right}: these items do not settle whether the model does better."
    else:
        note = f"That is {'more' if gain['low'] > 0 else 'less'} than without a model: {right}."
    if gain["low"] is not None and not q.get("few"):
        ends = " to ".join(f"{number(100 * gain[k], 1, signed=True)}" for k in ("low", "high"))
        note += f" The 95% interval of the difference, item by item, is {ends} percentage points."
    if not q.get("words"):
        return [note]
    right = f"{part_in_words(q, q['words']['mean'])}{interval_words(q['words'])}"
    return [note, f"A bag of words that learnt from the same is right in {right}."]
