"""What the pages of policies that learn from replies or preferences show beside learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from turnwise.data.cards.feedback import describe_feedback, feedback_warnings
from turnwise.evaluation.pages.reward_models import share_above, share_right, without_model
from turnwise.evaluation.pictures.plots import ACCENT, LINE, STYLE, WARM, apart, number, svg, tick

REPLIES = {
    "dpo": "DPO",
    "kto": "KTO",
    "simpo": "SimPO",
    "orpo": "ORPO",
    "rloo": "RLOO",
    "grpo": "GRPO",
    "token-ppo": "PPO",
    "reply-reinforce": "REINFORCE",
    "online-dpo": "Online DPO",
    "best-of-n": "Best of n",
}
"""algorithms whose runs are of policies on replies, and what they are called"""
_SIZE = 460, 300


def is_of_replies(config: Mapping[str, Any]) -> bool:
    """Whether the run's policy learnt from replies or preferences."""
    return config.get("algorithm") in REPLIES


def reply_view(
    config: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    measured: Mapping[str, Any] | None,
    card: Mapping[str, Any] | None,
    quality: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What training came to; reward and gold against the distance from the reference; replies before and
    after; the feedback that was learnt from.
    """
    algorithm = REPLIES[config["algorithm"]]
    points = [m for m in metrics if "kl" in m and "reward" in m]
    rows = []
    for name, m in (measured or {}).items():
        if name in ("before", "after"):
            told = {k: "".join(_figures(m[k])) for k in ("reward", "gold") if k in m}
            rows.append({"name": name, "kl": m.get("kl"), "length": m.get("length"), **told})
    after = (measured or {}).get("after", {})
    before = (measured or {}).get("before", {})
    return {
        "answer": answer_of_replies(algorithm, measured),
        "agrees": answer_of_feedback(config["algorithm"], metrics, quality or {}),
        "judged_by": config.get("reward") or config.get("gold"),
        "rows": rows,
        "gold": any("gold" in r for r in rows),
        "rewarded": any("reward" in r for r in rows),
        "overoptimisation": overoptimisation_plot(points, "over") if len(points) > 1 else None,
        "golden": any("gold" in m for m in points),
        "examples": after.get("examples", []),
        "before": before.get("examples", []),
        "both": all("gold" in e for e in after.get("examples", [])) and any("reward" in r for r in rows),
        "judge": "Gold" if rows and not any("reward" in r for r in rows) else "Reward",
        "card_lines": describe_feedback(card) if card else [],
        "minds": feedback_warnings(card) if card else [],
        "apart": (measured or {}).get("held_out"),
        "learnt": (card or {}).get("learnt"),
        "held": (card or {}).get("held_out"),
    }


def answer_of_replies(name: str, measured: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """How reward and gold moved, and whether that is an improvement."""
    before, after, gained = ((measured or {}).get(key) for key in ("before", "after", "gained"))
    if not before or not after or not gained:
        return None
    names = {"reward": "the reward of its replies", "gold": "gold, their true worth,"}
    if "reward" not in gained:
        names["gold"] = "the gold of its replies, their true worth,"
    moved = []
    for key in (k for k in names if k in gained):
        places = _decimals(gained[key])
        was, now = (number(m[key]["mean"], places) for m in (before, after))
        form = "{} from <b>{}</b> to <b>{}</b> (by {}{})"
        moved.append(Markup(form).format(names[key], was, now, *_figures(gained[key], places, signed=True)))
    form = Markup("<b>{}</b> moves {}; it went {} nats a reply from where it began.")
    sentence = form.format(name, Markup(" and ").join(moved), number(after["kl"], 1))
    if any(x["low"] is None for x in gained.values()):
        return {"sentence": sentence, "notes": ["A single prompt tells nothing of the spread."]}
    if "reward" in after and after["reward"]["low"] == after["reward"]["high"] == before["reward"]["low"]:
        return {
            "sentence": sentence,
            "notes": ["The reward is the same for all: there was nothing to learn."],
        }
    return {"sentence": sentence, "notes": _verdict({k: _way(x) for k, x in gained.items()})}


def _verdict(way: Mapping[str, int]) -> list[str]:
    """Whether replies got better (1), worse (-1) or neither can be said (0), by the reward and in truth."""
    truth = way.get("gold")
    if truth is None:
        said = {
            1: "By the reward that it was trained on, replies got better.",
            -1: "By the reward that it was trained on, replies got worse.",
            0: "The interval holds 0: these replies do not settle whether the reward changed.",
        }[way["reward"]]
        return [said, "Whether they got better in truth, that reward cannot say."]
    if truth < 0 and way.get("reward", 0) > 0:
        return ["The reward rises and the truth falls: the policy exploits what the reward gets wrong."]
    return [
        {
            1: "Replies got better in truth.",
            -1: "Replies got worse in truth.",
            0: "The interval of gold holds 0: these replies do not settle whether they got better.",
        }[truth]
    ]


def _way(difference: Mapping[str, Any]) -> int:
    """1 or -1 where the whole interval lies above or below 0, else 0."""
    return int(difference["low"] > 0) - int(difference["high"] < 0)


def _decimals(found: Mapping[str, Any]) -> int:
    """As many as the interval carries."""
    width = 0.0 if found["low"] is None else found["high"] - found["low"]
    return min(4, max(0, 1 - math.floor(math.log10(width / 2)))) if width else 3


def answer_of_feedback(
    algorithm: str, metrics: Sequence[Mapping[str, Any]], q: Mapping[str, Any]
) -> dict[str, Any] | None:
    """How often the policy agrees with feedback that it did not learn from; of a run without a measurement,
    by what was logged last.
    """
    name = REPLIES[algorithm]
    if "accuracy" not in q and not q.get("auc"):
        logged = [m["heldout/rewards/accuracies"] for m in metrics if "heldout/rewards/accuracies" in m]
        if not logged:
            return None
        form = "<b>{}</b> agreed, when last looked at, with <b>{}</b> of the feedback held out."
        return {"sentence": Markup(form).format(name, f"{logged[-1]:.1%}"), "notes": []}
    by = (
        f"{name} prefers what it makes more likely than where it began did."
        if algorithm in ("dpo", "kto")
        else f"{name} prefers what it gives the higher log-probability a token."
    )
    if "accuracy" not in q:
        form = "<b>{}</b> puts a liked reply above a disliked one in <b>{}</b>{} of all such pairs held out."
        sentence = Markup(form).format(name, *share_above(q))
        return {"sentence": sentence, "notes": [f"A coin is right in 50%. {by}"]}
    form = "<b>{}</b> prefers what people preferred in <b>{}</b>{} of {} pairs held out."
    if "tau" in q:
        form = (
            "<b>{}</b> prefers the better of two replies in <b>{}</b>{} of the pairs in {} rankings held out."
        )
    decided = number(q["items"] - q.get("ties", 0), 0)
    notes = [*without_model(q), by]
    if q.get("before") is not None:
        notes.append(f"Where it began that was right in {q['before']:.1%}.")
    return {"sentence": Markup(form).format(name, *share_right(q), decided), "notes": notes}


def _figures(found: Mapping[str, Any], decimals: int = 3, *, signed: bool = False) -> tuple[str, str]:
    """A mean; and its interval, where it has one."""
    mean = number(found["mean"], decimals, signed=signed)
    if found["low"] is None:
        return mean, ""
    ends = (number(found[k], decimals, signed=signed) for k in ("low", "high"))
    return mean, ", {} to {}".format(*ends) if signed else " ({} to {})".format(*ends)


def overoptimisation_plot(points: Sequence[Mapping[str, Any]], key: str) -> Markup:
    """The reward that is learnt from, and gold where it is known, against the square root of the KL.

    Gao et al. 2023, arXiv:2210.10760, draw it so: for best of n both are nearly lines in sqrt(KL).
    """
    x = [math.sqrt(max(0.0, float(m["kl"]))) for m in points]
    series = [("reward", ACCENT, "-"), ("gold", WARM, (0, (5, 3)))]
    width, height = _SIZE
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((52 / width, 44 / height, 1 - 120 / width, 1 - 58 / height))
        axes.set(xlabel="square root of the KL to the reference, nats a reply")
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        axes.spines["left"].set_visible(False)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(y)))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        ends, last = [], []
        for name, colour, dashes in series:
            if not any(name in m for m in points):
                continue
            y = [float(m[name]) if name in m else math.nan for m in points]
            axes.plot(x, y, color=colour, linestyle=dashes, linewidth=1.7)
            axes.plot(x, y, "o", color=colour, markersize=3)
            last.append((name, y[-1], colour))
            ends.append(f"{name} from {number(y[0])} to {number(y[-1])}")
        bottom, top = axes.get_ylim()
        room = height - 58
        heights = apart([(y - bottom) / (top - bottom) * room for _, y, _ in last], 14)
        for (name, _, colour), place in zip(last, heights, strict=True):
            axes.text(1.02, place / room, name, transform=axes.transAxes, va="center_baseline", color=colour)
        return svg(figure, key, f"Over the square root of the KL up to {number(max(x))}: {'; '.join(ends)}")
