"""A plan over acts, drawn: turns from left to right, what is said in boxes, what is answered on the way.

An answer stands right before the box that it leads to, on an arrow of its own, so that no two labels can lie
on each other however many arrows there are.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup, escape

from turnwise.evaluation.pictures.states import bar, percent

BOX, LABEL, CURVE, REST = 172, 146, 28, 12  # px: a box, a label, an arrow before it, its head behind it
_LINE, _SMALL = 15, 13  # px from line to line: in boxes, in labels
_LETTERS, _LABEL_LETTERS = 21, 22  # letters of a line at most, in any of the page's fonts
_LINES = 3  # of a sentence; what is longer ends in an ellipsis
_GAP = 18  # px between two boxes of a turn
_BAR = 7  # px, the belief at the foot of a box
_UNDER = 34  # px, the two lines under a box


@dataclass(frozen=True)
class Way:
    """What leads to a box: from box `source` (None: the conversation begins), by answers of the partner."""

    source: int | None
    answers: tuple[str, ...]
    """sentences, the most likely first"""
    probability: float


@dataclass(frozen=True)
class Box:
    """A place in the plan."""

    turn: int
    says: str
    probability: float
    belief: Sequence[float]
    ways: Sequence[Way]
    ends: float
    hidden: float
    """probability of going on in ways that are not drawn"""


@dataclass
class _Placed:
    box: Box
    number: int
    y: float = 0.0
    """middle of the box, px"""
    lines: list[str] = field(default_factory=list)
    labels: list[tuple[Way, list[str]]] = field(default_factory=list)

    @property
    def height(self) -> float:
        """Of the box alone."""
        return 20 + _LINE * len(self.lines) + _BAR + 8

    @property
    def room(self) -> float:
        """What its slot takes: the box and the two lines under it, or its labels if they are higher."""
        return max(self.height + 2 * _UNDER, sum(_tall(lines) for _, lines in self.labels))


def _tall(lines: Sequence[str]) -> float:
    return _SMALL * len(lines) + 14


def plan_graph(boxes: Sequence[Box], states: Sequence[str], *, key: str = "plan") -> Markup:
    """The boxes with their ways as SVG, to be inlined; texts are escaped, colours are the page's.

    `states` name the states; state i has the class `b{i}`, which the page colours.
    """
    placed = [_Placed(box, i) for i, box in enumerate(boxes, 1)]
    for p in placed:
        p.lines = _wrapped(f"“{p.box.says}”", _LETTERS, _LINES)
        p.labels = [(way, _label(way)) for way in p.box.ways if way.answers]
    _place(placed)
    column = {t: i for i, t in enumerate(sorted({b.turn for b in boxes}))}
    labelled = any(p.labels for p in placed if column[p.box.turn] == 0)
    first = LABEL + REST if labelled else 0.0
    pitch = BOX + CURVE + LABEL + REST
    x = [first + column[p.box.turn] * pitch for p in placed]
    parts = [_box(p, left, states) for p, left in zip(placed, x, strict=True)]
    ways = [_ways(p, left, placed, x) for p, left in zip(placed, x, strict=True)]
    top = min(p.y - p.room / 2 for p in placed) - 26
    bottom = max(p.y + p.room / 2 for p in placed) + 6
    width = first + max(column.values()) * pitch + BOX + 8
    heads = "".join(
        f'<text class="turn" x="{first + i * pitch + BOX / 2:.0f}" y="{top + 12:.0f}">turn {turn + 1}</text>'
        for turn, i in column.items()
    )
    marker = (
        f'<marker id="{key}-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'markerUnits="userSpaceOnUse" orient="auto"><path d="M0,0.6 L8,4 L0,7.4 z"/></marker>'
    )
    body = "".join(parts) + "".join(ways).replace("url(#head)", f"url(#{key}-head)")
    said = f"The plan as a graph of {len(boxes)} places; the list below says the same"
    return Markup(
        f'<svg class="plan" viewBox="-4 {top:.0f} {width + 8:.0f} {bottom - top:.0f}" role="img" '
        f'aria-label="{said}" style="width: {width + 8:.0f}px"><defs>{marker}</defs>{heads}{body}</svg>'
    )


def size_of(svg: str) -> tuple[float, float]:
    """(width, height) in px of what `plan_graph` drew."""
    found = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"', svg)
    assert found is not None  # plan_graph always writes one
    return float(found[1]), float(found[2])


def _wrapped(text: str, letters: int, most: int) -> list[str]:
    """The text in at most `most` lines; what is left out ends in an ellipsis."""
    lines = textwrap.wrap(" ".join(text.split()), letters, break_long_words=True) or [""]
    if len(lines) > most:
        lines = lines[:most]
        lines[-1] = lines[-1][: letters - 1].rstrip() + "…"
    return lines


def _label(way: Way) -> list[str]:
    """Two sentences of the answers at most, how many more there are, and how likely they are together."""
    found = []
    for sentence in way.answers[:2]:
        found += _wrapped(f"“{sentence}”", _LABEL_LETTERS, 2 if len(way.answers) == 1 else 1)
    rest = len(way.answers) - 2
    more = f", and {rest} other{'s' if rest > 1 else ''}" if rest > 0 else ""
    return [*found, f"{percent(way.probability)}{more}"]


def _place(placed: Sequence[_Placed]) -> None:
    """Boxes of a turn below each other, each near what leads to it, none on another."""
    for turn in sorted({p.box.turn for p in placed}):
        row = [p for p in placed if p.box.turn == turn]
        wanted = {}
        for p in row:
            from_ = [(w.probability * placed[w.source].box.probability, placed[w.source].y)
                     for w in p.box.ways if w.source is not None]  # fmt: skip
            total = sum(weight for weight, _ in from_)
            wanted[p.number] = sum(w * y for w, y in from_) / total if total else 0.0
        row.sort(key=lambda p: (wanted[p.number], -p.box.probability))
        for p in row:
            p.y = wanted[p.number]
        for _ in range(40):  # push overlapping neighbours apart, as little as order allows
            for above, below in pairwise(row):
                short = (above.room + below.room) / 2 + _GAP - (below.y - above.y)
                if short > 0:
                    above.y -= short / 2
                    below.y += short / 2
        for above, below in pairwise(row):  # whatever rounding is left
            below.y = max(below.y, above.y + (above.room + below.room) / 2 + _GAP)


def _box(p: _Placed, left: float, states: Sequence[str]) -> str:
    box, top = p.box, p.y - p.height / 2
    texts = "".join(
        f'<text x="{left + 12:.1f}" y="{top + 20 + i * _LINE:.1f}">{escape(line)}</text>'
        for i, line in enumerate(p.lines)
    )
    shares = ", ".join(f"{name} {percent(b)}" for name, b in zip(states, box.belief, strict=True))
    full = escape(f"{p.number}: {box.says} (belief: {shares})")
    under = [f"{percent(box.probability)} of conversations"]
    tail = [f"ends {percent(box.ends)}"] if box.ends >= 0.005 else []
    tail += [f"not drawn {percent(box.hidden)}"] if box.hidden >= 0.005 else []
    under += [", ".join(tail)] if tail else []
    small = "".join(
        f'<text class="under" x="{left + 4:.1f}" y="{p.y + p.height / 2 + 14 + i * _SMALL:.1f}">{line}</text>'
        for i, line in enumerate(under)
    )
    start = ' class="first"' if box.turn == 0 else ""
    foot = p.y + p.height / 2
    return (
        f'<g{start}><title>{full}</title><rect class="box" x="{left:.1f}" y="{top:.1f}" width="{BOX}" '
        f'height="{p.height:.1f}" rx="9"/><text class="id" x="{left + BOX - 4:.1f}" y="{foot + 14:.1f}">'
        f"{p.number}</text>{texts}{bar(box.belief, left + 12, foot - _BAR - 8, BOX - 24, _BAR)}{small}</g>"
    )


def _ways(p: _Placed, left: float, placed: Sequence[_Placed], x: Sequence[float]) -> str:
    """Arrows to a box: a curve from where each comes, then a line, its answers above and its share below."""
    found, y = [], p.y - sum(_tall(lines) for _, lines in p.labels) / 2
    for way, lines in p.labels:
        level = y + _SMALL * (len(lines) - 1) + 6
        start, end = left - REST - LABEL, left - REST
        d = f"M{start:.1f},{level:.1f}"
        if way.source is not None:
            source = placed[way.source]
            right = x[way.source] + BOX
            bend = (start - right) / 2
            d = (f"M{right:.1f},{source.y:.1f} C{right + bend:.1f},{source.y:.1f} {start - bend:.1f},"
                 f"{level:.1f} {start:.1f},{level:.1f}")  # fmt: skip
        d += f" L{end:.1f},{level:.1f} L{left - 1:.1f},{_inside(p, level):.1f}"
        found.append(f'<path d="{d}" marker-end="url(#head)"/>')
        for i, line in enumerate(lines):
            last = i == len(lines) - 1
            place = level + 13 if last else level - 5 - _SMALL * (len(lines) - 2 - i)
            found.append(f'<text class="{"share" if last else "seen"}" x="{start + 2:.1f}" y="{place:.1f}">'
                         f"{escape(line)}</text>")  # fmt: skip
        y += _tall(lines)
    return "".join(found)


def _inside(p: _Placed, y: float) -> float:
    """The height at which an arrow from `y` meets the side of the box."""
    reach = p.height / 2 - 10
    return p.y + max(-reach, min(reach, y - p.y))
