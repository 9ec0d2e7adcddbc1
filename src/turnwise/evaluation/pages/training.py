"""How a run trained, as pages show it: panels of its metrics, held-out figures, how long it took.

Which metrics there are, what people call them and which of them are losses is declared in the run's
`algorithm.json` (`run_files.Algorithm.metrics`). A metric that is not declared is shown under its own key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from turnwise.evaluation.pages.run_files import RunFiles
from turnwise.evaluation.pictures.curves import Curve, Panel, panel_plot
from turnwise.evaluation.pictures.style import number
from turnwise.run.metrics import CLOCKS, Metric

PANELS = 60
"""panels of all runs of a page together"""
POINTS = 160
"""points of a curve; longer curves are thinned"""
HELD_OUT = "heldout/"
"""what a metric's key begins with if it was measured on held-out data"""
_CLOCKS = (*CLOCKS, "epoch", "episodes")  # how far training is, and over how many episodes means are


def training_view(run: RunFiles, runs: int = 1, index: int = 0) -> dict[str, Any]:
    """Learning curves and held-out figures of run number `index` of a page that shows so many `runs`."""
    found = panels(run.metrics, run.algorithm.metrics)
    most = min(12, max(2, PANELS // runs))
    return {
        "curves": [
            (p.title, p.unit, panel_plot(p, f"curve-{index}-{i}")) for i, p in enumerate(found[:most])
        ],
        "more": [p.title for p in found[most:]],
        "logged": bool(run.metrics),
        "trained": _how_long(run.metrics),
        "heldout": heldout_figures(run.metrics, run.algorithm.metrics),
    }


def panels(
    metrics: Sequence[Mapping[str, Any]], declared: Mapping[str, Metric], x: str = "step"
) -> list[Panel]:
    """The panels of a run's metrics, drawn along the metric `x`: updates, or steps of the environment.

    Declared metrics come first, in the order of their declaration; metrics that declare the same `panel`
    share it. Undeclared ones follow under their keys. `heldout/KEY` joins KEY. If a step was logged twice,
    by a resumed run, the last value counts. What is no finite number is left out.
    """
    curves: dict[str, dict[float, float]] = {}
    for row in metrics:
        for key, value in row.items():
            plain = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if plain and key not in (*_CLOCKS, x) and x in row:
                curves.setdefault(key, {})[float(row[x])] = float(value)
    order = list(declared)
    keys = sorted(
        curves, key=lambda k: order.index(base_key(k)) if base_key(k) in declared else len(order)
    )  # sorting is stable: undeclared metrics stay in the order in which they were logged
    groups: dict[str, list[str]] = {}
    for key in keys:
        fact = declared.get(base_key(key))
        groups.setdefault((fact and fact.panel) or base_key(key), []).append(key)
    return [_panel(curves, keys, declared) for keys in groups.values()]


def _panel(
    curves: Mapping[str, Mapping[float, float]], keys: Sequence[str], declared: Mapping[str, Metric]
) -> Panel:
    facts = [declared.get(base_key(key)) for key in keys]
    several = len({base_key(key) for key in keys}) > 1
    parts = {is_held_out(key) for key in keys}
    lines = []
    for key in sorted(keys, key=is_held_out):
        name = metric_name(key, declared) if several else ""
        part = ("held out" if is_held_out(key) else "train") if len(parts) > 1 else ""
        lines.append(Curve(" ".join(filter(None, (name, part))), *_thinned(curves[key])))
    title = (facts[0] and facts[0].panel) or metric_name(keys[0], declared)
    units = {fact.unit if fact else "" for fact in facts}
    unit = units.pop() if len(units) == 1 else ""
    return Panel(title + (", held out" if parts == {True} else ""), tuple(lines), unit)


def base_key(key: str) -> str:
    """A metric's key without its mark of held-out data."""
    return key.removeprefix(HELD_OUT)


def is_held_out(key: str) -> bool:
    """Whether the metric was measured on held-out data."""
    return key.startswith(HELD_OUT)


def metric_name(key: str, declared: Mapping[str, Metric]) -> str:
    """The metric in words if it is declared, else its key."""
    fact = declared.get(base_key(key))
    return fact.what if fact else base_key(key)


def heldout_figures(
    metrics: Sequence[Mapping[str, Any]], declared: Mapping[str, Metric]
) -> list[tuple[str, str, str]]:
    """(name, value, what kind of figure it is) of everything last measured on held-out data."""
    last = {k: v for row in metrics for k, v in row.items() if v is not None and is_held_out(k)}
    found = []
    for key, value in last.items():
        fact = declared.get(base_key(key))
        kind = "measured on logged conversations kept from training; not what the policy would earn"
        if fact is not None and fact.loss:
            kind = (
                fact.about or "a loss, on logged conversations kept from training: lower predicts them better"
            )
        if fact is not None and fact.unit:
            kind += f"; unit: {fact.unit}"
        found.append((metric_name(key, declared), number(value), kind))
    return found


def _how_long(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    if metrics and "step" in metrics[-1]:
        found.append(f"up to step {number(metrics[-1]['step'], 0)}")
    if seconds := max((row.get("seconds") or 0 for row in metrics), default=0):
        minutes = f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
        found.append(minutes if seconds >= 60 else f"{seconds:.0f} s")
    return found


def _thinned(points: Mapping[float, float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Steps and values, thinned to about POINTS by averaging neighbours; the last point stays as it is."""
    steps = sorted(points)
    size = -(-len(steps) // POINTS)
    chunks = [steps[i : i + size] for i in range(0, len(steps), size)]
    pairs = [(math.fsum(c) / len(c), math.fsum(points[s] for s in c) / len(c)) for c in chunks]
    if size > 1:
        pairs.append((steps[-1], points[steps[-1]]))
    return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
