"""A policy graph, drawn: plans in rows by how many steps they are from the start, arrows by observation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

_LETTER = 7.0  # px a letter of 12 px text takes at most, in any of the page's fonts
_HEIGHT, _PITCH, _SPACE = 30, 104, 64  # px: a node, row to row, node to node

Box = tuple[float, float, float, float]
"""left, top, right, bottom"""


@dataclass(frozen=True)
class Node:
    """A plan where it is drawn; `number` counts from 1, row by row."""

    number: int
    name: str
    start: bool
    depth: int
    x: float
    y: float
    width: float

    @property
    def box(self) -> Box:
        """Its outline."""
        return (
            self.x - self.width / 2,
            self.y - _HEIGHT / 2,
            self.x + self.width / 2,
            self.y + _HEIGHT / 2,
        )


@dataclass(frozen=True)
class Arrow:
    """From a plan to the plan that goes on after any of the observations named."""

    source: int
    target: int
    names: tuple[str, ...]
    any: bool
    """whether every observation that can follow leads the same way"""


@dataclass(frozen=True)
class Graph:
    """The part of a policy graph that can be reached from its starts."""

    nodes: Mapping[int, Node]
    arrows: Sequence[Arrow]
    unreached: int

    @property
    def rows(self) -> list[tuple[Node, list[tuple[str, Node]]]]:
        """Each plan with where its observations lead, in the order of the numbers."""
        found = []
        for i, node in self.nodes.items():
            leads = [(listed(a, 6), self.nodes[a.target]) for a in self.arrows if a.source == i]
            found.append((node, leads))
        return found


def listed(arrow: Arrow, most: int) -> str:
    """The observations of an arrow, `most` of them at most."""
    if arrow.any:
        return "any"
    names = [name if len(name) <= 16 else name[:15] + "…" for name in arrow.names[:most]]
    return ", ".join(names) + (f" +{len(arrow.names) - most}" if len(arrow.names) > most else "")


def laid_out(graph: Mapping[str, Any], observations: list[str]) -> Graph:
    """Rows by the number of steps from a start; within a row, plans under those that lead to them."""
    follow: dict[int, list[int]] = {}
    for edge in graph["edges"]:
        follow.setdefault(edge["from"], []).append(edge["to"])
    rows, seen = [list(graph["starts"])], set(graph["starts"])
    while rows[-1]:
        new = dict.fromkeys(j for i in rows[-1] for j in follow.get(i, []) if j not in seen)
        seen |= new.keys()
        rows.append(list(new))
    rows.pop()
    names = {i: _short(graph["nodes"][i]["name"]) for i in seen}
    x = _places(rows, follow, names)
    numbers = {i: n for n, i in enumerate((i for row in rows for i in row), 1)}
    nodes = {
        i: Node(numbers[i], names[i], i in graph["starts"], depth, x[i], depth * _PITCH, _width(names[i]))
        for depth, row in enumerate(rows)
        for i in row
    }
    arrows = [
        Arrow(
            edge["from"],
            edge["to"],
            tuple(observations[o] for o in edge["observations"]),
            len(follow[edge["from"]]) == 1,
        )
        for edge in graph["edges"]
        if edge["from"] in seen
    ]
    return Graph(nodes, arrows, len(graph["nodes"]) - len(seen))


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"


def _width(name: str) -> float:
    return 52 + _LETTER * len(name)


def _places(
    rows: list[list[int]], follow: Mapping[int, Sequence[int]], names: Mapping[int, str]
) -> dict[int, float]:
    """Middles of the plans across; sorts each row in place by the mean place of what leads there."""
    x: dict[int, float] = {}
    for row in rows:
        parents = {j: [x[i] for i in x if j in follow.get(i, []) and i not in row] for j in row}
        row.sort(key=lambda j: sum(parents[j]) / len(parents[j]) if parents[j] else 0.0)
        widths = [_width(names[j]) for j in row]
        at = -(sum(widths) + _SPACE * (len(row) - 1)) / 2
        for j, width in zip(row, widths, strict=True):
            x[j] = at + width / 2
            at += width + _SPACE
    return x


def drawn(graph: Graph) -> Markup:
    """The graph as SVG, to be inlined; names are escaped, colours are the page's."""
    nodes = graph.nodes
    taken = [node.box for node in nodes.values()]
    centre = (min(b[0] for b in taken) + max(b[2] for b in taken)) / 2
    pairs = {(a.source, a.target) for a in graph.arrows}
    paths, texts, extent = [], [], list(taken)
    for arrow in graph.arrows:
        a, b = nodes[arrow.source], nodes[arrow.target]
        both_ways = (arrow.target, arrow.source) in pairs
        others = [node.box for node in nodes.values() if node is not a and node is not b]
        curve = _loop(a) if a is b else _curve(a, b, centre, both_ways, others)
        back = b.depth < a.depth
        text = listed(arrow, 2)
        width = _LETTER * 0.92 * len(text)
        spot = _over(a, width) if a is b else _spot(curve, width, taken)
        taken.append(spot)
        extent += [spot, _around(curve)]
        colour = "muted" if back else "ink"
        first, *rest = (f"{x:.1f},{y:.1f}" for x, y in curve)
        d = f"M{first} C{' '.join(rest)}"
        full = escape(f"{a.name} → {b.name}: {', '.join(arrow.names)}")
        paths.append(f'<path class="{colour}" d="{d}" marker-end="url(#graph-{colour})"><title>{full}</title>'
                     "</path>")  # fmt: skip
        texts.append(f'<text class="seen" x="{(spot[0] + spot[2]) / 2:.1f}" y="{spot[3] - 4:.1f}">'
                     f"{escape(text)}</text>")  # fmt: skip
    pills = "".join(_pill(node) for node in nodes.values())
    left, top = min(b[0] for b in extent) - 6, min(b[1] for b in extent) - 26
    width, height = max(b[2] for b in extent) + 6 - left, max(b[3] for b in extent) + 8 - top
    heads = "".join(
        f'<marker id="graph-{c}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path class="{c}" d="M0,0.6 L8,4 L0,7.4 z"/></marker>'
        for c in ("ink", "muted")
    )
    said = f"Policy graph of {len(nodes)} plans and {len(graph.arrows)} arrows; the table below says the same"
    return Markup(
        f'<svg class="graph" viewBox="{left:.1f} {top:.1f} {width:.1f} {height:.1f}" role="img" '
        f'aria-label="{said}" style="width: {width:.0f}px">'
        f"<defs>{heads}</defs>{''.join(paths)}{pills}{''.join(texts)}</svg>"
    )


def _pill(node: Node) -> str:
    x, y, *_ = node.box
    start = f'<text class="start" x="{node.x:.1f}" y="{y - 8:.1f}">start</text>' if node.start else ""
    return (
        f'<g class="plan{" first" if node.start else ""}"><rect x="{x:.1f}" y="{y:.1f}" '
        f'width="{node.width:.1f}" height="{_HEIGHT}" rx="15"/>'
        f'<text class="id" x="{x + 12:.1f}" y="{node.y + 4:.1f}">{node.number}</text>'
        f'<text x="{node.x + 9:.1f}" y="{node.y + 4.5:.1f}">{escape(node.name)}</text></g>{start}'
    )


Points = list[tuple[float, float]]
"""start, two controls and end of a cubic curve"""


def _loop(node: Node) -> Points:
    right = node.box[2]
    return [
        (right - 6, node.y - 8),
        (right + 34, node.y - 26),
        (right + 34, node.y + 26),
        (right - 6, node.y + 8),
    ]


def _over(node: Node, width: float) -> Box:
    """The place for the label of a loop."""
    left = node.box[2] - 2
    return left, node.y - 32, left + width, node.y - 16


def _curve(a: Node, b: Node, centre: float, both_ways: bool, others: Sequence[Box]) -> Points:
    """Straight to the next row or to a neighbour; elsewhere the first arc that meets no other node."""
    if b.depth > a.depth:
        return _arc(a, b, 0.0)
    length = math.hypot(b.x - a.x, b.y - a.y)
    if b.depth == a.depth:
        beside = abs(a.number - b.number) == 1
        return _arc(a, b, (0.12 if both_ways else 0.0) * length if beside else 0.24 * length + 16)
    # Seen upwards, the left of an arrow is the left of the page: bend to the side that is nearer the outside.
    side = 1 if (a.x + b.x) / 2 < centre else -1
    arcs = [
        _arc(a, b, s * (k * min(length, 320.0) + 16)) for k in (0.24, 0.4, 0.6, 0.8) for s in (side, -side)
    ]
    return min(arcs, key=lambda arc: sum(_meets(arc, box) for box in others))


def _meets(curve: Points, box: Box) -> int:
    points = [_at(curve, t / 24) for t in range(25)]
    return sum(box[0] - 6 < x < box[2] + 6 and box[1] - 6 < y < box[3] + 6 for x, y in points)


def _arc(a: Node, b: Node, bend: float) -> Points:
    """From outline to outline, `bend` px to the left of the straight line (seen in its direction)."""
    dx, dy = b.x - a.x, b.y - a.y
    length = math.hypot(dx, dy)
    control = ((a.x + b.x) / 2 + 2 * bend * dy / length, (a.y + b.y) / 2 - 2 * bend * dx / length)
    start, end = _leave(a, control, 0), _leave(b, control, 3)
    one = [s + (c - s) * 2 / 3 for s, c in zip(start, control, strict=True)]
    two = [e + (c - e) * 2 / 3 for e, c in zip(end, control, strict=True)]
    return [start, (one[0], one[1]), (two[0], two[1]), end]


def _leave(node: Node, to: tuple[float, float], room: float) -> tuple[float, float]:
    """Where the line from the middle of a node to `to` crosses its outline, `room` px farther out."""
    dx, dy = to[0] - node.x, to[1] - node.y
    w, h = node.width / 2 + room, _HEIGHT / 2 + room
    scale = min(w / abs(dx) if dx else math.inf, h / abs(dy) if dy else math.inf)
    return (node.x + dx * scale, node.y + dy * scale) if scale < math.inf else (node.x, node.y + h)


def _at(curve: Points, t: float) -> tuple[float, float]:
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
    return (
        sum(w * x for w, (x, _) in zip(weights, curve, strict=True)),
        sum(w * y for w, (_, y) in zip(weights, curve, strict=True)),
    )


def _around(curve: Points) -> Box:
    points = [_at(curve, t / 10) for t in range(11)]
    return (
        min(x for x, _ in points),
        min(y for _, y in points),
        max(x for x, _ in points),
        max(y for _, y in points),
    )


def _spot(curve: Points, width: float, taken: Sequence[Box]) -> Box:
    """A place on the curve for a label, on nothing else if there is one."""
    boxes = []
    for t in (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74, 0.2, 0.8):
        x, y = _at(curve, t)
        boxes.append((x - width / 2, y - 8, x + width / 2, y + 8))
    return min(boxes, key=lambda box: sum(_overlap(box, other) for other in taken))


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
