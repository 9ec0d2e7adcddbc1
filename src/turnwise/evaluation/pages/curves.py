"""Learning curves of a run: which metrics share a panel, in which order, and what people call them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LOSSES = ("td", "expectile", "cql", "nll")  # parts of objectives that do not say so themselves

_CLOCKS = ("step", "seconds", "epoch", "episodes")  # how far training is, and how many a mean is of


@dataclass(frozen=True)
class Curve:
    """One line of a panel: what was logged at which step."""

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """Lines that share an axis: training and held-out parts of one quantity, or Q and V."""

    title: str
    curves: tuple[Curve, ...]


def panels(metrics: Sequence[Mapping[str, Any]], x: str = "step") -> list[Panel]:
    """The panels of a run's metrics: losses first, then values, then the rest; a key never logged has none.

    `x` is the metric along which they are drawn: updates ("step"), or steps of the environment ("steps").
    `heldout_x` or `heldout/x` joins `x`; a key with a part `q` joins the one with `v` there, except losses.
    Of a step logged twice (a resumed run) the last counts; what is no finite number is left out.
    """
    curves: dict[str, dict[float, float]] = {}
    for row in metrics:
        for key, value in row.items():
            plain = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if plain and key not in (*_CLOCKS, x) and x in row:
                curves.setdefault(key, {})[float(row[x])] = float(value)
    groups: dict[str, list[str]] = {}
    for key in curves:
        groups.setdefault(_family(key), []).append(key)
    found = []
    judged = any(bare(key)[0] in _JUDGED_BY for key in curves)
    for keys in sorted(groups.values(), key=lambda keys: _rank(keys[0], judged)):
        lines = [Curve(_label(k, keys), *_sorted(curves[k])) for k in sorted(keys, key=lambda k: bare(k)[1])]
        found.append(Panel(_title(keys), tuple(lines)))
    return found


def bare(key: str) -> tuple[str, bool]:
    """A metric's key without its mark of held-out data (`heldout_` or `heldout/`), and whether it had one."""
    name = re.sub(r"^heldout[_/]", "", key)
    return name, name != key


def is_loss(key: str) -> bool:
    """Whether a metric is a training objective or a part of one."""
    name, _ = bare(key)
    return "loss" in name or name in _LOSSES


def words(key: str) -> str:
    """A metric's key as people say it: heldout_q_mean is mean Q."""
    names = {
        "q": "Q",
        "v": "V",
        "q|v": "Q and V",
        "bc": "BC",
        "cql": "CQL",
        "td": "TD",
        "lr": "learning rate",
        "kl": "KL",
    }
    name, _ = bare(key)
    parts = sorted(re.split("[_/]", name), key=lambda part: part != "mean")
    return " ".join(names.get(part, part) for part in parts) + (" loss" if name in _LOSSES else "")


def _family(key: str) -> str:
    name, _ = bare(key)
    return (
        name if is_loss(name) else "_".join("q|v" if part in ("q", "v") else part for part in name.split("_"))
    )


_JUDGED_BY = ("reward", "gold", "accuracy", "rewards/accuracies")
"""policies on replies and reward models, and nothing else"""
_FIRST = (*_JUDGED_BY, "kl", "completions/mean_length")
"""of those the first panels, in this order"""


def _rank(key: str, judged: bool) -> tuple[int, int]:
    """Groups in order, and places in the first one, which only what is judged by replies has."""
    name = bare(key)[0]
    if judged and name in _FIRST:
        return 0, _FIRST.index(name)
    order = (name == "loss", is_loss(key), "q|v" in _family(key), "adv" in key or "value" in key)
    return 1 + (order.index(True) if any(order) else len(order)), 0


def _title(keys: Sequence[str]) -> str:
    names = list(dict.fromkeys(words(k) for k in keys))
    name = names[0] if len(names) == 1 else words(_family(keys[0]))
    return name + (", held out" if all(bare(k)[1] for k in keys) else "")


def _label(key: str, keys: Sequence[str]) -> str:
    name, heldout = bare(key)
    several = len({words(k) for k in keys}) > 1
    split = len({bare(k)[1] for k in keys}) > 1
    letter = next((p.upper() for p in name.split("_") if p in ("q", "v")), "") if several else ""
    part = ("held out" if heldout else "train") if split else ""
    return " ".join(filter(None, (letter, part)))


def _sorted(points: Mapping[float, float], most: int = 160) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Points by step, thinned to `most` by averaging neighbours (the last one is kept as it is)."""
    steps = sorted(points)
    size = -(-len(steps) // most)
    chunks = [steps[i : i + size] for i in range(0, len(steps), size)]
    pairs = [(math.fsum(c) / len(c), math.fsum(points[s] for s in c) / len(c)) for c in chunks]
    if size > 1:
        pairs.append((steps[-1], points[steps[-1]]))
    return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
