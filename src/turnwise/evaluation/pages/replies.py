"""The page of a policy that learnt from preferences, or from rewards of its own replies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.provenance import facts_of_runs
from turnwise.evaluation.pages.reward_models import (
    feedback_view,
    interval_words,
    part_of,
    without_model,
)
from turnwise.evaluation.pages.run_files import RunFiles, read_object
from turnwise.evaluation.pages.training import training_view
from turnwise.evaluation.pictures.feedback import overoptimisation_plot
from turnwise.evaluation.pictures.style import number

_JUDGES = {"reward": "Reward", "gold": "Gold"}
_PARTS = ("feedback/replies.html", "curves.html", "feedback/data.html")


def reply_page(run: RunFiles) -> Page:
    """What training came to, from `replies.json` and `quality.json`, with curves and feedback."""
    config = run.config or {}
    measured, quality = (read_object(run.folder / f"{name}.json") for name in ("replies", "quality"))
    source = config.get("feedback") or config.get("prompts")
    shown = {"id": "r0", "title": run.name, "folder": run.folder.name, "there": True, **training_view(run)}
    values = {
        "title": f"{run.algorithm.title}: {run.name}",
        "aim": f"Improve {config.get('policy')} with {run.algorithm.title} on {source}.",
        "facts": facts_of_runs([run], run.folder / "config.yaml"),
        "family": run.algorithm.family,
        "ended": run.ended,
        "runs": [shown],
        **_measured_view(run, measured or {}, quality or {}),
        **feedback_view(run.card),
    }
    return Page(_PARTS, "feedback/words.html", values, [run])


def _measured_view(run: RunFiles, measured: Mapping[str, Any], quality: Mapping[str, Any]) -> dict[str, Any]:
    """Replies before and after training; reward and gold against the distance from the reference."""
    title, config = run.algorithm.title, run.config or {}
    rows = []
    judges = [k for k in measured.get("after", {}) if k == "gold" or k.startswith("reward")]
    for name in ("before", "after", "gained"):
        if m := measured.get(name):
            worth = ["".join(_figures(m[k])) if k in m else "" for k in judges]
            kl = "".join(_figures(m["kl"], 2)) if name == "after" else ""
            length = "".join(_figures(m["length"], 1))
            cut = "".join(_percent(m["unfinished"], signed=name == "gained"))
            name = "difference" if name == "gained" else name
            rows.append({"name": name, "worth": worth, "kl": kl, "length": length, "cut": cut})
    before, after = (measured.get(name, {}).get("examples", []) for name in ("before", "after"))
    rewarded, gold = (key in judges for key in ("reward", "gold"))
    # Only algorithms that sample replies log a reward and a KL of the policy's own replies.
    points = [m for m in run.metrics if "kl" in m and "reward" in m]
    points = points if run.algorithm.family == "replies" and len(points) > 1 else []
    return {
        "answer": answer_of_replies(title, measured, run.algorithm.family == "replies"),
        "distance": answer_of_distance(title, measured),
        "agreement": answer_of_feedback(title, run.metrics, quality),
        "judged": bool(config.get("reward") or config.get("gold")),
        "rows": rows,
        "judges": [_JUDGES.get(k) or k.partition("/")[2] for k in judges],
        "scored": judges,
        "learnt_from_reward": run.algorithm.family == "replies",
        "gold": gold,
        "rewarded": rewarded,
        "overoptimisation": overoptimisation_plot(points, "over") if points else None,
        "gold_logged": any("gold" in m for m in points),
        "examples": after,
        "before": before,
        "heldout_prompts": measured.get("held_out"),
        "silent": silent_reward(run.metrics[-1] if run.metrics else {}),
        "shortened_prompts": measured.get("shortened"),
        "left_out_prompts": measured.get("left_out"),
        "unjudged": [measured.get(name, {}).get("unjudged", 0) for name in ("before", "after")],
    }


def silent_reward(last: Mapping[str, Any]) -> str | None:
    """What was left out of training because the reward had no opinion of it; None if nothing was."""
    if not last.get("left_out"):
        return None
    left_out, skipped = int(last["left_out"]), int(last.get("skipped", 0))
    found = f"The reward had no opinion of some reply to {left_out:,} of the prompts that were drawn in "
    found += "training (a prompt counts each time): nothing was learnt from them."
    return found + (f" {skipped:,} steps had nothing else, and changed nothing." if skipped else "")


def answer_of_replies(
    name: str, measured: Mapping[str, Any] | None, learnt_from_reward: bool = True
) -> dict[str, Any] | None:
    """How reward and gold moved from before to after training, and whether that is an improvement."""
    before, after = ((measured or {}).get(key) for key in ("before", "after"))
    gained = {k: v for k, v in ((measured or {}).get("gained") or {}).items() if k in ("reward", "gold")}
    if not before or not after or not gained:
        return None
    names = {"reward": "the reward of its replies", "gold": "gold, their true worth,"}
    if "reward" not in gained:
        names["gold"] = "the gold of its replies, their true worth,"
    moved = []
    for key in (k for k in names if k in gained):
        places = _decimals(gained[key])
        was, now = (number(m[key]["mean"], places) for m in (before, after))
        form = "{} from <b>{}</b> to <b>{}</b> (difference {}{})"
        moved.append(Markup(form).format(names[key], was, now, *_figures(gained[key], places, signed=True)))
    sentence = Markup("<b>{}</b> moves {}. {}").format(name, Markup(" and ").join(moved), _distance(after))
    if any(x["low"] is None for x in gained.values()):
        return {
            "sentence": sentence,
            "notes": ["A single prompt says nothing of the spread."],
        }
    if (
        "reward" in after
        and "reward" in before
        and after["reward"]["low"] == after["reward"]["high"] == before["reward"]["low"]
    ):
        note = "The reward is the same for all replies: there was nothing to learn."
        return {"sentence": sentence, "notes": [note]}
    direction = {k: _direction(x) for k, x in gained.items()}
    return {"sentence": sentence, "notes": _verdict(direction, learnt_from_reward)}


def _distance(after: Mapping[str, Any]) -> str:
    places = 1 if after["kl"]["mean"] >= 1 else 2
    kl = "".join(_figures(after["kl"], places))
    return f"Its KL from the policy that it began as is {kl} nats per reply."


def answer_of_distance(name: str, measured: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """How far a policy went and how its replies changed, which needs no judge."""
    before, after, gained = ((measured or {}).get(key) for key in ("before", "after", "gained"))
    if not before or not after or not gained:
        return None
    form = Markup("The replies of <b>{}</b> have {} tokens, and had {} before training (difference {}{}). {}")
    words = (number(m["length"]["mean"], 1) for m in (after, before))
    sentence = form.format(name, *words, *_figures(gained["length"], 1, signed=True), _distance(after))
    cut = "".join(_percent(after["unfinished"]))
    was = "".join(_percent(before["unfinished"]))
    note = f"The limit on tokens cuts {cut} of them off, and cut off {was} before."
    return {"sentence": sentence, "notes": [note, "No judge says whether they got better."]}


def _verdict(direction: Mapping[str, int], learnt_from_reward: bool) -> list[str]:
    """Whether replies got better (1), worse (-1) or neither is settled (0), by the reward and in truth."""
    truth = direction.get("gold")
    trained = "that it was trained on" if learnt_from_reward else "that measures it"
    if truth is None:
        by_reward = {
            1: f"By the reward {trained}, replies got better.",
            -1: f"By the reward {trained}, replies got worse.",
            0: "The interval contains 0: these replies do not settle whether the reward changed.",
        }[direction["reward"]]
        cannot = "That reward cannot say whether they got better in truth."
        if not learnt_from_reward:
            cannot = "Nothing was learnt from that reward, which may be wrong all the same."
        return [by_reward, cannot]
    if truth < 0 and direction.get("reward", 0) > 0:
        return ["The reward rises and the truth falls: the policy exploits what the reward gets wrong."]
    return [
        {
            1: "Replies got better in truth.",
            -1: "Replies got worse in truth.",
            0: "The interval of gold contains 0: these replies do not settle whether they got better.",
        }[truth]
    ]


def _direction(difference: Mapping[str, Any]) -> int:
    """1 or -1 if the whole interval lies above or below 0, else 0."""
    return int(difference["low"] > 0) - int(difference["high"] < 0)


def _decimals(estimate: Mapping[str, Any]) -> int:
    """As many as the interval carries."""
    width = 0.0 if estimate["low"] is None else estimate["high"] - estimate["low"]
    return min(4, max(0, 1 - math.floor(math.log10(width / 2)))) if width else 3


def answer_of_feedback(
    name: str, metrics: Sequence[Mapping[str, Any]], quality: Mapping[str, Any]
) -> dict[str, Any] | None:
    """How often the policy agrees with feedback that it did not learn from.

    A run that has not been measured yet is described by the accuracy that it logged last.
    """
    q, cautions = quality, quality.get("cautions", [])
    if "accuracy" not in q and not q.get("auc"):
        logged = [m["heldout/rewards/accuracies"] for m in metrics if "heldout/rewards/accuracies" in m]
        if cautions:  # what was logged of such items means as little
            return {"cautions": cautions, "sentence": None, "notes": []}
        if not logged:
            return None
        form = "<b>{}</b> agreed with <b>{}</b> of the held-out feedback when it was last measured."
        sentence = Markup(form).format(name, f"{logged[-1]:.1%}")
        return {"cautions": [], "sentence": sentence, "notes": []}
    criterion = []
    if "criterion" in q:
        criterion = [f"{name} is taken to prefer the reply with the higher {q['criterion']}."]
    if q.get("auc"):
        form = "<b>{}</b> ranks a liked reply above a disliked one in <b>{}</b>{}."
        of = part_of(q, q["auc"]["mean"], "pairs of a liked and a disliked reply that were held out")
        notes = ["That share is the AUC; a coin is right in 50%.", *without_model(q), *criterion]
        sentence = Markup(form).format(name, of, interval_words(q["auc"]))
        return {"cautions": cautions, "sentence": sentence, "notes": notes}
    form, things = "<b>{}</b> prefers what people preferred in <b>{}</b>{}.", "held-out pairs"
    if "tau" in q:
        form, things = "<b>{}</b> prefers the better reply in <b>{}</b>{}.", "pairs in held-out rankings"
    if "compared" in q and not q.get("few"):
        things = f"{q['compared']:,} {things}"
    notes = [*without_model(q), *criterion]
    if q.get("before") is not None and not q.get("few"):
        notes.append(f"Before training, the same comparison was right in {q['before']:.1%}.")
    sentence = Markup(form).format(name, part_of(q, q["accuracy"], things), interval_words(q))
    return {"cautions": cautions, "sentence": sentence, "notes": notes}


def _percent(estimate: Mapping[str, Any], *, signed: bool = False) -> tuple[str, str]:
    """A share in percent, or a difference of two in points; and its interval if it has one."""
    found = {
        k: number(100 * estimate[k], 0, signed=signed)
        for k in ("mean", "low", "high")
        if estimate[k] is not None
    }
    unit = " points" if signed else "%"
    ends = f" ({found['low']} to {found['high']}{unit})" if "low" in found else ""
    return f"{found['mean']}{unit}", ends


def _figures(estimate: Mapping[str, Any], decimals: int = 3, *, signed: bool = False) -> tuple[str, str]:
    """A mean; and its interval if it has one."""
    mean = number(estimate["mean"], decimals, signed=signed)
    if estimate["low"] is None:
        return mean, ""
    ends = (number(estimate[k], decimals, signed=signed) for k in ("low", "high"))
    return mean, ", 95% interval {} to {}".format(*ends) if signed else " ({} to {})".format(*ends)
