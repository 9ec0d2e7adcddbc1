"""Pictures of conversations: returns of logs, and the critic's value over the turns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import matplotlib
from markupsafe import Markup, escape
from matplotlib.ticker import FuncFormatter, MaxNLocator

from turnwise.evaluation.pictures import style


def histogram_plot(edges: Sequence[float], counts: Sequence[int], mean: float | None, key: str) -> Markup:
    """Counts of conversations by return, with the mean as a labelled line."""
    width, height = 520, 210
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(width, height)
        axes = style.axes_inside(figure, (52, 12, 28, 42))
        axes.bar(edges[:-1], counts, width=[b - a for a, b in pairwise(edges)],
                 align="edge", color=style.MUTED, alpha=0.55, linewidth=0)  # fmt: skip
        axes.set(xlabel="return of a conversation", ylabel="conversations")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
        label = f"Histogram of returns from {style.number(edges[0])} to {style.number(edges[-1])}"
        if mean is not None:
            axes.axvline(mean, color=style.INK, linewidth=1.4, linestyle=(0, (5, 3)))
            mark = f"mean {style.number(mean)}"
            axes.annotate(mark, (mean, 1), xycoords=axes.get_xaxis_transform(), xytext=(0, 6),
                          textcoords="offset points", ha="center", color=style.INK)  # fmt: skip
            label += f", {mark}"
        return style.svg(figure, key, label)


def value_line(
    values: Sequence[float],
    classes: Sequence[str],
    span: tuple[float, float],
    mean: float | None = None,
    *,
    large: bool = False,
) -> Markup:
    """V over the agent's turns as a small line with one dot a turn, coloured by that turn's advantage.

    `span` is the range of returns that fills the height, the same for every conversation of a run; V of a
    critic that knows little stays in its middle. `mean`: the mean return, drawn across if it is known.
    """
    width, height, x0, x1, y0 = (420, 124, 44, 52, 12) if large else (112, 30, 5, 5, 5)
    low, high = span
    scale = (height - (30 if large else 2 * y0)) / ((high - low) or 1.0)
    step = (width - x0 - x1) / max(1, len(values) - 1)
    spots = [(x0 + i * step, y0 + (high - v) * scale) for i, v in enumerate(values)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    dots = "".join(f'<circle class="{c}" cx="{x:.1f}" cy="{y:.1f}" r="{5 if large else 3}"/>'
                   for (x, y), c in zip(spots, classes, strict=True))  # fmt: skip
    texts = across = ""
    if mean is not None and low <= mean <= high:
        level = y0 + (high - mean) * scale
        across = f'<line x1="{x0}" x2="{width - x1}" y1="{level:.1f}" y2="{level:.1f}"/>'
    if large:
        turns = "".join(f'<text x="{x:.1f}" y="{height - 3}" text-anchor="middle">{i + 1}</text>'
                        for i, (x, _) in enumerate(spots) if len(spots) <= 12 or i % 5 == 0)  # fmt: skip
        (x, y), (end, last) = spots[0], spots[-1]
        now = f'<text class="now" x="{end + 10:.1f}" y="{last + 4:.1f}">{style.number(values[-1], 2)}</text>'
        first = f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{style.number(values[0], 2)}</text>'
        texts = f"{turns}{now}{first}"
        for end, y in ((high, y0 + 2), (low, height - y0 - 4)):
            texts += f'<text x="{width}" y="{y}" text-anchor="end">{style.number(end, 2)}</text>'
    description = escape("V by turn: " + ", ".join(style.number(v, 2) for v in values))
    return Markup(
        f'<svg class="spark" viewBox="0 0 {width} {height}" role="img" aria-label="{description}">'
        f'{across}<polyline points="{points}"/>{dots}{texts}</svg>'
    )
