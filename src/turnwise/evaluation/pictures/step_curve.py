"""What a policy is worth against how far it has gone from the logged agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from turnwise.evaluation.pictures import style


@dataclass(frozen=True)
class Line:
    """Values at steps from 0 to 1, with the ends of their intervals where there are any."""

    steps: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


@dataclass(frozen=True)
class Steps:
    """All that the picture shows."""

    logs: Line
    """what the logs say of each step"""
    vouched: tuple[bool, ...]
    """of each of these"""
    reached: float | None
    """the farthest step that they vouch for"""
    now: float
    """what the logged agent earned"""
    models: Line | None
    """what learnt models promise"""
    live: tuple[float, float | None, float | None] | None
    """what the policy earned when it talked: mean and interval"""


def step_curve_plot(found: Steps, decimals: int, *, narrow: bool = False) -> Markup:
    """Filled dots are steps that the logs vouch for. Behind the last of them the ground is grey."""
    width, height = (360, 300) if narrow else (900, 340)
    top = _room_above(found)
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(width, height)
        axes = style.axes_inside(figure, (48, 16 if narrow else 200, 14, 46))
        low, high = _range(found)
        axes.set(xlim=(-0.02, 1.05), ylim=(low, high + top * (high - low)))
        axes.set_xlabel("share of turns that the policy takes" if narrow else
                        "from the logged agent (0%) to the policy (100%)")  # fmt: skip
        axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0%}"))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        reached = found.reached if found.reached is not None else -0.02
        if reached < 1:
            axes.axvspan(reached, 1.05, color=style.MUTED, alpha=0.1, linewidth=0)
        axes.axhline(found.now, color=style.MUTED, linewidth=1.2, linestyle=(0, (5, 3)))
        labels = [(found.now, f"logged agent {style.number(found.now, decimals)}", style.MUTED)]
        labels += _draw_logs(axes, found, decimals)
        labels += _draw_models(axes, found.models, decimals)
        labels += _draw_live(axes, found.live, decimals)
        if not narrow:
            _label(axes, labels)
        key = "steps-narrow" if narrow else "steps"
        return style.svg(figure, key, _in_words(found, decimals))


def _draw_logs(axes: Axes, found: Steps, decimals: int) -> list[tuple[float, str, str]]:
    line = found.logs
    known = [
        (t, a, b)
        for t, a, b in zip(line.steps, line.low, line.high, strict=True)
        if a is not None and b is not None
    ]
    if known:
        t, a, b = zip(*known, strict=True)
        axes.fill_between(t, a, b, color=style.ACCENT, alpha=0.16, linewidth=0)
    axes.plot(line.steps, line.values, color=style.ACCENT, linewidth=1.8)
    for t, value, vouched in zip(line.steps, line.values, found.vouched, strict=True):
        # A step behind one that fails is not believed, whatever is said of it alone.
        solid = vouched and found.reached is not None and t <= found.reached
        axes.plot([t], [value], marker="o", markersize=7, linestyle="none", color=style.ACCENT,
                  markerfacecolor=style.ACCENT if solid else "none", markeredgewidth=1.5)  # fmt: skip
    return [(line.values[-1], f"by the logs {style.number(line.values[-1], decimals)}", style.ACCENT)]


def _draw_models(axes: Axes, line: Line | None, decimals: int) -> list[tuple[float, str, str]]:
    if line is None:
        return []
    axes.plot(line.steps, line.values, color=style.WARM, linewidth=1.8, linestyle=(0, (4, 2)))
    ends = [(t, a, b) for t, a, b in zip(line.steps, line.low, line.high, strict=True)
            if a is not None and b is not None]  # fmt: skip
    for t, a, b in ends:
        axes.plot([t, t], [a, b], color=style.WARM, linewidth=1.2)
    return [(line.values[-1], f"models promise {style.number(line.values[-1], decimals)}", style.WARM)]


def _draw_live(
    axes: Axes, live: tuple[float, float | None, float | None] | None, decimals: int
) -> list[tuple[float, str, str]]:
    if live is None:
        return []
    mean, low, high = live
    if low is not None and high is not None:
        axes.plot([1.025, 1.025], [low, high], color=style.INK, linewidth=2)
    axes.plot([1.025], [mean], marker="D", markersize=7, color=style.INK, linestyle="none")
    return [(mean, f"talked: {style.number(mean, decimals)}", style.INK)]


def _label(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Names at the right end, apart from each other."""
    room = 280.0  # px of the axes' height
    low, high = axes.get_ylim()
    places = style.apart([(value - low) / (high - low) * room for value, *_ in labels], 15)
    for (_, text, colour), place in zip(labels, places, strict=True):
        axes.text(1.02, place / room, text, transform=axes.transAxes, va="center_baseline", color=colour)


def _range(found: Steps) -> tuple[float, float]:
    """Of what is drawn: values, the intervals of what is vouched for, promises. An interval beyond that may
    span all returns, and would hide the rest."""
    line = found.logs
    ends = [found.now, *line.values]
    for t, a, b in zip(line.steps, line.low, line.high, strict=True):
        if found.reached is not None and t <= found.reached:
            ends += [x for x in (a, b) if x is not None]
    if found.models is not None:
        ends += [*found.models.values, *(x for x in (*found.models.low, *found.models.high) if x is not None)]
    if found.live is not None:
        ends += [x for x in found.live if x is not None]
    low, high = min(ends), max(ends)
    span = (high - low) or max(abs(high), 1.0)
    return low - 0.08 * span, high + 0.08 * span


def _room_above(found: Steps) -> float:
    """As a share of the range: for the tail of an interval that is cut."""
    return 0.04 if found.reached == 1 else 0.12


def _in_words(found: Steps, decimals: int) -> str:
    line = found.logs
    said = "; ".join(
        f"{t:.0%} of the way {style.number(v, decimals)}{'' if ok else ' (not vouched for)'}"
        for t, v, ok in zip(line.steps, line.values, found.vouched, strict=True)
    )
    beside = f"; the logged agent earned {style.number(found.now, decimals)}"
    if found.models is not None:
        beside += f"; learnt models promise {style.number(found.models.values[-1], decimals)} of the policy"
    if found.live is not None:
        beside += f"; in live talk it earned {style.number(found.live[0], decimals)}"
    return f"Worth by how far one goes from the logged agent to the policy: {said}{beside}"
