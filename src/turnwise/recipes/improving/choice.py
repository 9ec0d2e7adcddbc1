"""Which policy to take, from what the logs and a second model say of all of them; or why none.

Two words can be given for a policy. *vouched*: the logs hold enough of what it does, and it is better with
certainty, all candidates at once (`compare`), by an amount that matters (`MATERIAL`). *by models*: its acts
were hardly logged as often as it takes them, but the learnt model was right wherever the logs can check it,
and a second model, learnt from other conversations, says with certainty that it earns more than the logs did.
What is vouched for comes first, unless models promise with certainty more than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from turnwise.recipes.improving.opinion import Opinion

MATERIAL = 0.02
"""of the range of logged returns: a smaller gain is none, as a model that is off by less is not called
wrong"""


@dataclass(frozen=True)
class Choice:
    """What to do."""

    word: Literal["vouched", "models", "keep"]
    name: str | None
    """the policy's; None to keep the logged agent"""
    why: tuple[str, ...]
    """sentences"""
    t: float = 1.0
    """how far to go to the policy: the share of turns that are its own"""
    worth: Mapping[str, float] | None = None
    """value, low and high of what is taken, by what speaks for it; None to keep the logged agent"""


def choose(
    rows: Sequence[Mapping[str, Any]],
    safe: Mapping[str, Any],
    opinions: Mapping[str, Opinion],
    clone: str | None,
    returns: tuple[float, float],
) -> Choice:
    """`rows` and `safe` are what `compare` found; `opinions` by the rows' names; `clone` is the name of a
    clone of the logged agent among them, by which the second model is checked; `returns` are the lowest and
    the highest that were logged."""
    logged = next(row for row in rows if row["logged"])
    material = MATERIAL * (returns[1] - returns[0])
    doubt = None if clone is None else _off(opinions[clone], logged, material)
    believed = [
        row for row in rows
        if row["sure"] in ("vouch", "model only") and row["name"] in opinions
        and opinions[row["name"]].low > logged["high"] + material
    ]  # fmt: skip
    best = max(believed, key=lambda row: opinions[row["name"]].value, default=None)
    # What can be handed over, in which a clone speaks the turns that stay the logged agent's; `safe` itself
    # is of the logged agent's own turns, which nobody can write down.
    step = safe.get("as_run")
    if best is not None and doubt is None:
        found = opinions[best["name"]]
        if step is None or found.low > step["worth"]["value"] + material:
            return Choice("models", best["name"], tuple(_why_models(best)), worth=found._asdict())
    if step is None:
        return Choice("keep", None, tuple(_why_keep(rows, safe, opinions, logged, doubt, material)))
    if step["worth"]["low"] > logged["value"] + material:
        worth = {key: step["worth"][key] for key in ("value", "low", "high")}
        return Choice("vouched", str(step["of"]), (), step["t"], worth)
    return Choice("keep", None, (_why_little(step, logged, material),))


def _off(clone: Opinion, logged: Mapping[str, Any], material: float) -> str | None:
    """Why the second model is not believed: it is wrong about the agent that everybody knows."""
    away = clone.value - logged["value"]
    chance = ((clone.high - clone.low) ** 2 + (logged["high"] - logged["low"]) ** 2) ** 0.5 / 2
    if abs(away) <= chance + material:
        return None
    return (
        f"The second model is wrong about the logged agent itself: it says {clone.value:.3g}, and the logs "
        f"say {logged['value']:.3g}."
    )


def _why_models(row: Mapping[str, Any]) -> list[str]:
    return [
        "The logs alone do not vouch for it: they hold too little of what it does. The learnt model was "
        "right wherever the logs can check it, and a second model, learnt from conversations that the first "
        "has not seen, says the same.",
        *([row["why"]] if row["why"] else []),
    ]


def _why_little(step: Mapping[str, Any], logged: Mapping[str, Any], material: float) -> str:
    way = "" if step["t"] == 1 else f"{step['t']:.0%} of the way to "
    then, now = (f"{x['value']:.3g} ({x['low']:.3g} to {x['high']:.3g})" for x in (step["worth"], logged))
    return (
        f"What the logs vouch for is {way}{step['of']}, worth {then} beside {now} in the logs. That it "
        f"gains {material:.2g} or more, a fiftieth of the range of returns, is not certain: too little to "
        "change for."
    )


def _why_keep(
    rows: Sequence[Mapping[str, Any]],
    safe: Mapping[str, Any],
    opinions: Mapping[str, Opinion],
    logged: Mapping[str, Any],
    doubt: str | None,
    material: float,
) -> list[str]:
    why = [
        "Of what was learnt the logs vouch for nothing that is better than the logged agent with certainty."
    ]
    if safe["t"]:
        why = [
            f"The logs vouch for {safe['t']:.0%} of the way to {safe['name']}, beside turns of the logged "
            "agent itself, and for nothing that can be handed over.",
            *safe.get("notes", ()),
        ]
    if doubt is not None:
        return [*why, doubt]
    better = [n for n, o in opinions.items() if o.low > logged["high"] + material]
    if not opinions:
        return why
    if not better:
        top = max(opinions.values(), key=lambda o: o.value)
        why.append(
            f"Nor does a second model promise more with certainty: {top.value:.3g} ({top.low:.3g} to "
            f"{top.high:.3g}) at most, beside {logged['value']:.3g} ({logged['low']:.3g} to "
            f"{logged['high']:.3g}) in the logs."
        )
        return why
    name = max(better, key=lambda n: opinions[n].value)
    row = next(r for r in rows if r["name"] == name)
    why.append(
        f"A second model promises {opinions[name].value:.3g} of {name}, and cannot be believed there."
        + (f" {row['why']}" if row["why"] else "")
    )
    return why
