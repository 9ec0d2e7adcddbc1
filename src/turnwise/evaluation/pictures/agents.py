"""Pictures of an agent's run: returns in training beside what is known, what its memory knows, V in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from turnwise.evaluation.pictures import style
from turnwise.evaluation.pictures.curves import Curve

LINES = {
    "belief": ("exact belief", style.INK, (0, (5, 3))),
    "memory": ("this memory", style.ACCENT, "-"),
    "untrained": ("untrained memory", style.MUTED, "-"),
    "observation": ("observation alone", style.WARM, "-"),
}
"""lines of the probe: what each is read from, its colour, its dashes"""


def return_plot(curve: Curve, references: Sequence[tuple[str, float]], *, narrow: bool) -> Markup:
    """A return over steps of the environment, and what is known as level lines with their names."""
    width, height = (360, 300) if narrow else (820, 320)
    texts = [
        f"training {style.number(curve.values[-1])}",
        *(f"{name} {style.as_given(x)}" for name, x in references),
    ]
    right = 14 + style.LETTER * 1.02 * (0 if narrow else max(len(t) for t in texts))
    bottom, top = _range(np.array(curve.values), [x for _, x in references])
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(width, height)
        axes = style.axes_inside(figure, (52, right, 14 + 17 * len(texts) if narrow else 14, 44))
        axes.margins(x=0.01)
        axes.set(ylim=(bottom, top), xlabel="steps of the environment")
        if curve.values[0] < bottom:
            axes.annotate(f"↓ {style.number(curve.values[0])} at first", (0, 0), xycoords="axes fraction",
                          xytext=(4, 6), textcoords="offset points", color=style.ACCENT)  # fmt: skip
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: style.thousands(x)))
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 7))
        marker = "o" if len(curve.steps) < 3 else ""
        axes.plot(curve.steps, curve.values, color=style.ACCENT, marker=marker, linewidth=1.9, clip_on=True)
        for i, (_, x) in enumerate(references):
            axes.axhline(x, color=_grey(i), linewidth=1.3, linestyle=(0, (5, 3)) if i == 0 else (0, (2, 3)))
        levels = [curve.values[-1], *(x for _, x in references)]
        colours = [style.ACCENT, *(_grey(i) for i in range(len(references)))]
        if narrow:
            for i, (text, colour) in enumerate(zip(texts, colours, strict=True)):
                axes.annotate(text, (0, 1), xycoords="axes fraction", xytext=(0, 6 + 17 * i),
                              textcoords="offset points", color=colour)  # fmt: skip
        else:
            _at_end(axes, texts, levels, colours)
        key = "returns-narrow" if narrow else "returns"
        return style.svg(
            figure, key, f"Return over {style.number(max(curve.steps))} steps: " + "; ".join(texts)
        )


def _range(values: np.ndarray, references: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value of the y axis.

    The axis shows all references and the later half of training. Early training may be far worse: of its
    low values the axis shows at most one and a half times that range, so that the rest stays readable.
    """
    kept = [*references, *values[len(values) // 2 :]]
    low, high = min(kept), max(*kept, float(values.max()))
    room = (high - low) or 1.0
    return max(min(low, float(values.min())), low - 1.5 * room) - 0.06 * room, high + 0.06 * room


def _grey(i: int) -> str:
    return style.INK if i == 0 else style.MUTED


def probe_plot(probe: Mapping[str, Any]) -> Markup:
    """Share of right guesses of the hidden state over the steps of an episode, a line for each reader."""
    steps = np.array(probe["steps"]) + 1
    shown = [name for name in LINES if name in probe["lines"]]
    texts = [f"{LINES[n][0]} {style.number(100 * probe['lines'][n]['by_step'][-1], 0)}%" for n in shown]
    width, height = 640, 280
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(width, height)
        axes = style.axes_inside(figure, (52, 14 + style.LETTER * max(len(t) for t in texts), 14, 44))
        axes.margins(x=0.01)
        for name in reversed(shown):
            _, colour, dashes = LINES[name]
            by_step = probe["lines"][name]["by_step"]
            axes.plot(steps, by_step, color=colour, linestyle=dashes, linewidth=1.8,
                      marker="o" if len(steps) < 3 else "", clip_on=False)  # fmt: skip
        low = min(min(probe["lines"][n]["by_step"]) for n in shown)
        high = max(max(probe["lines"][n]["by_step"]) for n in shown)
        room = max(0.04, 0.06 * (high - low))
        axes.set(xlabel="step of the episode", ylim=(max(0, low - room), min(1, high + room)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f}%"))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ends = [probe["lines"][n]["by_step"][-1] for n in shown]
        _at_end(axes, texts, ends, [LINES[n][1] for n in shown])
        return style.svg(
            figure, "probe", "Right guesses of the hidden state at the last step: " + "; ".join(texts)
        )


def _at_end(axes: Axes, texts: Sequence[str], levels: Sequence[float], colours: Sequence[str]) -> None:
    """Texts at the right edge, at their levels or as near as they can be read."""
    bottom, top = axes.get_ylim()
    room = axes.get_window_extent().height * 72 / axes.figure.dpi
    places = [(min(top, max(bottom, x)) - bottom) / (top - bottom) * room for x in levels]
    for text, place, colour in zip(texts, style.apart(places, 15), colours, strict=True):
        axes.annotate(text, (1, place / room), xycoords="axes fraction", xytext=(8, 0),
                      textcoords="offset points", va="center_baseline", color=colour)  # fmt: skip


def value_trace(values: Sequence[float], span: tuple[float, float], *, large: bool = False) -> Markup:
    """V over the steps of an episode as a line; `span` fills the height, the same for all of a run."""
    width, height, x0, x1, y0 = (420, 110, 54, 60, 14) if large else (112, 26, 3, 3, 4)
    low, high = span
    first, now = values[0], values[-1]
    scale = (height - 2 * y0) / ((high - low) or 1.0)
    step = (width - x0 - x1) / max(1, len(values) - 1)
    spots = [(x0 + i * step, y0 + (high - v) * scale) for i, v in enumerate(values)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    texts = axis = ""
    if low <= 0 <= high:
        zero = y0 + high * scale
        axis = f'<line x1="{x0}" x2="{width - x1}" y1="{zero:.1f}" y2="{zero:.1f}"/>'
    if large:
        x, y = spots[0]
        end, last = spots[len(spots) - 1]
        texts = (
            f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{style.number(first)}</text>'
            f'<text class="now" x="{end + 8:.1f}" y="{last + 4:.1f}">{style.number(now)}</text>'
            f'<text x="{x0}" y="{height - 1}">V, step 1</text>'
            f'<text x="{width - x1}" y="{height - 1}" text-anchor="end">{len(values)}</text>'
        )
    description = escape(f"V from {style.number(first)} to {style.number(now)} over {len(values)} steps")
    return Markup(
        f'<svg class="spark" viewBox="0 0 {width} {height}" role="img" aria-label="{description}">'
        f'{axis}<polyline points="{points}"/>{texts}</svg>'
    )
