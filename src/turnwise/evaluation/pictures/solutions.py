"""Pictures of a solved POMDP: bounds over time, what policies are worth, entropy, value over belief."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.tri import Triangulation

from turnwise.evaluation.pictures.plots import (
    ACCENT,
    BLUES,
    INK,
    LETTER,
    LINE,
    MUTED,
    ORANGES,
    STYLE,
    WARM,
    apart,
    hang,
    label_floors,
    number,
    svg,
    tick,
)

REGIONS = [BLUES[1], ORANGES[1], BLUES[3], ORANGES[3], BLUES[0], ORANGES[0]]
"""colours of the beliefs at which one action is taken, in turn"""


def bounds_plot(trace: Sequence[Sequence[float]], ends: tuple[str, str]) -> Markup:
    """Both bounds against seconds, each labelled with its last value as given in `ends`."""
    seconds, lower, upper = (np.array(column, float) for column in zip(*trace, strict=True))
    lines = [(upper, WARM, f"upper {ends[1]}"), (lower, ACCENT, f"lower {ends[0]}")]
    said = f"Bounds over {number(seconds[-1])} seconds, at the end {ends[0]} and {ends[1]}"
    return _lines(seconds, lines, "bounds", said)


def gap_plot(trace: Sequence[Sequence[float]], end: str) -> Markup:
    """Upper less lower bound against seconds, in powers of ten."""
    seconds, lower, upper = (np.array(column, float) for column in zip(*trace, strict=True))
    gap = np.maximum(upper - lower, 1e-12)
    said = f"Gap between the bounds over {number(seconds[-1])} seconds, at the end {end}"
    return _lines(seconds, [(gap, INK, end)], "gap", said, powers=True)


def _lines(
    seconds: np.ndarray,
    lines: Sequence[tuple[np.ndarray, str, str]],
    key: str,
    said: str,
    *,
    powers: bool = False,
) -> Markup:
    width, height, top, bottom = 440, 230, 14, 42
    right = 12 + LETTER * max(len(text) for *_, text in lines)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = _axes(figure, (50, right, top, bottom))
        for values, colour, _ in lines:
            axes.plot(seconds, values, color=colour, linewidth=1.8, marker="o" if len(seconds) < 3 else "")
        axes.set_xlabel("seconds")
        _time_axis(axes, seconds)
        if powers:
            axes.set_yscale("log")
            few = max(v.max() for v, *_ in lines) < 100 * min(v.min() for v, *_ in lines)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=6))
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(y)))
        room = height - top - bottom
        axes.autoscale_view()
        to_axes = axes.transScale + axes.transLimits
        places = [float(to_axes.transform((seconds[-1], v[-1]))[1]) * room for v, *_ in lines]
        for (*_, colour, text), place in zip(lines, apart(places, 14), strict=True):
            axes.text(1.02, place / room, text, transform=axes.transAxes, va="center_baseline", color=colour)
        return svg(figure, key, said)


def _axes(figure: Figure, margins: tuple[float, float, float, float]) -> Axes:
    """Axes inside margins (left, right, top, bottom) in px, with lines across at the ticks of y."""
    left, right, top, bottom = margins
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    )
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _time_axis(axes: Axes, seconds: np.ndarray) -> None:
    """Powers of ten where the times span more than one."""
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if seconds[0] > 0 and seconds[-1] > 10 * seconds[0]:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick(x)))


def interval_plot(rows: Sequence[tuple[str, float, float, str]], *, narrow: bool) -> Markup:
    """Rows of (name, lower, upper, label): a bar between the bounds, a dot where they are near."""
    width, pitch = (360, 46) if narrow else (900, 36)
    left = 8 if narrow else 24 + LETTER * 1.1 * max(len(name) for name, *_ in rows)
    right = 18 + LETTER * 1.05 * max(len(label) for *_, label in rows)
    ends = [x for _, low, high, _ in rows for x in (low, high)]
    span = (max(ends) - min(ends)) or max(abs(max(ends)), 1.0)
    low, high = min(ends) - 0.04 * span, max(ends) + 0.01 * span
    scale = (width - left - right) / (high - low)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, (54 + pitch * len(rows)) / 72))
        axes = _axes(figure, (left, right, 10, 44))
        axes.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.5), xlabel="value")
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 7))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick(x)))
        axes.grid(axis="x", color=LINE, linewidth=0.8)
        for i, (name, a, b, label) in enumerate(rows):
            colour, weight = (ACCENT, "bold") if i == 0 else (INK, "normal")
            y = i + 0.2 if narrow else i
            if (b - a) * scale > 7:
                axes.plot([a, b], [y, y], color=colour, linewidth=2.6, clip_on=False)
                axes.plot([a, b], [y, y], marker="|", markersize=11, markeredgewidth=2.2, color=colour,
                          linestyle="none", clip_on=False)  # fmt: skip
            else:
                axes.plot([(a + b) / 2], [y], marker="o", markersize=8.5, color=colour, clip_on=False)
            axes.annotate(label, (b, y), xytext=(10, 0), textcoords="offset points", va="center_baseline",
                          color=colour, fontweight=weight)  # fmt: skip
            axes.annotate(
                name,
                (0, i - 0.22 if narrow else i),
                xycoords=axes.get_yaxis_transform(),
                xytext=(0 if narrow else -14, 0),
                textcoords="offset points",
                ha="left" if narrow else "right",
                va="center_baseline",
                color=colour,
                fontweight=weight,
                annotation_clip=False,
            )
        said = "Value by policy: " + "; ".join(f"{name} {label}" for name, *_, label in rows)
        return svg(figure, "policies-narrow" if narrow else "policies", said)


def entropy_plot(rows: Sequence[Sequence[float]]) -> Markup:
    """Rows of (step, mean, 10% and 90% quantile, episodes): the mean as a line, the quantiles as a band."""
    steps, mean, low, high, _ = (np.array(column, float) for column in zip(*rows, strict=True))
    width, height = 440, 230
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = _axes(figure, (50, 66, 14, 42))
        axes.fill_between(steps + 1, low, high, color=MUTED, alpha=0.18, linewidth=0)
        axes.plot(steps + 1, mean, color=ACCENT, linewidth=1.8, marker="o" if len(steps) < 3 else "")
        axes.set(xlabel="step", ylim=(0, max(float(high.max()), float(mean.max()), 1e-3) * 1.08))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(y)))
        axes.annotate(f"mean {number(mean[-1], 2)}", (steps[-1] + 1, mean[-1]), xytext=(7, 0),
                      textcoords="offset points", va="center_baseline", color=ACCENT)  # fmt: skip
        said = (
            f"Mean entropy of the belief by step: {number(mean[0], 2)} nats before the first, "
            f"{number(mean[-1], 2)} before step {number(steps[-1] + 1, 0)}"
        )
        return svg(figure, "entropy", said)


def starts_plot(values: Sequence[float], best: float) -> Markup:
    """What each start of a search led to, best first."""
    ranked = sorted(values, reverse=True)
    width, height = 440, 230
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = _axes(figure, (56, 24, 22, 42))
        axes.axhline(best, color=ACCENT, linewidth=1.2, linestyle=(0, (5, 3)))
        axes.plot(range(1, len(ranked) + 1), ranked, marker="o", markersize=5.5, color=INK, linestyle="none")
        axes.set(xlabel="starts, best first", xlim=(0.3, len(ranked) + 0.7))
        if max(ranked) - min(ranked) < 1e-6 * max(1.0, abs(best)):
            axes.set_ylim(best - 0.1 * (abs(best) or 1), best + 0.1 * (abs(best) or 1))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(y)))
        axes.annotate(f"best {number(best, 4)}", (1, best), xycoords=axes.get_yaxis_transform(), ha="right",
                      xytext=(0, 6), textcoords="offset points", color=ACCENT)  # fmt: skip
        said = f"Values that {len(ranked)} starts led to: {number(min(ranked))} to {number(max(ranked))}"
        return svg(figure, "starts", said)


def line_of_beliefs(
    states: Sequence[str],
    beliefs: np.ndarray,
    values: np.ndarray,
    actions: Sequence[str],
    vectors: np.ndarray | None,
) -> Markup:
    """Value over the probability of the second of two states, with vectors of plans and actions taken."""
    p = beliefs[:, 1]
    regions = _regions(p, actions)
    width, left, right, bottom = 520, 52, 20, 42
    labels = [name if len(name) <= 22 else name[:21] + "…" for _, _, name in regions]
    room = width - left - right
    floors = label_floors([(a + b) / 2 * room for a, b, _ in regions], labels, room)
    top = 12 + 17 * (1 + max(floors))
    height = 230 + top + bottom
    span = float(np.ptp(values)) or max(1.0, abs(float(values[0])))
    colours = _colours(actions)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = _axes(figure, (left, right, top, bottom))
        axes.set(xlim=(0, 1), ylim=(values.min() - 0.3 * span, values.max() + 0.1 * span))
        axes.set_xlabel(f"probability of {_short(states[1], 40)}")
        for (a, b, name), label, floor in zip(regions, labels, floors, strict=True):
            axes.axvspan(a, b, color=colours[name], alpha=0.7, linewidth=0)
            middle, y = (a + b) / 2, 1 + (6 + 17 * floor) / 230
            axes.plot([middle] * 2, [1, y - 2 / 230], transform=axes.get_xaxis_transform(), clip_on=False,
                      color=MUTED, linewidth=1)  # fmt: skip
            side = {0.0: "left", 0.5: "center", 1.0: "right"}[hang(middle)]
            axes.text(middle, y, label, transform=axes.get_xaxis_transform(), ha=side, color=INK)
        for vector in vectors if vectors is not None else []:
            axes.plot([0, 1], vector, color=MUTED, linewidth=0.8)
        axes.plot(p, values, color=INK, linewidth=2.6)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(y)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick(x)))
        said = f"Value over the probability of {states[1]}: " + "; ".join(
            f"{name} from {number(a, 2)} to {number(b, 2)}" for a, b, name in regions
        )
        return svg(figure, "beliefs", said)


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _colours(actions: Sequence[str]) -> dict[str, str]:
    return {name: REGIONS[i % len(REGIONS)] for i, name in enumerate(dict.fromkeys(actions))}


def _regions(p: np.ndarray, actions: Sequence[str]) -> list[tuple[float, float, str]]:
    """Intervals of one action, with ends halfway between the points of the grid."""
    cuts = [i for i in range(1, len(p)) if actions[i] != actions[i - 1]]
    edges = [float(p[0]), *(float(p[i - 1] + p[i]) / 2 for i in cuts), float(p[-1])]
    return [(a, b, actions[i]) for (a, b), i in zip(pairwise(edges), [0, *cuts], strict=True)]


def triangle_of_beliefs(
    states: Sequence[str], beliefs: np.ndarray, values: np.ndarray, actions: Sequence[str]
) -> Markup:
    """Value over all beliefs of three states: darker is worth more; lines part the actions taken."""
    width, height = 520, 500
    corners = np.array([[0, 0], [1, 0], [0.5, math.sqrt(3) / 2]])
    x, y = (beliefs @ corners).T
    mesh = Triangulation(x, y)
    low, high = float(values.min()), float(values.max())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((30 / width, 50 / height, 1 - 60 / width, 1 - 76 / height))
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.06, 0.91), aspect="equal")
        axes.set_axis_off()
        levels = np.linspace(low, high if high > low else low + 1, len(BLUES) + 1)
        levels[-1] += 1e-9 * max(1.0, abs(high))
        axes.tricontourf(mesh, values, levels=levels, colors=BLUES, antialiased=False)
        _partings(axes, mesh, actions)
        axes.plot(*np.vstack([corners, corners[:1]]).T, color=INK, linewidth=1.2)
        for name, at in _middles(beliefs, np.stack([x, y], 1), actions):
            axes.text(at[0], at[1], _short(name, 22), ha="center", va="center", color=INK, fontweight="bold")
        for name, (cx, cy), side, lift in zip(
            states, corners, ("left", "right", "center"), (-15, -15, 8), strict=True
        ):
            axes.annotate(_short(name, 30), (cx, cy), xytext=(0, lift), textcoords="offset points", ha=side,
                          color=MUTED)  # fmt: skip
        _scale(figure, levels)
        said = (
            f"Value over the beliefs of {', '.join(states)}, from {number(low)} to {number(high)}; actions: "
            + ", ".join(dict.fromkeys(actions))
        )
        return svg(figure, "beliefs", said)


def _partings(axes: Axes, mesh: Triangulation, actions: Sequence[str]) -> None:
    """Lines between beliefs with different actions, smoothed so that the grid does not show."""
    names = list(dict.fromkeys(actions))
    if len(names) == 1:
        return
    share = np.array([[a == name for a in actions] for name in names], float)
    one, other = mesh.edges.T
    near = np.zeros((len(actions), len(actions)))
    near[one, other] = near[other, one] = 1
    near /= near.sum(1, keepdims=True)
    for _ in range(4):
        share = (share + share @ near.T) / 2
    for i in range(len(names)):
        lead = share[i] - np.delete(share, i, axis=0).max(0)
        if lead.min() < 0 < lead.max():
            axes.tricontour(mesh, lead, levels=[0.0], colors=[INK], linewidths=1.6)


def _middles(beliefs: np.ndarray, points: np.ndarray, actions: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """For each action, a place for its name: a point where it is taken, far from those where it is not."""
    found = []
    taken = np.array(actions)
    for name in dict.fromkeys(actions):
        inside, outside = points[taken == name], points[taken != name]
        if len(inside) < 8:
            continue
        centre = inside.mean(0)
        far = np.minimum(beliefs[taken == name].min(1), 0.12) - np.linalg.norm(inside - centre, axis=1)
        if len(outside):
            nearest = np.min(np.linalg.norm(inside[:, None] - outside[None], axis=2), axis=1)
            far = far + np.minimum(nearest, 0.12)
        found.append((name, inside[int(np.argmax(far))]))
    return found


def _scale(figure: Figure, levels: np.ndarray) -> None:
    """The colours with the values at which they change."""
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes((90 / width, 26 / height, 1 - 180 / width, 10 / height))
    for i, colour in enumerate(BLUES):
        axes.axvspan(i, i + 1, color=colour, linewidth=0)
    axes.set(xlim=(0, len(BLUES)), ylim=(0, 1), yticks=[])
    axes.spines["left"].set_visible(False)
    span = float(levels[-1] - levels[0])
    places: Callable[[float], str] = lambda v: number(v, max(0, 1 - math.floor(math.log10(span))))  # noqa: E731
    axes.xaxis.set_major_locator(FixedLocator(list(range(0, len(BLUES) + 1, 2))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda i, _: places(float(levels[round(i)]))))
