"""Learning curves: small pictures of what a run logged while it trained."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from turnwise.evaluation.pictures import style

_ROW = 14  # px from label to label


@dataclass(frozen=True)
class Curve:
    """One line of a panel: what was logged at which step."""

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """Lines that share an axis: training and held-out parts of one quantity, or quantities of one kind."""

    title: str
    curves: tuple[Curve, ...]
    unit: str = ""


def panel_plot(panel: Panel, key: str) -> Markup:
    """One small picture of learning curves, each line labelled with its last value.

    Labels stand at the ends of the lines, or above the picture if they are too long for that.
    """
    styles = [(style.MUTED, "-"), (style.ACCENT, "-"), (style.WARM, "-"), (style.INK, (0, (3, 2)))]
    drawn = panel.curves[: len(styles)]
    labels = [f"{c.label} {style.number(c.values[-1])}".strip() for c in drawn]
    width, bottom, room = 330, 30, 130
    right = 12 + style.LETTER * max(len(label) for label in labels)
    above = right > 130
    top = 10 + _ROW * len(labels) if above else 10
    height = top + room + bottom
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(width, height)
        axes = style.axes_inside(figure, (46, 12 if above else right, top, bottom))
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: style.thousands(x)))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        for curve, (colour, dashes) in zip(drawn, styles, strict=False):
            marker = "o" if len(curve.steps) < 3 else ""  # a line needs two points to be seen
            axes.plot(curve.steps, curve.values, color=colour, linestyle=dashes, marker=marker, linewidth=1.7)
        low, high = axes.get_ylim()
        places = style.apart([(c.values[-1] - low) / (high - low) * room for c in drawn], _ROW)
        x = 1.04
        if above:
            x, places = 0.0, [room + 6 + _ROW * i for i in reversed(range(len(labels)))]
        for label, place, (colour, _) in zip(labels, places, styles, strict=False):
            axes.text(x, place / room, label, transform=axes.transAxes, va="center_baseline", color=colour)
        ends = "; ".join(
            f"{c.label or panel.title} from {style.number(c.values[0])} to {style.number(c.values[-1])}"
            for c in drawn
        )
        steps = style.number(max(c.steps[-1] for c in drawn))
        return style.svg(figure, key, f"{panel.title} over {steps} steps: {ends}")
