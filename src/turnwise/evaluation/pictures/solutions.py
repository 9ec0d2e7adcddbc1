"""Pictures of a solved POMDP: bounds over time, the belief's entropy, the values that a search found."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from turnwise.evaluation.pictures import style


def bounds_plot(trace: Sequence[Sequence[float]], ends: tuple[str, str]) -> Markup:
    """Both bounds against seconds, each labelled with its last value as given in `ends`."""
    seconds, lower, upper = (np.array(column, float) for column in zip(*trace, strict=True))
    lines = [(upper, style.WARM, f"upper {ends[1]}"), (lower, style.ACCENT, f"lower {ends[0]}")]
    description = f"Bounds over {style.number(seconds[-1])} seconds, at the end {ends[0]} and {ends[1]}"
    return _lines(seconds, lines, "bounds", description)


def gap_plot(trace: Sequence[Sequence[float]], end: str) -> Markup:
    """Upper less lower bound against seconds, in powers of ten."""
    seconds, lower, upper = (np.array(column, float) for column in zip(*trace, strict=True))
    gap = np.maximum(upper - lower, 1e-12)
    description = f"Gap between the bounds over {style.number(seconds[-1])} seconds, at the end {end}"
    return _lines(seconds, [(gap, style.INK, end)], "gap", description, logarithmic=True)


def _lines(
    seconds: np.ndarray,
    lines: Sequence[tuple[np.ndarray, str, str]],
    key: str,
    description: str,
    *,
    logarithmic: bool = False,
) -> Markup:
    """Lines of (values, colour, label at the end) over seconds."""
    width, height, top, bottom = 440, 230, 14, 42
    right = 12 + style.LETTER * max(len(text) for *_, text in lines)
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(width, height)
        axes = style.axes_inside(figure, (50, right, top, bottom))
        for values, colour, _ in lines:
            axes.plot(seconds, values, color=colour, linewidth=1.8, marker="o" if len(seconds) < 3 else "")
        axes.set_xlabel("seconds")
        _time_axis(axes, seconds)
        if logarithmic:
            axes.set_yscale("log")
            few = max(v.max() for v, *_ in lines) < 100 * min(v.min() for v, *_ in lines)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=6))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(
                FuncFormatter(lambda y, _: style.tick(y))
            )  # the scale has set its own
        room = height - top - bottom
        axes.autoscale_view()
        to_axes = axes.transScale + axes.transLimits
        places = [float(to_axes.transform((seconds[-1], v[-1]))[1]) * room for v, *_ in lines]
        for (*_, colour, text), place in zip(lines, style.apart(places, 14), strict=True):
            axes.text(1.02, place / room, text, transform=axes.transAxes, va="center_baseline", color=colour)
        return style.svg(figure, key, description)


def _time_axis(axes: Axes, seconds: np.ndarray) -> None:
    """Powers of ten where the times span more than one."""
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if seconds[0] > 0 and seconds[-1] > 10 * seconds[0]:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: style.tick(x)))


def entropy_plot(rows: Sequence[Sequence[float]]) -> Markup:
    """Rows of (step, mean, 10% and 90% quantile, episodes): the mean as a line, the quantiles as a band."""
    steps, mean, low, high, _ = (np.array(column, float) for column in zip(*rows, strict=True))
    width, height = 440, 230
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(width, height)
        axes = style.axes_inside(figure, (50, 66, 14, 42))
        axes.fill_between(steps + 1, low, high, color=style.MUTED, alpha=0.18, linewidth=0)
        axes.plot(steps + 1, mean, color=style.ACCENT, linewidth=1.8, marker="o" if len(steps) < 3 else "")
        axes.set(xlabel="step", ylim=(0, max(float(high.max()), float(mean.max()), 1e-3) * 1.08))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.annotate(f"mean {style.number(mean[-1], 2)}", (steps[-1] + 1, mean[-1]), xytext=(7, 0),
                      textcoords="offset points", va="center_baseline", color=style.ACCENT)  # fmt: skip
        description = (
            f"Mean entropy of the belief by step: {style.number(mean[0], 2)} nats before the first, "
            f"{style.number(mean[-1], 2)} before step {style.number(steps[-1] + 1, 0)}"
        )
        return style.svg(figure, "entropy", description)


def starts_plot(values: Sequence[float], best: float) -> Markup:
    """What each start of a search led to, best first."""
    ranked = sorted(values, reverse=True)
    width, height = 440, 230
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(width, height)
        axes = style.axes_inside(figure, (56, 24, 22, 42))
        axes.axhline(best, color=style.ACCENT, linewidth=1.2, linestyle=(0, (5, 3)))
        axes.plot(
            range(1, len(ranked) + 1), ranked, marker="o", markersize=5.5, color=style.INK, linestyle="none"
        )
        axes.set(xlabel="starts, best first", xlim=(0.3, len(ranked) + 0.7))
        if max(ranked) - min(ranked) < 1e-6 * max(1.0, abs(best)):
            axes.set_ylim(best - 0.1 * (abs(best) or 1), best + 0.1 * (abs(best) or 1))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.annotate(f"best {style.number(best, 4)}", (1, best), xycoords=axes.get_yaxis_transform(),
                      ha="right", xytext=(0, 6), textcoords="offset points", color=style.ACCENT)  # fmt: skip
        low, high = style.number(min(ranked)), style.number(max(ranked))
        description = f"Values that {len(ranked)} starts led to: {low} to {high}"
        return style.svg(figure, "starts", description)
