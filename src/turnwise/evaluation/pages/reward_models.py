"""What the page of a reward model shows beside its learning curves: how far it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from turnwise.data.cards.feedback import describe_feedback, feedback_warnings
from turnwise.evaluation.pictures.plots import ACCENT, INK, LINE, MUTED, STYLE, number, svg

_SIZE = 420, 380
_NAMES = {
    "tau": "Kendall’s tau",
    "log_loss": "log loss, nats (a coin: 0.693)",
    "rmse": "root mean squared error",
    "r2": "R²",
    "length_correlation": "correlation of rewards with length",
    "disagreement": "disagreement of the members",
}


def is_of_reward(config: Mapping[str, Any]) -> bool:
    """Whether the run is of a reward model."""
    return config.get("algorithm") == "reward"


def reward_view(card: Mapping[str, Any] | None, quality: Mapping[str, Any] | None) -> dict[str, Any]:
    """Accuracy and calibration on held-out feedback, and where it is most wrong."""
    q = quality or {}
    facts = []
    if "accuracy" in q:
        of = "accuracy over pairs of replies, held out" if "tau" in q else "accuracy, held out"
        facts.append((of, f"{q['accuracy']:.1%}{_interval(q)}"))
    if q.get("base_rate") is not None:
        facts.append(("always the commoner answer", f"{q['base_rate']:.1%}"))
    if q.get("longer_wins") is not None:
        facts.append(("the longer reply wins", f"{q['longer_wins']:.1%}"))
    if q.get("auc"):
        facts.append(("a liked reply above a disliked one (AUC)", "".join(share_above(q))))
    if q.get("ties"):
        facts.append(("ties, apart", number(q["ties"], 0)))
    facts += [(text, number(q[k], 3)) for k, text in _NAMES.items() if q.get(k) is not None]
    calibration = q.get("calibration")
    if calibration:
        facts += [("calibration error (ECE)", number(calibration["ece"], 3))]
        facts += [("Brier score (a coin: 0.25)", number(calibration["brier"], 3))]
    return {
        "answer": answer_of_reward(q),
        "facts_of_reward": facts,
        "ranked": "tau" in q,
        "items": q.get("items"),
        "prompts": q.get("prompts"),
        "folded": "longer_wins" in q and "tau" not in q,
        "reliability": reliability_plot(calibration["curve"], "reliability") if calibration else None,
        "by_margin": q.get("by_margin", []),
        "by_length": q.get("by_length", []),
        "worst": q.get("worst", []),
        "card_lines": describe_feedback(card) if card else [],
        "minds": feedback_warnings(card) if card else [],
        "learnt": (card or {}).get("learnt"),
        "held": (card or {}).get("held_out"),
    }


def _interval(q: Mapping[str, Any]) -> str:
    return f" ({q['low']:.1%} to {q['high']:.1%}, 95%)" if q.get("low") is not None else ""


def _of_scores(q: Mapping[str, Any]) -> dict[str, Any]:
    form = "On scores held out its root mean squared error is <b>{}</b>{}."
    ends = f" ({number(q['low'], 3)} to {number(q['high'], 3)}, 95%)" if "low" in q else ""
    sentence = Markup(form).format(number(q["rmse"], 3), ends)
    if q["r2"] is None:
        return {"sentence": sentence, "notes": ["All of them are the same."]}
    note = f"Its squared error is {1 - q['r2']:.0%} of what always giving their mean would have"
    gain = q["gain"]
    if gain["low"] is None:
        return {"sentence": sentence, "notes": [f"{note}."]}
    note += f" ({1 - gain['high']:.0%} to {1 - gain['low']:.0%}, 95%)"
    if gain["low"] <= 0 <= gain["high"]:
        note += ": these items do not settle whether it does better"
    return {"sentence": sentence, "notes": [f"{note}."]}


def answer_of_reward(q: Mapping[str, Any]) -> dict[str, Any] | None:
    """How good it is on what was held out, beside what no model is needed for."""
    if "rmse" in q:
        return _of_scores(q)
    if "accuracy" not in q:
        return None
    form = "It gives the preferred reply the higher reward in <b>{}</b>{} of the pairs held out."
    if q.get("base_rate") is not None:
        form = "It tells liked from disliked in <b>{}</b>{} of the replies held out."
    return {"sentence": Markup(form).format(*share_right(q)), "notes": without_model(q)}


def share_right(q: Mapping[str, Any]) -> tuple[str, str]:
    """Accuracy; and its interval, where it has one."""
    return f"{q['accuracy']:.1%}", _interval(q)


def share_above(q: Mapping[str, Any]) -> tuple[str, str]:
    """How often a liked reply stands above a disliked one; and its interval."""
    return f"{q['auc']['mean']:.1%}", _interval(q["auc"])


def without_model(q: Mapping[str, Any]) -> list[str]:
    """How right one would be without a model, and whether the difference is settled."""
    plain, what = q.get("longer_wins"), "choosing the longer reply"
    if plain is not None and plain < 0.5:
        plain, what = 1 - plain, "choosing the shorter reply"
    if q.get("base_rate") is not None:
        plain, what = q["base_rate"], "always giving the commoner answer"
    if plain is None:
        return []
    right, gain = f"{what} is right in {plain:.1%}", q["gain"]
    if gain["low"] is None or gain["low"] <= 0 <= gain["high"]:
        note = f"Without a model, {right}: these items do not settle whether it does better."
    else:
        note = f"That is {'more' if gain['low'] > 0 else 'less'} than without a model: {right}."
    if gain["low"] is not None:
        ends = " to ".join(f"{number(100 * gain[k], 1, signed=True)}" for k in ("low", "high"))
        note += f" The difference on the same items is {ends} points (95%)."
    return [note]


def reliability_plot(curve: Sequence[Mapping[str, Any]], key: str) -> Markup:
    """How often it was so against what was said, counts beside the dots; the diagonal is perfect."""
    width, height = _SIZE
    most = max(b["count"] for b in curve)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((52 / width, 44 / height, 1 - 96 / width, 1 - 62 / height))
        axes.set(xlabel="probability that it gives", ylabel="share that was so", xlim=(0, 1), ylim=(0, 1))
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        axes.spines["left"].set_visible(False)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (5, 3)))
        axes.annotate("perfect", (1, 1), xytext=(4, 0), textcoords="offset points", va="center", color=MUTED)
        x, y = [b["said"] for b in curve], [b["happened"] for b in curve]
        axes.plot(x, y, color=ACCENT, linewidth=1.7)
        sizes = [10 + 60 * b["count"] / most for b in curve]
        axes.scatter(x, y, s=sizes, color=ACCENT, zorder=3, linewidths=0, clip_on=False)
        for b in curve:
            below = b["happened"] > 0.12
            axes.annotate(number(b["count"], 0), (b["said"], b["happened"]), color=INK, size=10,
                          xytext=(7, -13) if below else (-7, 9), textcoords="offset points",
                          ha="left" if below else "right")  # fmt: skip
        told = "; ".join(
            f"{number(b['said'], 2)} said, {number(b['happened'], 2)} so, {number(b['count'], 0)} times"
            for b in curve
        )
        return svg(figure, key, f"Reliability: {told}")
