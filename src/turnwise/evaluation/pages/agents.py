"""The page of an agent that acts in an environment, from the files of its run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.run_files import RunFiles, read_lines, read_object
from turnwise.evaluation.pages.solutions.figures import bounds
from turnwise.evaluation.pages.training import panels
from turnwise.evaluation.pictures.agents import LINES, probe_plot, return_plot, value_trace
from turnwise.evaluation.pictures.comparison import Interval, comparison_plot
from turnwise.evaluation.pictures.curves import panel_plot
from turnwise.evaluation.pictures.style import as_given, number
from turnwise.run.errors import InputError

SHOWN = 8
"""episodes on the page"""
SHOWN_STEPS = 40
"""steps that are shown of each episode"""
LIKELIEST = 3
"""states of a belief that are drawn"""
_FILES = ("config.yaml", "evaluation.json", "probe.json", "episodes.jsonl")
_PARTS = ("agent/answer.html", "agent/training.html", "agent/probe.html", "agent/episodes.html")


def agent_page(run: RunFiles) -> Page:
    """An agent that acts in an environment: answer, curves, probe and episodes.

    Raises InputError, naming folder and field, for files that `turnwise evaluate` did not write so.
    """
    probe, episodes = read_object(run.folder / "probe.json"), read_lines(run.folder / "episodes.jsonl")
    try:
        values = _view(run, probe, episodes)
    except KeyError as error:
        files = ", ".join(_FILES)
        raise InputError(
            f"{run.folder}: no {error.args[0]!r} in one of {files}; expected what turnwise evaluate writes"
        ) from None
    except (TypeError, ValueError, IndexError, AttributeError, StopIteration) as error:
        raise InputError(f"{run.folder}: expected what turnwise train and evaluate write ({error})") from None
    return Page(_PARTS, "agent/words.html", values, [run])


def _view(
    run: RunFiles, probe: Mapping[str, Any] | None, episodes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    config, evaluation, title = run.config or {}, run.evaluation, run.algorithm.title
    folder, env, memory = str(run.folder), str(config["env"]), str(config.get("memory", "?"))
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
        "title": f"{title} in {env}",
        "aim": f"Train {what} in {env} with {title}, and measure how far it is from the best.",
        "facts": _facts(folder, config, evaluation),
        "answer": None if evaluation is None else _answer(evaluation, env),
        "plots": [] if evaluation is None else _plots(evaluation, title),
        "folder": folder,
        "curves": _curves(run),
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
    """What is known beside the mean, the most informative first."""
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


def _answer(e: Mapping[str, Any], env: str) -> dict[str, Any]:
    """What the agent earns, beside what the best policies earn; and the notes under it.

    `env`: the environment that it learnt in. Every number here is of the one that it was measured in.
    """
    where = "On average it earns"
    if e["env"] != env:
        where = f"In {e['env']}, where it did not learn, it earns on average"
    form = Markup("{} <b>{}</b> ({}% interval {} to {})")
    figures = (number(e[key]) for key in ("low", "high"))
    sentence = form.format(where, number(e["mean"]), f"{100 * e['confidence']:g}", *figures)
    if known := _known(e["truth"]):
        known[0] = known[0][:1].upper() + known[0][1:]
        *most, last = known
        listed = Markup(" and ").join([Markup(", ").join(most), last]) if most else last
        sentence += ". " + listed
    if e.get("share") is not None and e["share"] < 0:
        sentence += Markup(": the agent’s memory gains it nothing")
    elif e.get("share") is not None:
        sentence += Markup(": the agent has <b>{}%</b> of what memory is worth").format(
            number(100 * e["share"], 0)
        )
    return {"sentence": sentence + ".", "notes": _notes(e), "above": e["above"], "bound": e.get("bound")}


def _known(truth: Mapping[str, Any]) -> list[Markup]:
    """What the best policies earn, and acting at random, as far as it is known."""
    found = []
    if truth.get("lower") is not None:
        low, high = bounds(truth["lower"], truth["upper"])
        best = low if low == high else f"{low} to {high}"
        found.append(Markup("the best policy with memory earns <b>{}</b>").format(best))
    if truth.get("stochastic") is not None:
        form = Markup("the best policy without memory earns <b>{}</b>")
        found.append(form.format(number(truth["stochastic"])))
    if truth.get("maximum") is not None:
        found.append(Markup("the maximum is <b>{}</b>").format(as_given(truth["maximum"])))
    if truth.get("random") is not None:
        found.append(Markup("acting at random earns <b>{}</b>").format(number(truth["random"])))
    return found


def _notes(e: Mapping[str, Any]) -> list[str]:
    t = e["truth"]
    what = "undiscounted" if e.get("discount") is None else f"discounted by {e['discount']:g} a step"
    notes = [
        f"Returns are {what}, from the start, over {number(e['episodes'], 0)} whole episodes of "
        f"{number(e['length'])} steps on average. The interval is a bootstrap over episodes; the standard "
        f"error is {number(e['standard_error'])}."
    ]
    if e.get("exact") is not None:
        notes.append(f"This policy has no memory; its exact value (not sampled) is {number(e['exact'], 4)}.")
    if e["truncated"]:
        cut = f"{number(e['truncated'], 0)} of them were cut after {number(e['horizon'], 0)} steps"
        if e["tail"]:
            cut += f"; rewards after the cut could change the mean by at most {number(e['tail'])}"
        notes.append(cut + ".")
    if t.get("rewards_inform"):
        notes.append(
            "Rewards may tell more about the state here than observations do, so an agent that reads them "
            "could exceed V*_obs."
        )
    notes += [f"Not known: {note}." for note in t.get("notes", [])]
    return notes


def _curves(run: RunFiles) -> dict[str, Any] | None:
    """The return over steps of the environment, and small panels of everything else that was logged."""
    if not run.metrics:
        return None
    evaluation, declared = run.evaluation, run.algorithm.metrics
    discount = None if evaluation is None else evaluation.get("discount")
    # A problem with a discount is scored by it. Elsewhere the discount is the algorithm's own affair.
    key = "episode_return" if discount is None else "discounted_return"
    panel = next(
        iter(panels([{k: m[k] for k in ("steps", key) if k in m} for m in run.metrics], {}, "steps")), None
    )
    # Lines across say what the best agent earns: they belong beside returns of the same environment and the
    # same discount alone.
    config, apart = run.config or {}, None
    if discount is not None and config.get("gamma") != discount:
        apart = "the discount of training is not the problem’s"
    if evaluation is not None and evaluation["env"] != config.get("env"):
        apart = f"the evaluation was in {evaluation['env']}"
    references = []
    if evaluation is not None and apart is None:
        references = [(r.name, r.mean) for r in _references(evaluation)]
    others = [{k: x for k, x in m.items() if k != key} for m in run.metrics]
    rest = panels(others, declared, "steps")
    plots = []
    if panel is not None:
        plots = [return_plot(panel.curves[0], references, narrow=narrow) for narrow in (False, True)]
    return {
        "key": key.replace("_", " "),
        "plots": plots,
        "apart": apart,
        "references": bool(references),
        "rest": [(p.title, p.unit, panel_plot(p, f"curve-{i}")) for i, p in enumerate(rest[:9])],
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
    """One episode as rows of text. What a step does not have is None."""
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
    # An agent of Q values has no probabilities: its column shows Q of the action instead.
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
