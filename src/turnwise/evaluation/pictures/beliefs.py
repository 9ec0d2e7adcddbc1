"""Pictures of a policy over all beliefs: of two states as a line, of three as a triangle."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from matplotlib.tri import Triangulation

from turnwise.evaluation.pictures import style

REGIONS = [
    style.BLUES[1],
    style.ORANGES[1],
    style.BLUES[3],
    style.ORANGES[3],
    style.BLUES[0],
    style.ORANGES[0],
]
"""colours of the beliefs at which one action is taken, in turn"""


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
    floors = style.label_floors([(a + b) / 2 * room for a, b, _ in regions], labels, room)
    top = 12 + 17 * (1 + max(floors))
    height = 230 + top + bottom
    span = float(np.ptp(values)) or max(1.0, abs(float(values[0])))
    colours = _colours(actions)
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(width, height)
        axes = style.axes_inside(figure, (left, right, top, bottom))
        axes.set(xlim=(0, 1), ylim=(values.min() - 0.3 * span, values.max() + 0.1 * span))
        axes.set_xlabel(f"probability of {_short(states[1], 40)}")
        for (a, b, name), label, floor in zip(regions, labels, floors, strict=True):
            axes.axvspan(a, b, color=colours[name], alpha=0.7, linewidth=0)
            middle, y = (a + b) / 2, 1 + (6 + 17 * floor) / 230
            axes.plot([middle] * 2, [1, y - 2 / 230], transform=axes.get_xaxis_transform(), clip_on=False,
                      color=style.MUTED, linewidth=1)  # fmt: skip
            side = {0.0: "left", 0.5: "center", 1.0: "right"}[style.hang(middle)]
            axes.text(middle, y, label, transform=axes.get_xaxis_transform(), ha=side, color=style.INK)
        for vector in vectors if vectors is not None else []:
            axes.plot([0, 1], vector, color=style.MUTED, linewidth=0.8)
        axes.plot(p, values, color=style.INK, linewidth=2.6)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: style.tick(x)))
        description = f"Value over the probability of {states[1]}: " + "; ".join(
            f"{name} from {style.number(a, 2)} to {style.number(b, 2)}" for a, b, name in regions
        )
        return style.svg(figure, "beliefs", description)


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
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(width, height)
        axes = figure.add_axes((30 / width, 50 / height, 1 - 60 / width, 1 - 76 / height))
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.06, 0.91), aspect="equal")
        axes.set_axis_off()
        levels = np.linspace(low, high if high > low else low + 1, len(style.BLUES) + 1)
        levels[-1] += 1e-9 * max(1.0, abs(high))
        axes.tricontourf(mesh, values, levels=levels, colors=style.BLUES, antialiased=False)
        _partings(axes, mesh, actions)
        axes.plot(*np.vstack([corners, corners[:1]]).T, color=style.INK, linewidth=1.2)
        for name, at in _middles(beliefs, np.stack([x, y], 1), actions):
            axes.text(
                at[0], at[1], _short(name, 22), ha="center", va="center", color=style.INK, fontweight="bold"
            )
        for name, (cx, cy), side, lift in zip(
            states, corners, ("left", "right", "center"), (-15, -15, 8), strict=True
        ):
            axes.annotate(_short(name, 30), (cx, cy), xytext=(0, lift), textcoords="offset points", ha=side,
                          color=style.MUTED)  # fmt: skip
        _scale(figure, levels)
        ends = f"from {style.number(low)} to {style.number(high)}"
        done = ", ".join(dict.fromkeys(actions))
        description = f"Value over the beliefs of {', '.join(states)}, {ends}; actions: {done}"
        return style.svg(figure, "beliefs", description)


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
            axes.tricontour(mesh, lead, levels=[0.0], colors=[style.INK], linewidths=1.6)


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
    for i, colour in enumerate(style.BLUES):
        axes.axvspan(i, i + 1, color=colour, linewidth=0)
    axes.set(xlim=(0, len(style.BLUES)), ylim=(0, 1), yticks=[])
    axes.spines["left"].set_visible(False)
    span = float(levels[-1] - levels[0])
    places: Callable[[float], str] = lambda v: style.number(v, max(0, 1 - math.floor(math.log10(span))))  # noqa: E731
    axes.xaxis.set_major_locator(FixedLocator(list(range(0, len(style.BLUES) + 1, 2))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda i, _: places(float(levels[round(i)]))))
