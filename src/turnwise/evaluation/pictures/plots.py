"""Pictures of the report page: SVG text to be inlined, in the page's own colours and fonts.

Matplotlib draws with stand-in colours that are replaced by the page's CSS variables, so that one picture
serves light, dark and print; its text stays text and takes the page's font.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from turnwise.evaluation.pages.curves import Panel

INK, MUTED, LINE, ACCENT, WARM = "#010101", "#020202", "#030303", "#040404", "#050505"
BLUES, ORANGES = ([f"#{tens}0{i}" for i in range(1, 7)] for tens in ("0606", "0707"))  # the levels below
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", WARM: "--warm"}
_VARIABLES |= {c: f"--{s}{i}" for s, side in (("p", BLUES), ("n", ORANGES)) for i, c in enumerate(side, 1)}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "turnwise",
    "text.parse_math": False,
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.linewidth": 1,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
LETTER = 6.3  # px a letter of 11 px text takes at most, in any of the page's fonts

LEVELS = 6  # colours on either side of zero
# Orange and blue stay apart in every common colour blindness; both sides have equal lightness (OKLCH)
# at equal distance from zero, and the page's ink has a contrast of at least 4.5 on each of them.
LIGHT = {
    "n": ("#f7eadd", "#f5dabf", "#f2c9a2", "#efb883", "#eaa564", "#e59344"),
    "p": ("#e2edfb", "#c9e0fc", "#b0d3fc", "#96c6fc", "#7bb7fa", "#5ea9f5"),
}
DARK = {
    "n": ("#372e27", "#473627", "#583d25", "#694523", "#7b4c1e", "#8d5416"),
    "p": ("#293139", "#2c3b4b", "#2d465f", "#2e5073", "#2f5b87", "#2e669c"),
}


def level(value: float, limit: float) -> str:
    """Colour class of a signed value: n6 .. n1, z, p1 .. p6, symmetric around 0; `limit` and beyond is 6."""
    step = min(LEVELS, math.floor(abs(value) / limit * LEVELS + 0.5))
    return "z" if step == 0 else f"{'p' if value > 0 else 'n'}{step}"


def number(value: float, decimals: int | None = None, *, signed: bool = False) -> str:
    """A number as people write it: a true minus sign, thousands apart; 3 significant digits by default."""
    if decimals is None:
        size = math.floor(math.log10(abs(value))) if value else 0
        if size < -4:
            return f"{value:.2g}".replace("e-0", "e-").replace("-", "−")
        decimals = max(0, 2 - size)
    text = f"{value:{'+' if signed else ''},.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def as_given(value: float) -> str:
    """An exact or quoted figure, to at most four decimals."""
    text = number(value, 4)
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True)
class Interval:
    """One row or line of the comparison plot; `low` and `high` are None where a figure has no interval."""

    name: str
    mean: float
    low: float | None = None
    high: float | None = None
    best: bool = False


def comparison_plot(
    rows: Sequence[Interval],
    references: Sequence[Interval],
    *,
    score: str,
    decimals: int,
    narrow: bool = False,
) -> Markup:
    """Dots with intervals, one row a method in the order given; references as upright labelled lines."""
    width, pitch = (360, 46) if narrow else (900, 36)
    rows = [replace(r, name=r.name if len(r.name) <= 44 else r.name[:43] + "…") for r in rows]
    left = 8 if narrow else 24 + LETTER * 1.1 * max(len(r.name) for r in rows)
    right = 12 if narrow else 30
    ends = [x for r in (*rows, *references) for x in (r.mean, r.low, r.high) if x is not None]
    span = (max(ends) - min(ends)) or max(abs(max(ends)), 1.0)
    low, high = min(ends) - 0.06 * span, max(ends) + (0.16 if narrow else 0.12) * span
    scale = (width - left - right) / (high - low)
    labels = [
        f"{r.name} {as_given(r.mean) if r.low is None else number(r.mean, decimals)}" for r in references
    ]
    floors = label_floors([(r.mean - low) * scale for r in references], labels, width - left - right)
    top, bottom = 10 + 17 * (1 + max(floors, default=-1)), 44
    height = top + bottom + pitch * len(rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes(
            (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
        )
        axes.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.5), xlabel=score)
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 7))
        axes.grid(axis="x", color=LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        for reference, label, floor in zip(references, labels, floors, strict=True):
            _draw_reference(axes, reference, label, floor, pitch * len(rows), (low, high))
        for i, row in enumerate(rows):
            _draw_row(axes, row, i, decimals, narrow=narrow)
        return svg(figure, "comparison-narrow" if narrow else "comparison", _in_words(rows, labels, score))


def label_floors(places: Sequence[float], labels: Sequence[str], width: float) -> list[int]:
    """The level above the axes on which each label stands, so that no two overlap; places in px."""
    taken: list[list[tuple[float, float]]] = []
    floors = []
    for place, label in zip(places, labels, strict=True):
        extent = LETTER * len(label)
        start = place - extent * hang(place / width)
        floor = 0
        while floor < len(taken) and any(start < b + 8 and a - 8 < start + extent for a, b in taken[floor]):
            floor += 1
        if floor == len(taken):
            taken.append([])
        taken[floor].append((start, start + extent))
        floors.append(floor)
    return floors


def hang(share: float) -> float:
    """Part of a label that hangs to the left of its line: none at the left edge, all at the right."""
    return 0.0 if share < 0.3 else 1.0 if share > 0.7 else 0.5


def _draw_reference(
    axes: Axes, reference: Interval, label: str, floor: int, height: float, limits: tuple[float, float]
) -> None:
    if reference.low is not None and reference.high is not None:
        axes.axvspan(reference.low, reference.high, color=MUTED, alpha=0.16, linewidth=0)
    side = hang((reference.mean - limits[0]) / (limits[1] - limits[0]))
    top = 1 + (6 + 17 * floor) / height
    axes.plot([reference.mean] * 2, [0, top - 3 / height], transform=axes.get_xaxis_transform(),
              clip_on=False, color=MUTED, linewidth=1.2, linestyle=(0, (5, 3)))  # fmt: skip
    where = {0.0: "left", 0.5: "center", 1.0: "right"}[side]
    axes.text(reference.mean, top, label, transform=axes.get_xaxis_transform(), ha=where, color=MUTED)


def _draw_row(axes: Axes, row: Interval, i: int, decimals: int, *, narrow: bool) -> None:
    colour = ACCENT if row.best else INK
    y = i + 0.2 if narrow else i
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2.6, solid_capstyle="round")
    axes.plot([row.mean], [y], marker="o", markersize=8.5, color=colour, linestyle="none")
    end = row.mean if row.high is None else row.high
    axes.annotate(
        number(row.mean, decimals),
        (end, y),
        xytext=(9, 0),
        textcoords="offset points",
        va="center_baseline",
        color=colour,
        fontweight="bold" if row.best else "normal",
    )
    axes.annotate(
        row.name,
        (0, i - 0.22 if narrow else i),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0 if narrow else -14, 0),
        textcoords="offset points",
        ha="left" if narrow else "right",
        va="center_baseline",
        color=colour,
        fontweight="bold" if row.best else "normal",
        annotation_clip=False,
    )


def _in_words(rows: Sequence[Interval], labels: Sequence[str], score: str) -> str:
    parts = []
    for r in rows:
        interval = ""
        if r.low is not None and r.high is not None:
            interval = f" ({number(r.low)} to {number(r.high)})"
        parts.append(f"{r.name} {number(r.mean)}{interval}")
    return f"{score} by method, with intervals: " + "; ".join([*parts, *labels])


def panel_plot(panel: Panel, key: str) -> Markup:
    """One small picture of learning curves, each line labelled at its end with its last value."""
    width, height, right = 330, 170, 92 if any(c.label for c in panel.curves) else 52
    styles = [(MUTED, "-"), (ACCENT, "-"), (WARM, "-"), (INK, (0, (3, 2)))]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((46 / width, 30 / height, 1 - (46 + right) / width, 1 - 40 / height))
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}")
        )
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(y)))
        axes.spines["left"].set_visible(False)
        for curve, (colour, dashes) in zip(panel.curves, styles, strict=False):
            marker = "o" if len(curve.steps) < 3 else ""
            axes.plot(curve.steps, curve.values, color=colour, linestyle=dashes, marker=marker, linewidth=1.7)
        drawn = panel.curves[: len(styles)]
        bottom, top = axes.get_ylim()
        heights = apart([(c.values[-1] - bottom) / (top - bottom) * (height - 40) for c in drawn], 14)
        for curve, place, (colour, _) in zip(drawn, heights, styles, strict=False):
            text = f"{curve.label} {number(curve.values[-1])}".strip()
            axes.text(1.04, place / (height - 40), text, transform=axes.transAxes, va="center_baseline",
                      color=colour)  # fmt: skip
        ends = "; ".join(
            f"{c.label or panel.title} from {number(c.values[0])} to {number(c.values[-1])}" for c in drawn
        )
        return svg(figure, key, f"{panel.title} over {number(max(c.steps[-1] for c in drawn))} steps: {ends}")


def tick(value: float) -> str:
    """A number at a tick of an axis, with a true minus sign."""
    plain = f"{value:.10g}" if abs(value) >= 1e-3 or abs(value) < 1e-12 else f"{value:.4e}"
    digits, _, power = plain.partition("e")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return (f"{digits}e{int(power)}" if power else digits if abs(value) >= 1e-12 else "0").replace("-", "−")


def apart(places: Sequence[float], gap: float) -> list[float]:
    """The places moved as little as order allows so that neighbours are at least `gap` apart."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for _ in range(20):
        for below, above in pairwise(order):
            short = gap - (moved[above] - moved[below])
            if short > 0:
                moved[below] -= short / 2
                moved[above] += short / 2
    return moved


def histogram_plot(edges: Sequence[float], counts: Sequence[int], mean: float | None, key: str) -> Markup:
    """Counts of conversations by return, with the mean as a labelled line."""
    width, height = 520, 210
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((52 / width, 42 / height, 1 - 64 / width, 1 - 70 / height))
        axes.bar(edges[:-1], counts, width=[b - a for a, b in pairwise(edges)],
                 align="edge", color=MUTED, alpha=0.55, linewidth=0)  # fmt: skip
        axes.set(xlabel="return of a conversation", ylabel="conversations")
        axes.spines["left"].set_visible(False)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        label = f"Histogram of returns from {number(edges[0])} to {number(edges[-1])}"
        if mean is not None:
            axes.axvline(mean, color=INK, linewidth=1.4, linestyle=(0, (5, 3)))
            axes.annotate(f"mean {number(mean)}", (mean, 1), xycoords=axes.get_xaxis_transform(),
                          xytext=(0, 6), textcoords="offset points", ha="center", color=INK)  # fmt: skip
            label += f", mean {number(mean)}"
        return svg(figure, key, label)


def value_line(
    values: Sequence[float], classes: Sequence[str], span: tuple[float, float], *, large: bool = False
) -> Markup:
    """V over the agent's turns as a small line with one dot a turn, coloured by that turn's advantage.

    `span` is the range of V that fills the height: the same for every conversation of a run.
    """
    width, height, x0, x1, y0 = (420, 124, 44, 52, 12) if large else (112, 30, 5, 5, 5)
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    scale = (height - (30 if large else 2 * y0)) / ((high - low) or 1.0)
    step = (width - x0 - x1) / max(1, len(values) - 1)
    spots = [(x0 + i * step, y0 + (high - v) * scale) for i, v in enumerate(values)]
    zero = y0 + high * scale
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    dots = "".join(f'<circle class="{c}" cx="{x:.1f}" cy="{y:.1f}" r="{5 if large else 3}"/>'
                   for (x, y), c in zip(spots, classes, strict=True))  # fmt: skip
    texts = ""
    if large:
        turns = "".join(f'<text x="{x:.1f}" y="{height - 3}" text-anchor="middle">{i + 1}</text>'
                        for i, (x, _) in enumerate(spots) if len(spots) <= 12 or i % 5 == 0)  # fmt: skip
        (x, y), (end, last) = spots[0], spots[-1]
        now = f'<text class="now" x="{end + 10:.1f}" y="{last + 4:.1f}">{number(values[-1], 2)}</text>'
        first = f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{number(values[0], 2)}</text>'
        texts = f'{turns}{now}{first}<text x="{width - 8}" y="{zero + 4:.1f}" text-anchor="end">V = 0</text>'
    said = escape("V by turn: " + ", ".join(number(v, 2) for v in values))
    return Markup(
        f'<svg class="spark" viewBox="0 0 {width} {height}" role="img" aria-label="{said}">'
        f'<line x1="{x0}" x2="{width - x1}" y1="{zero:.1f}" y2="{zero:.1f}"/>'
        f'<polyline points="{points}"/>{dots}{texts}</svg>'
    )


def svg(figure: Figure, key: str, label: str) -> Markup:
    """The figure as SVG inside a page: the page's colours and fonts, ids of its own, nothing from outside."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    view = re.search(r'viewBox="([^"]+)"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r"font-family: [^;\"]+;? ?", "", body)
    body = re.sub(r' id="', f' id="{key}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{key}-', body).replace("url(#", f"url(#{key}-")
    for stand_in, variable in _VARIABLES.items():
        body = body.replace(stand_in, f"var({variable})")
    short = re.compile(r"(\.\d\d)\d+")
    body = re.sub(r' (?:d|x|y)="[^"]+"', lambda m: short.sub(r"\1", m[0]), body)
    body = re.sub(r"\s+", " ", body).replace("> <", "><")
    assert view is not None  # matplotlib always writes one
    return Markup(f'<svg class="plot" viewBox="{view[1]}" role="img" aria-label="{escape(label)}">{body}')
