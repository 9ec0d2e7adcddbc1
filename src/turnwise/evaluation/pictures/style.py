"""What all pictures share: the page's colours, numbers as people write them, labels that stay apart, SVG.

Matplotlib draws with stand-in colours that are replaced by the page's CSS variables, so that one picture
serves light, dark and print; its text stays text and takes the page's font.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

INK, MUTED, LINE, ACCENT, WARM = "#010101", "#020202", "#030303", "#040404", "#050505"
BLUES, ORANGES = ([f"#{tens}0{i}" for i in range(1, 7)] for tens in ("0606", "0707"))  # the levels below
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", WARM: "--warm"}
_VARIABLES |= {c: f"--{s}{i}" for s, side in (("p", BLUES), ("n", ORANGES)) for i, c in enumerate(side, 1)}
RC: dict[Any, Any] = {
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


def tick(value: float) -> str:
    """A number at a tick of an axis, with a true minus sign."""
    plain = f"{value:.10g}" if abs(value) >= 1e-3 or abs(value) < 1e-12 else f"{value:.4e}"
    digits, _, power = plain.partition("e")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return (f"{digits}e{int(power)}" if power else digits if abs(value) >= 1e-12 else "0").replace("-", "−")


def thousands(value: float) -> str:
    """A number of steps at a tick: 1500 is 1.5k, 2,000,000 is 2M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e3 else f"{value:g}"


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


Margins = tuple[float, float, float, float]
"""left, right, top and bottom, in px"""


def axes_inside(figure: Figure, margins: Margins) -> Axes:
    """Axes inside `margins`, with lines across at the ticks of y."""
    left, right, top, bottom = margins
    # Figures are sized in inches of 72 points; a point is drawn as one px of the SVG.
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    )
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(y)))
    return axes


def figure_of(width: float, height: float) -> Figure:
    """A figure of that many px."""
    return Figure(figsize=(width / 72, height / 72))


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
