"""What a policy would be worth by logs alone, as the head of its page (estimate.json).

The answer comes first: worth now, worth then, how sure, why. Then how far the logs reach, every estimate, and
where the policy parts ways with the logged agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from turnwise.evaluation.estimates.support import in_share
from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.run_files import RunFiles
from turnwise.evaluation.pages.standings import decimals_of_rows
from turnwise.evaluation.pictures.comparison import Interval, comparison_plot
from turnwise.evaluation.pictures.step_curve import Line, Steps, step_curve_plot
from turnwise.evaluation.pictures.style import number
from turnwise.run.errors import InputError

PARTS = ("estimate/answer.html", "estimate/partings.html")
FILE = "estimate.json"
UNSEEN, NAMED = 5, 0.005
"""acts that are named of those that logs hardly hold, and the share of its conversations that they need"""
SURE = {
    "vouch": "The logs vouch for this",
    "model only": "Only the learnt models say this: the logs do not reach so far",
    "cannot tell": "Nothing here can tell what the policy is worth",
}


def with_estimate(page: Page, run: RunFiles) -> Page:
    """The page of a run, led by what other logs say of it; as it was if there is no estimate.json.

    InputError, naming the file, if it is no estimate.
    """
    if run.estimate is None:
        return page
    try:
        view = estimate_view(run.estimate, run.evaluation)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        path = run.folder / FILE
        raise InputError(f"{path}: expected what turnwise evaluate --logs writes ({error!r})") from None
    return replace(page, parts=(*PARTS, *page.parts), values={**page.values, "estimate": view})


def estimate_view(found: Mapping[str, Any], live: Mapping[str, Any] | None) -> dict[str, Any]:
    """All that the templates show. `live` is the evaluation of the same policy in talk, if there is one."""
    worth = found["worth"]
    earned = _live(live)
    decimals = _decimals(found, earned)
    return {
        "sentence": _sentence(found, decimals),
        "sure": SURE[worth["sure"]],
        "word": worth["sure"],
        "why": list(worth["why"]),
        "needs": list(worth["needs"]),
        "safe": _safe(found, decimals),
        "live": None if earned is None else _talked(earned, worth, decimals),
        "facts": _facts(found),
        "unseen": [_unseen(u) for u in found["support"]["unseen"][:UNSEEN] if u["mass"] >= NAMED],
        "curve": _curve(found, earned, decimals),
        "forest": _forest(found, earned, decimals),
        "rows": [_row(row, worth["then"]["name"], decimals) for row in found["estimates"]],
        "warnings": list(found["warnings"]),
        "groups": [_group(g, decimals) for g in found["groups"]],
        "cautious": number(found["cautious"], decimals),
        "confounding": _confounding(found),
        "partings": [_parting(p, decimals) for p in found.get("partings", [])],
        "per": found["per"],
    }


def _live(live: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Mean, interval and number of the live conversations, if their score is the one that logs have."""
    if live is None or live.get("mean") is None or live.get("score", "mean return") != "mean return":
        return None
    return {key: live.get(key) for key in ("mean", "low", "high", "episodes")}


def _decimals(found: Mapping[str, Any], live: Mapping[str, Any] | None) -> int:
    rows = [found["worth"]["now"], found["worth"]["then"]]
    if live is not None:
        rows.append(live)
    return decimals_of_rows([{"low": r["low"], "high": r["high"]} for r in rows if r["low"] is not None])


def _sentence(found: Mapping[str, Any], decimals: int) -> Markup:
    worth = found["worth"]
    now, then = worth["now"], worth["then"]
    said = Markup("In {} logged conversations the agent earned <b>{}</b>{}. ").format(
        number(found["conversations"], 0),
        number(now["value"], decimals),
        _interval(now, decimals, "95% interval "),
    )
    if worth["sure"] == "cannot tell" or then["value"] is None:
        return said + "What this policy would earn is not known."
    gain = then["gain"]
    return said + Markup("This policy would earn <b>{}</b>{}: <b>{}</b> {}{}.").format(
        number(then["value"], decimals),
        _interval(then, decimals),
        number(abs(gain["value"]), decimals),
        "more" if gain["value"] >= 0 else "less",
        _interval(gain, decimals, signed=True),
    )


def _safe(found: Mapping[str, Any], decimals: int) -> Markup | None:
    """The step that can be taken, if it is not the policy itself."""
    safe = found["safe"]
    if safe["t"] == 1:
        return None
    if not safe["t"]:
        return Markup("No step towards it is better with certainty: what is safe is the logged agent.")
    worth = safe["worth"]
    return Markup(
        "A safe step: let the policy take <b>{:.0%}</b> of the turns, drawn at random, and the logged agent "
        "the others. That is worth <b>{}</b>{}, which is {} more{}."
    ).format(
        safe["t"],
        number(worth["value"], decimals),
        _interval(worth, decimals),
        number(worth["gain"]["value"], decimals),
        _interval(worth["gain"], decimals, signed=True),
    )


def _talked(live: Mapping[str, Any], worth: Mapping[str, Any], decimals: int) -> str:
    """What it earned when it talked, beside what was said of it."""
    count = f"{number(live['episodes'], 0)} live conversations" if live["episodes"] else "live conversations"
    said = f"In {count} it has earned {number(live['mean'], decimals)}{_interval(live, decimals)}"
    then = worth["then"]
    if worth["sure"] == "cannot tell" or then["value"] is None:
        return f"{said}."
    apart = then["value"] - live["mean"]
    return f"{said}: what was said of it is {number(apart, decimals, signed=True)} away from that."


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    support, behaviour = found["support"], found["behaviour"]
    unit = support["unit"]
    share = support["largest_share"]
    heaviest = "none has any weight" if share is None else f"the heaviest has {share:.1%} of all weight"
    mean = support["mean_weight"]
    error = "" if mean["error"] is None else f" (standard error {number(mean['error'], 3)})"
    facts = [
        (f"{unit}s of its own that they are worth",
         f"{number(support['effective'], 0)} of {number(support['conversations'], 0)}; {heaviest}"),
        ("of what it does, held in like situations",
         f"{in_share(support['coverage'], support.get('coverage_error', 0.0))}; "
         f"of what the logged agent did, {support['coverage_of_logged']:.0%}"),
        ("of what it does, logged nowhere", f"{support['nowhere']:.1%}"),
        ("mean weight, 1 if the probabilities are right", f"{number(mean['value'], 3)}{error}"),
    ]  # fmt: skip
    if behaviour["source"] == "logged":
        facts.append(("how probable the logged agent’s choices were", "in the logs"))
    else:
        facts.append(
            (
                "how probable the logged agent’s choices were",
                f"{behaviour['source']}, by {behaviour['model']}; calibration error "
                f"{behaviour['calibration_error']:.1%}",
            )
        )
    return facts


def _unseen(u: Mapping[str, Any]) -> str:
    where = "seen elsewhere" if u["elsewhere"] else "logged nowhere"
    return f"“{u['act']}” at turn {u['turn']}, in {u['mass']:.1%} of its conversations ({where})"


def _curve(found: Mapping[str, Any], live: Mapping[str, Any] | None, decimals: int) -> dict[str, Any] | None:
    """Both pictures, and the steps as a table; None if no step has a value."""
    steps = [row for row in found["curve"]["steps"] if row["worth"]["value"] is not None]
    if len(steps) < 2:
        return None
    promised = [row for row in steps if row["promised"] is not None]
    models = None
    if promised:
        models = _line([row["t"] for row in promised], [row["promised"] for row in promised])
    drawn = Steps(
        _line([row["t"] for row in steps], [row["worth"] for row in steps]),
        tuple(bool(row["vouched"]) for row in steps),
        found["curve"]["reached"],
        found["worth"]["now"]["value"],
        models,
        None if live is None else (live["mean"], live["low"], live["high"]),
    )
    return {
        "plots": [step_curve_plot(drawn, decimals, narrow=narrow) for narrow in (False, True)],
        "tilted": found["curve"]["way"] == "tilted",
        "promised": models is not None,
        "live": live is not None,
        "rows": [
            {
                "t": f"{row['t']:.0%}",
                "worth": number(row["worth"]["value"], decimals),
                "interval": _interval(row["worth"], decimals).strip(" ()"),
                "promised": "" if row["promised"] is None else number(row["promised"]["value"], decimals),
                "effective": number(row["effective"], 0),
                "vouched": "yes" if row["vouched"] else "no",
                "reached": found["curve"]["reached"] is not None and row["t"] <= found["curve"]["reached"],
            }
            for row in steps
        ],
    }


def _line(steps: Sequence[float], rows: Sequence[Mapping[str, Any]]) -> Line:
    values, low, high = (tuple(row[key] for row in rows) for key in ("value", "low", "high"))
    return Line(tuple(steps), values, low, high)


def _forest(found: Mapping[str, Any], live: Mapping[str, Any] | None, decimals: int) -> list[Markup]:
    """Every estimate as a dot, with the logged agent as a line: wide and narrow."""
    now, lead = found["worth"]["now"], found["worth"]["then"]["name"]
    drawn = [
        Interval(row["words"], row["value"], row["low"], row["high"], row["name"] == lead)
        for row in found["estimates"]
        if row["name"] != "logs" and row["value"] is not None
    ]
    if live is not None:
        drawn.append(Interval("live conversations", live["mean"], live["low"], live["high"]))
    if not drawn:
        return []
    line = [Interval("logged agent", now["value"], now["low"], now["high"])]
    return [
        comparison_plot(drawn, line, score="return of a conversation", decimals=decimals, narrow=narrow,
                        key="estimates")
        for narrow in (False, True)
    ]  # fmt: skip


def _row(row: Mapping[str, Any], lead: str, decimals: int) -> dict[str, Any]:
    gain = row.get("gain")
    return {
        "name": row["words"],
        "value": "no number" if row["value"] is None else number(row["value"], decimals),
        "interval": _interval(row, decimals).strip(" ()"),
        "gain": "" if gain is None or gain["value"] is None else number(gain["value"], decimals, signed=True),
        "gain_interval": "" if gain is None else _interval(gain, decimals, signed=True).strip(" ()"),
        "best": row["name"] == lead,
        "reference": row["name"] == "logs",
    }


def _group(group: Mapping[str, Any], decimals: int) -> dict[str, Any]:
    now, then = group["now"], group["then"]
    return {
        "value": group["value"],
        "conversations": number(group["conversations"], 0),
        "now": _mean(now, decimals),
        "then": "no number" if then["value"] is None else _mean(then, decimals),
        "gain": "" if then["gain"]["value"] is None else number(then["gain"]["value"], decimals, signed=True),
    }


def _confounding(found: Mapping[str, Any]) -> str | None:
    gamma = found["confounding"]
    if gamma is None or gamma == 1 or found["worth"]["sure"] == "cannot tell":
        return None
    return number(gamma, 2)


def _parting(p: Mapping[str, Any], decimals: int) -> dict[str, Any]:
    heard = p["heard"]
    where = f"Turn {p['turn']}, after “{heard}”" if p["turn"] == 1 else (
        f"Turn {p['turn']}, after “{p['after']}” and the answer “{heard}”"
    )  # fmt: skip
    return {
        "where": where,
        "share": f"{p['share']:.0%}",
        "apart": f"{p['apart']:.0%}",
        "conversations": number(p["conversations"], 0),
        "went_on": _mean(p["went_on"], decimals),
        "acts": [
            {
                "says": a["says"],
                "name": a["act"] if a["act"] != a["says"] else None,
                "logged": f"{a['logged']:.0%}",
                "policy": f"{a['policy']:.0%}",
                "count": number(a["count"], 0),
                "went_on": _mean(a["went_on"], decimals),
                "more": a["policy"] > a["logged"],
            }
            for a in p["acts"]
        ],
        "talks": [
            {
                **t,
                "probability": f"{t['probability']:.0%}",
                "went_on": number(t["went_on"], decimals, signed=True),
                "messages": [{**m, "agent": m["role"] == t["agent"]} for m in t["messages"]],
            }
            for t in p["talks"]
        ],
    }


def _mean(found: Mapping[str, Any] | None, decimals: int) -> str:
    return (
        "never logged here"
        if found is None
        else number(found["value"], decimals) + _interval(found, decimals)
    )


def _interval(row: Mapping[str, Any], decimals: int, before: str = "", *, signed: bool = False) -> str:
    if row["low"] is None or row["high"] is None:
        return ""
    low, high = (number(row[end], decimals, signed=signed) for end in ("low", "high"))
    return f" ({before}{low} to {high})"
