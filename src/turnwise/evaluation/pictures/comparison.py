"""Values side by side, with intervals or bounds: methods beside references, policies beside the optimum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from turnwise.evaluation.pictures import style


@dataclass(frozen=True)
class Interval:
    """One row or line of the comparison plot; `low` and `high` are None where a figure has no interval."""

    name: str
    mean: float
    low: float | None = None
    high: float | None = None
    best: bool = False
    sure: bool = True
    """whether something vouches for it; its dot is hollow if not"""


def comparison_plot(
    rows: Sequence[Interval],
    references: Sequence[Interval],
    *,
    score: str,
    decimals: int,
    narrow: bool = False,
    key: str = "comparison",
) -> Markup:
    """Dots with intervals, one row a method in the order given; references as upright labelled lines.

    `key` is unique on a page: ids inside the picture begin with it.
    """
    width, pitch = (360, 46) if narrow else (900, 36)
    rows = [replace(r, name=r.name if len(r.name) <= 44 else r.name[:43] + "…") for r in rows]
    left = 8 if narrow else 24 + style.LETTER * 1.1 * max(len(r.name) for r in rows)
    right = 12 if narrow else 30
    ends = [x for r in (*rows, *references) for x in (r.mean, r.low, r.high) if x is not None]
    span = (max(ends) - min(ends)) or max(abs(max(ends)), 1.0)
    low, high = min(ends) - 0.06 * span, max(ends) + (0.16 if narrow else 0.12) * span
    scale = (width - left - right) / (high - low)
    labels = [
        f"{r.name} {style.as_given(r.mean) if r.low is None else style.number(r.mean, decimals)}"
        for r in references
    ]
    floors = style.label_floors([(r.mean - low) * scale for r in references], labels, width - left - right)
    top, bottom = 10 + 17 * (1 + max(floors, default=-1)), 44
    height = top + bottom + pitch * len(rows)
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(width, height)
        axes = style.axes_inside(figure, (left, right, top, bottom))
        axes.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.5), xlabel=score)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 7))
        axes.grid(axis="x", color=style.LINE, linewidth=0.8)
        for reference, label, floor in zip(references, labels, floors, strict=True):
            _draw_reference(axes, reference, label, floor, pitch * len(rows), (low, high))
        for i, row in enumerate(rows):
            _draw_row(axes, row, i, decimals, narrow=narrow)
        return style.svg(figure, f"{key}-narrow" if narrow else key, _in_words(rows, labels, score))


def _draw_reference(
    axes: Axes, reference: Interval, label: str, floor: int, height: float, limits: tuple[float, float]
) -> None:
    if reference.low is not None and reference.high is not None:
        axes.axvspan(reference.low, reference.high, color=style.MUTED, alpha=0.16, linewidth=0)
    side = style.hang((reference.mean - limits[0]) / (limits[1] - limits[0]))
    top = 1 + (6 + 17 * floor) / height
    axes.plot([reference.mean] * 2, [0, top - 3 / height], transform=axes.get_xaxis_transform(),
              clip_on=False, color=style.MUTED, linewidth=1.2, linestyle=(0, (5, 3)))  # fmt: skip
    where = {0.0: "left", 0.5: "center", 1.0: "right"}[side]
    axes.text(reference.mean, top, label, transform=axes.get_xaxis_transform(), ha=where, color=style.MUTED)


def _draw_row(axes: Axes, row: Interval, i: int, decimals: int, *, narrow: bool) -> None:
    colour = style.ACCENT if row.best else style.INK
    y = i + 0.2 if narrow else i
    if row.low is not None and row.high is not None:
        width = 2.6 if row.sure else 1.2
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=width, solid_capstyle="round")
    axes.plot([row.mean], [y], marker="o", markersize=8.5, color=colour, linestyle="none",
              markerfacecolor=colour if row.sure else "none", markeredgewidth=1.6)  # fmt: skip
    end = row.mean if row.high is None else row.high
    axes.annotate(
        style.number(row.mean, decimals),
        (end, y),
        xytext=(9, 0),
        textcoords="offset points",
        va="center_baseline",
        color=colour,
        fontweight="bold" if row.best else "normal",
    )
    _name_row(axes, row.name, i, colour, narrow=narrow, bold=row.best)


def _name_row(axes: Axes, name: str, i: int, colour: str, *, narrow: bool, bold: bool) -> None:
    """The name of row `i`: left of the axes, or over the row on a narrow screen."""
    axes.annotate(
        name,
        (0, i - 0.22 if narrow else i),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0 if narrow else -14, 0),
        textcoords="offset points",
        ha="left" if narrow else "right",
        va="center_baseline",
        color=colour,
        fontweight="bold" if bold else "normal",
        annotation_clip=False,
    )


def _in_words(rows: Sequence[Interval], labels: Sequence[str], score: str) -> str:
    parts = []
    for r in rows:
        interval = ""
        if r.low is not None and r.high is not None:
            interval = f" ({style.number(r.low)} to {style.number(r.high)})"
        parts.append(f"{r.name} {style.number(r.mean)}{interval}")
    return f"{score} by method, with intervals: " + "; ".join([*parts, *labels])


def interval_plot(rows: Sequence[tuple[str, float, float, str]], *, narrow: bool) -> Markup:
    """Rows of (name, lower, upper, label): a bar between the bounds, a dot where they are near."""
    width, pitch = (360, 46) if narrow else (900, 36)
    left = 8 if narrow else 24 + style.LETTER * 1.1 * max(len(name) for name, *_ in rows)
    right = 18 + style.LETTER * 1.05 * max(len(label) for *_, label in rows)
    ends = [x for _, low, high, _ in rows for x in (low, high)]
    span = (max(ends) - min(ends)) or max(abs(max(ends)), 1.0)
    low, high = min(ends) - 0.04 * span, max(ends) + 0.01 * span
    scale = (width - left - right) / (high - low)
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(width, 54 + pitch * len(rows))
        axes = style.axes_inside(figure, (left, right, 10, 44))
        axes.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.5), xlabel="value")
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 7))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: style.tick(x)))
        axes.grid(axis="x", color=style.LINE, linewidth=0.8)
        for i, (name, a, b, label) in enumerate(rows):
            colour, weight = (style.ACCENT, "bold") if i == 0 else (style.INK, "normal")
            y = i + 0.2 if narrow else i
            if (b - a) * scale > 7:
                axes.plot([a, b], [y, y], color=colour, linewidth=2.6, clip_on=False)
                axes.plot([a, b], [y, y], marker="|", markersize=11, markeredgewidth=2.2, color=colour,
                          linestyle="none", clip_on=False)  # fmt: skip
            else:
                axes.plot([(a + b) / 2], [y], marker="o", markersize=8.5, color=colour, clip_on=False)
            axes.annotate(label, (b, y), xytext=(10, 0), textcoords="offset points", va="center_baseline",
                          color=colour, fontweight=weight)  # fmt: skip
            _name_row(axes, name, i, colour, narrow=narrow, bold=i == 0)
        description = "Value by policy: " + "; ".join(f"{name} {label}" for name, *_, label in rows)
        return style.svg(figure, "policies-narrow" if narrow else "policies", description)
