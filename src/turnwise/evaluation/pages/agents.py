"""What the report page of an agent's run shows, computed from its folder; templates only lay it out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from turnwise.evaluation.pages.curves import panels
from turnwise.evaluation.pages.figures import bounds
from turnwise.evaluation.pictures.agents import LINES, probe_plot, return_plot, value_trace
from turnwise.evaluation.pictures.plots import Interval, as_given, comparison_plot, number, panel_plot
from turnwise.run.errors import InputError

SHOWN = 8
"""episodes on the page"""
SHOWN_STEPS = 40
"""of each"""
LIKELIEST = 3
"""states of a belief that are drawn"""
_AGENT_FILES = ("evaluation.json", "probe.json", "episodes.jsonl")


def is_agent(config: Mapping[str, Any] | None) -> bool:
    """Whether settings are those of an agent that acts in an environment."""
    return config is not None and "env" in config


def agent_view(
    folder: str,
    config: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    evaluation: Mapping[str, Any] | None,
    probe: Mapping[str, Any] | None,
    episodes: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Title, answer, curves, probe and episodes. InputError names what is wrong in files not ours."""
    try:
        return _view(folder, config, metrics, evaluation, probe, episodes)
    except KeyError as error:
        files = ", ".join(_AGENT_FILES)
        raise InputError(
            f"{folder}: no {error.args[0]!r} in one of {files}; expected what evaluate writes"
        ) from None
    except (TypeError, ValueError, IndexError, AttributeError, StopIteration) as error:
        raise InputError(f"{folder}: expected what turnwise train and evaluate write ({error})") from None


def _view(
    folder: str,
    config: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    evaluation: Mapping[str, Any] | None,
    probe: Mapping[str, Any] | None,
    episodes: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    algorithm, env = str(config.get("algorithm", "agent")).upper(), str(config["env"])
    memory = str(config.get("memory", "?"))
    shown = [_episode(e, i) for i, e in enumerate(episodes[:SHOWN])]
    values = [v for e in shown for v in e["values"]]
    for e in shown:
        e |= {"spark": None, "line": None}
        if e["values"]:
            span = min(values), max(values)
            e["spark"] = value_trace(e["values"], span)
            e["line"] = value_trace(e["values"], span, large=True)
    what = "an agent without memory" if memory == "none" else f"an agent with memory ({memory})"
    return {
        "title": f"{algorithm} in {env}",
        "asked": f"Train {what} in {env} with {algorithm}, and measure how far it is from the best.",
        "facts": _facts(folder, config, evaluation),
        "answer": None if evaluation is None else _answer(evaluation),
        "plots": [] if evaluation is None else _plots(evaluation, algorithm),
        "folder": folder,
        "curves": _curves(config, metrics, evaluation),
        "horizon": config.get("horizon"),
        "memoryless": memory == "none",
        "probe": None if probe is None else _probe(probe),
        "evaluated": evaluation is not None,
        "episodes": shown,
        "privileged": config.get("critic") in ("state", "history+state"),
    }


def _facts(
    folder: str, config: Mapping[str, Any], evaluation: Mapping[str, Any] | None
) -> list[tuple[str, str]]:
    facts = [("run", folder), ("environment", str(config["env"])), ("memory", str(config.get("memory", "?")))]
    for key, name in (("critic", "critic sees"), ("gamma", "discount"), ("seed", "seed")):
        if key in config:
            facts.append((name, str(config[key])))
    if evaluation is not None:
        facts.append(("evaluated on", f"{number(evaluation['episodes'], 0)} episodes"))
        best = evaluation["greedy"] or evaluation.get("kind") == "q"
        facts.append(("acts by", "its best action" if best else "drawing actions"))
        if evaluation["env"] != config["env"]:
            facts.append(("evaluated in", str(evaluation["env"])))
    return facts


def _references(e: Mapping[str, Any]) -> list[Interval]:
    """What is known beside the mean, the most telling first."""
    t = e["truth"]
    found = []
    if t.get("lower") is not None:
        low, high = t["lower"], t["upper"]
        near = high - low <= 1e-3 * max(1.0, abs(high))
        found.append(Interval("V*_obs", low) if near else Interval("V*_obs at least", low))
        if not near:
            found.append(Interval("at most", high))
    if t.get("maximum") is not None:
        found.append(Interval("maximum", t["maximum"]))
    best, fixed = t.get("stochastic"), t.get("deterministic")
    if best is not None and fixed is not None and best - fixed <= 1e-6 * max(1.0, abs(best)):
        found.append(Interval("best memoryless", best))
    else:
        found += [
            Interval(f"best {kind} memoryless", x)
            for kind, x in (("stochastic", best), ("deterministic", fixed))
            if x is not None
        ]
    if t.get("random") is not None:
        found.append(Interval("at random", t["random"]))
    return found


def _plots(e: Mapping[str, Any], algorithm: str) -> list[Markup]:
    row = Interval(algorithm, e["mean"], e["low"], e["high"], best=True)
    decimals = max(0, min(4, 2 - math.floor(math.log10(max(e["high"] - e["low"], 1e-4)))))
    references = _references(e)
    return [
        comparison_plot([row], references, score=e["score"], decimals=decimals, narrow=narrow)
        for narrow in (False, True)
    ]


def _answer(e: Mapping[str, Any]) -> dict[str, Any]:
    """The one sentence, and the notes under it."""
    t = e["truth"]
    said = Markup("On average it earns <b>{}</b> ({} to {})").format(
        number(e["mean"]), number(e["low"]), number(e["high"])
    )
    if t.get("lower") is not None:
        low, high = (number(x, _decimals([t["upper"]]) + 1) for x in (t["lower"], t["upper"]))
        best = low if low == high else " to ".join(bounds(t["lower"], t["upper"]))
        said += Markup("; the best policy with memory earns <b>{}</b>").format(best)
    if t.get("maximum") is not None:
        said += Markup("; the maximum is <b>{}</b>").format(as_given(t["maximum"]))
    if t.get("random") is not None:
        said += Markup(", and acting at random earns <b>{}</b>").format(number(t["random"]))
    if t.get("stochastic") is not None:
        said += Markup(", the best without <b>{}</b>").format(number(t["stochastic"]))
    if e.get("share") is not None and e["share"] < 0:
        said += Markup(", so that remembering gains it nothing")
    elif e.get("share") is not None:
        said += Markup(": <b>{}%</b> of what memory is worth").format(number(100 * e["share"], 0))
    return {"sentence": said + ".", "notes": _notes(e), "above": e["above"], "bound": e.get("bound")}


def _notes(e: Mapping[str, Any]) -> list[str]:
    t = e["truth"]
    what = "undiscounted" if e.get("discount") is None else f"discounted by {e['discount']:g} a step"
    notes = [
        f"Returns are {what}, from the start, over {number(e['episodes'], 0)} whole episodes of "
        f"{number(e['length'])} steps on average; the interval is {100 * e['confidence']:g}% (bootstrap), "
        f"the standard error {number(e['standard_error'])}."
    ]
    if e.get("exact") is not None:
        notes.append(
            f"This policy has no memory; its value, computed and not sampled, is {number(e['exact'], 4)}."
        )
    if e["truncated"]:
        cut = f"{number(e['truncated'], 0)} episodes were cut after {number(e['horizon'], 0)} steps"
        if e["tail"]:
            cut += f"; what could have followed adds or takes at most {number(e['tail'])}"
        notes.append(cut + ".")
    if t.get("rewards_inform"):
        notes.append(
            "Rewards may tell more of the state here than observations do, so that an agent that reads them "
            "could exceed V*_obs."
        )
    notes += [f"Not known: {note}." for note in t.get("notes", [])]
    return notes


def _curves(
    config: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The return over steps of the environment, and everything else that was logged in small."""
    if not metrics:
        return None
    discount = None if evaluation is None else evaluation.get("discount")
    # Of problems with a discount; elsewhere the discount is the algorithm's own affair.
    key = "discounted_return" if discount is not None else "episode_return"
    here = [{"steps": m["steps"], "return": m[key]} for m in metrics if key in m and "steps" in m]
    found = panels(here, "steps")
    comparable = discount is None or config.get("gamma") == discount
    references = []
    if evaluation is not None and comparable:
        references = [(r.name, r.mean) for r in _references(evaluation)]
    rest = [p for p in panels(metrics, "steps") if p.title != key.replace("_", " ")]
    return {
        "key": key.replace("_", " "),
        "plots": [return_plot(found[0].curves[0], references, narrow=n) for n in (False, True)]
        if found
        else [],
        "comparable": comparable,
        "references": bool(references),
        "rest": [(p.title, panel_plot(p, f"curve-{i}")) for i, p in enumerate(rest[:9])],
    }


def _probe(p: Mapping[str, Any]) -> dict[str, Any]:
    lines = p["lines"]
    rows = [
        {
            "key": key,
            "name": name,
            "accuracy": f"{number(100 * lines[key]['accuracy'], 1)}%",
            "cross_entropy": number(lines[key]["cross_entropy"], 3),
        }
        for key, (name, *_) in LINES.items()
        if key in lines
    ]
    return {
        "plot": probe_plot(p),
        "rows": rows,
        "tested": number(p["episodes"] - p["episodes"] // 2, 0),
        "fitted": number(p["episodes"] // 2, 0),
        "last": p["steps"][-1] + 1,
        "expected": p["expected"],
    }


def _episode(e: Mapping[str, Any], index: int) -> dict[str, Any]:
    """One episode as rows of text; what a step does not have is None."""
    steps = list(e["steps"])[:SHOWN_STEPS]
    values = [float(s["value"]) for s in steps if s.get("value") is not None]
    decimals = _decimals(values)
    rows = [_row(s, e.get("actions"), decimals) for s in steps]
    has = {
        key: any(r[key] is not None for r in rows)
        for key in ("state", "belief", "value", "entropy", "chance")
    }
    worth = e["return"] if e.get("discounted") is None else e["discounted"]
    return {
        "key": f"episode-{index}",
        "id": str(e["id"]),
        "worth": number(worth, 2, signed=True),
        "plain": None if e.get("discounted") is None else number(e["return"], 2, signed=True),
        "ended": {"terminated": "ended by itself", "truncated": "cut"}.get(e["ended"], str(e["ended"])),
        "length": number(e["length"], 0),
        "rows": rows,
        "has": has,
        "values": values,
        "cut": e["length"] - len(rows),
    }


def _row(s: Mapping[str, Any], actions: Sequence[str] | None, decimals: int) -> dict[str, Any]:
    p, q = s.get("probabilities"), s.get("q")
    chosen = list(actions).index(s["action"]) if actions is not None and s["action"] in actions else None
    chance = None if p is None or chosen is None else f"{number(100 * p[chosen], 0)}%"
    if q is not None and chosen is not None:
        chance = f"Q {number(q[chosen], decimals)}"
    entropy = None if p is None else -math.fsum(x * math.log(x) for x in p if x > 0)
    belief = s.get("belief")
    return {
        "observation": str(s["observation"]),
        "action": str(s["action"]),
        "chance": chance,
        "reward": as_given(s["reward"]),
        "state": None if s.get("state") is None else str(s["state"]),
        "belief": None if belief is None else [
            {"name": str(name), "percent": f"{100 * float(x):.0f}", "true": name == s.get("state")}
            for name, x in belief[:LIKELIEST]
        ],
        "value": None if s.get("value") is None else number(s["value"], decimals),
        "entropy": None if entropy is None else number(abs(entropy), 2),
    }  # fmt: skip


def _decimals(values: Sequence[float]) -> int:
    largest = max((abs(v) for v in values), default=1.0)
    return max(0, min(4, 2 - math.floor(math.log10(largest)))) if largest > 0 else 0
