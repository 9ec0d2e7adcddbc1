"""An estimate in words: the answer first, then how sure it is and why, then every number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turnwise.evaluation.estimates.support import in_share

SURE = {
    "vouch": "The logs vouch for this.",
    "model only": "Only the learnt models say this: the logs do not reach so far.",
    "cannot tell": "Nothing here can tell what the policy is worth.",
}

LARGE = 1e6
"""from which on a number is written with its power of ten"""


def in_words(found: Mapping[str, Any]) -> list[str]:
    """The result of `estimate` as lines."""
    worth, support = found["worth"], found["support"]
    lines = [
        f"worth now:  {_value(worth['now'])}, what the logged agent earned in "
        f"{found['conversations']:,} conversations",
        _then(worth),
        f"how sure:   {SURE[worth['sure']]}",
        *(f"why:        {reason}" for reason in worth["why"]),
        *(f"would help: {need}" for need in worth["needs"]),
        _reached(found["curve"], worth),
        _safe(found["safe"], worth),
        f"behaviour:  {_behaviour(found['behaviour'], found['per'])}",
        f"support:    as much as {support['effective']:,.0f} of the policy's own {support['unit']}s; the "
        f"logs hold {in_share(support['coverage'], support['coverage_error'])} of what it does in like "
        f"situations, and {support['coverage_of_logged']:.0%} of what the logged agent did",
        f"at least:   {found['cautious']:.4g} with 95% confidence and no more assumption than the range of "
        "returns",
        _confounding(found["confounding"], worth),
        "estimates:",
    ]
    for row in found["estimates"]:
        gain = f"; gain {_value(row['gain'], sign=True)}" if "gain" in row else ""
        lines.append(f"  {row['words']}: {_value(row)}{gain}")
    for group in found["groups"]:
        lines.append(
            f"  {group['value']} ({group['conversations']:,} conversations): now {_value(group['now'])}, "
            f"then {_value(group['then'])}"
        )
    return [line for line in lines if line]


def in_words_of_run(safe: Mapping[str, Any]) -> list[str]:
    """What became of the safe step that was to be written as a run (`write_safe`)."""
    lines, run = [], safe["as_run"]
    if run is not None:
        what = run["of"]
        if run["t"] < 1:
            what = f"{run['t']:.0%} of the way from a clone of the logged agent to {what}"
        gain = _value(run["worth"]["gain"], sign=True)
        lines.append(f"written:    {safe['run']}, {what}; worth {_value(run['worth'])}; gain {gain}")
    return lines + [f"written:    {note}" for note in safe["notes"]]


def _then(worth: Mapping[str, Any]) -> str:
    then = worth["then"]
    if worth["sure"] == "cannot tell":
        return f"worth then: not known; {then['words']} says {_value(then)}, for what that is worth"
    return f"worth then: {_value(then)}; gain {_value(then['gain'], sign=True)} ({then['words']})"


def _reached(curve: Mapping[str, Any], worth: Mapping[str, Any]) -> str:
    t = curve["reached"]
    if worth["sure"] == "vouch" or t == 1:
        return ""
    if not t:
        return "so far:     the logs vouch for no step towards the policy"
    row = next(row for row in curve["steps"] if row["t"] == t)
    return (
        f"so far:     the logs vouch for {t:.0%} of the way ({curve['way']}): a policy there is worth "
        f"{_value(row['worth'])}; gain {_value(row['worth']['gain'], sign=True)}"
    )


def _safe(safe: Mapping[str, Any], worth: Mapping[str, Any]) -> str:
    if safe["t"] == 1:
        return "" if worth["sure"] == "vouch" else "safe:       the policy itself"
    if not safe["t"]:
        return "safe:       the logged agent; no step towards the policy is better with certainty"
    return (
        f"safe:       {safe['t']:.0%} of the way, worth {_value(safe['worth'])}; "
        f"gain {_value(safe['worth']['gain'], sign=True)}"
    )


def _behaviour(b: Mapping[str, Any], per: str) -> str:
    what, field = ("act", "act_logp") if per == "act" else ("message", "behavior_logp")
    if b["source"] == "logged":
        return f"how probable the logged {what}s were is in the logs ({field})"
    part = f"of some {what}s " if b["source"] == "partly logged" else ""
    taught = f", which {b['besides']:,} of those left out have taught too" if b.get("besides") else ""
    return (
        f"how probable the logged {what}s were is {part}estimated, by {b['model']}{taught}: "
        f"{b['nats'][b['model']]:.3f} nats {'an' if per == 'act' else 'a'} {what} on conversations that it "
        f"had not seen, calibration error {b['calibration_error']:.1%}"
    )


def _confounding(gamma: float | None, worth: Mapping[str, Any]) -> str:
    if gamma is None or worth["sure"] == "cannot tell":
        return ""
    if gamma == 1:
        return ""
    return (
        "hidden:     what the logged agent saw and the logs do not hold would undo the gain if it changed "
        f"the odds of its acts {gamma:.2f} times"
    )


def _value(row: Mapping[str, Any], *, sign: bool = False) -> str:
    form = "+.4f" if sign else ".4f"
    if row["value"] is not None and abs(row["value"]) >= LARGE:
        form = form.replace("f", "g")
    if row["value"] is None:
        return "no number: nothing that was logged has any weight"
    if row["low"] is None or row["high"] is None:
        return format(row["value"], form)
    return f"{format(row['value'], form)} ({format(row['low'], form)} to {format(row['high'], form)}, 95%)"
