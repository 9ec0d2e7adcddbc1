"""Pictures of hidden states: a belief as a bar, from turn to turn, and how many states predict best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from turnwise.evaluation.measures.playbook.schema import Choice
from turnwise.evaluation.pictures import style

COLOURS = 8
"""colours of states, `b0` to `b7` in the page's style; beyond them they begin anew, and letters tell"""


def percent(share: float) -> str:
    """A share in percent; what is not nothing never reads as nothing, nor what is not all as all."""
    if 0 < share < 0.005:
        return "<1%"
    if 0.995 < share < 0.99999:
        return ">99%"
    return f"{style.number(100 * share, 0)}%"


def bar(belief: Sequence[float], x: float, y: float, width: float, height: float) -> str:
    """A belief as one bar whose parts are the states, as SVG."""
    found, at = [], x
    for i, share in enumerate(belief):
        if share >= 0.004:
            found.append(f'<rect class="b{i % COLOURS}" x="{at:.1f}" y="{y:.1f}" width="{share * width:.1f}" '
                         f'height="{height:.1f}"/>')  # fmt: skip
        at += share * width
    return "".join(found)


def belief_columns(beliefs: Sequence[Sequence[float]], *, large: bool = False) -> Markup:
    """The belief from turn to turn: a column per turn whose parts are the states, first before any act."""
    width, height, foot = (420, 124, 16) if large else (112, 30, 0)
    step = min(width / max(1, len(beliefs)), 46.0 if large else 14.0)
    found = []
    for k, belief in enumerate(beliefs):
        y = 0.0
        for i, share in enumerate(belief):
            tall = share * (height - foot)
            if share >= 0.004:
                found.append(f'<rect class="b{i % COLOURS}" x="{k * step:.1f}" y="{y:.1f}" '
                             f'width="{step * 0.82:.1f}" height="{tall:.1f}"/>')  # fmt: skip
            y += tall
        if large:
            found.append(f'<text x="{(k + 0.41) * step:.1f}" y="{height - 3}" text-anchor="middle">'
                         f"{k or 'start'}</text>")  # fmt: skip
    label = f"Belief over {len(beliefs) - 1} turns; the figures are beside the sentences"
    return Markup(
        f'<svg class="spark columns" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        f"{''.join(found)}</svg>"
    )


def choices_plot(
    choices: Sequence[Choice], chosen: tuple[int | None, int | None], *, key: str = "choices"
) -> Markup:
    """Held-out nats per symbol against the number of states, with intervals; what was `chosen` is marked.

    `chosen` is (states, phases). States that may move, those that stay, and kinds of conversations with
    phases are a line each.
    """
    lines = {name: sorted(filter(belongs, choices), key=_number) for name, belongs in KINDS.items()}
    lines = {name: rows for name, rows in lines.items() if rows}
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(460, 250)
        axes = style.axes_inside(figure, (58, 16, 14, 44))
        axes.set(xlabel="number of hidden states", ylabel="nats per symbol, held out")
        if len(lines) > 1:  # one kind goes much further than the other
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for (name, rows), dashes in zip(lines.items(), ("-", "--", ":"), strict=False):
            xs, ys = [c["states"] for c in rows], [c["mean"] for c in rows]
            axes.plot(xs, ys, dashes, color=style.MUTED, linewidth=1.2, label=name)
            for c in rows:
                colour = style.ACCENT if (c["states"], _phases(c)) == chosen else style.INK
                if c["low"] is not None and c["high"] is not None:
                    axes.plot([c["states"]] * 2, [c["low"], c["high"]], color=colour, linewidth=2)
                axes.plot([c["states"]], [c["mean"]], "o", color=colour, markersize=6.5)
        if len(lines) > 1:
            axes.legend(title="Hidden states that")
        said = "; ".join(
            f"{c['states']} states that {name} {style.number(c['mean'], 3)}"
            for name, rows in lines.items()
            for c in rows
        )
        return style.svg(figure, key, f"Held-out nats per symbol by number of states: {said}")


def _number(choice: Choice) -> tuple[int, int]:
    return choice["states"], _phases(choice)


def _phases(choice: Choice) -> int:
    return choice.get("phases", choice["states"])


KINDS: dict[str, Callable[[Choice], bool]] = {
    "may change": lambda c: _phases(c) == c["states"],
    "stay": lambda c: _phases(c) == 1 < c["states"],
    "are phases of kinds": lambda c: 1 < _phases(c) < c["states"],
}
"""how states of a model may change within a conversation, in words; of each, whether a model is one"""
