"""A playbook as one picture that stands alone (`playbook.svg`): for a README, a slide, a wall."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from markupsafe import Markup, escape

from turnwise.evaluation.measures.playbook.schema import Playbook, Talk
from turnwise.evaluation.pages.playbook.phrases import Phrases
from turnwise.evaluation.pages.playbook.plan import graph_boxes
from turnwise.evaluation.pages.playbook.worth import worth_view
from turnwise.evaluation.pages.run_files import RunFiles
from turnwise.evaluation.pictures.plan import plan_graph, size_of
from turnwise.evaluation.pictures.states import COLOURS, bar, percent
from turnwise.evaluation.pictures.style import DARK, LIGHT, number

TURNS = 3
"""turns of the graph"""
SPOKEN = 8
"""turns of the conversation below it"""
_WIDTH, _EDGE, _LINE = 1060, 28, 20  # px
_COLOURS = ("accent", "warm", "p6", "n6", "muted", "p3", "n3", "ink")  # as in the page's style.html
_PLAIN = {
    "light": {"paper": "#faf9f6", "card": "#ffffff", "ink": "#1c1b19", "muted": "#65615a", "line": "#e3dfd6",
              "accent": "#175a9c", "warm": "#a34f0f"},
    "dark": {"paper": "#171614", "card": "#201f1c", "ink": "#eceae6", "muted": "#a8a39a", "line": "#38352f",
             "accent": "#7db8f2", "warm": "#eda96a"},
}  # fmt: skip


def playbook_picture(book: Playbook, run: RunFiles) -> str:
    """The SVG: what the plan is worth, the hidden states, the first turns of the plan, a conversation."""
    say = Phrases(book)
    parts, y = _worth(book, run)
    for make in (_states, _plan, _conversation):
        part, y = make(book, say, y)
        parts += part
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + _EDGE:.0f}" width="{_WIDTH}" '
        f'height="{y + _EDGE:.0f}" role="img"><title>{escape(book["title"] or run.name)}</title>'
        f'<style>{_style()}</style><rect class="paper" width="100%" height="100%"/>{"".join(parts)}</svg>\n'
    )


def _worth(book: Playbook, run: RunFiles) -> tuple[list[str], float]:
    sentence = worth_view(book, run)["sentence"] or "What this plan is worth is not known yet."
    lines = textwrap.wrap(Markup(sentence).striptags(), 104)
    parts = [_text(_EDGE, 42, book["title"] or run.name, "title")]
    parts += [_text(_EDGE, 72 + 22 * i, line, "lead") for i, line in enumerate(lines)]
    return parts, 72 + 22 * len(lines) + 8


def _states(book: Playbook, say: Phrases, y: float) -> tuple[list[str], float]:
    """A line for each of the first states: how common it is, and what sets it apart most."""
    parts = [_heading("What may be going on", y)]
    y += 34
    for i, state in enumerate(book["states"][:COLOURS]):
        what = f"at the start {percent(state['start'])}"
        if state["traits"]:
            told, how = say.trait(state["traits"][0])
            what += f": {told} ({how})"
        parts.append(f'<rect class="b{i}" x="{_EDGE}" y="{y - 11}" width="12" height="12" rx="3"/>')
        parts.append(_text(_EDGE + 20, y, state["name"], "name"))
        parts.append(_text(_EDGE + 44, y, _cut(what, 140), "plain"))
        y += _LINE
    return parts, y + 6


def _plan(book: Playbook, say: Phrases, y: float) -> tuple[list[str], float]:
    """The first turns of the graph, made smaller if it is too wide."""
    boxes = [box for box in graph_boxes(book, say) if box.turn < TURNS]
    if not boxes:
        return [], y
    svg = plan_graph(boxes, [s["name"] for s in book["states"]], key="picture")
    width, height = size_of(svg)
    scale = min(1.0, (_WIDTH - 2 * _EDGE) / width)
    place = f'x="{_EDGE}" y="{y + 18:.0f}" width="{scale * width:.0f}" height="{scale * height:.0f}"'
    inner = re.sub(r' style="width: [^"]*"', "", str(svg), count=1).replace("<svg ", f"<svg {place} ", 1)
    graph = book["graph"]
    more = graph is not None and any(node["turn"] >= TURNS for node in graph["nodes"])
    said = f"The plan, its first {TURNS} turns" if more else "The plan"
    return [_heading(said, y), inner], y + 18 + scale * height


def _conversation(book: Playbook, say: Phrases, y: float) -> tuple[list[str], float]:
    """One conversation with the belief beside it: the first live one, else the first."""
    talk = next((t for t in book["talks"] if t["source"] == "live"), next(iter(book["talks"]), None))
    if talk is None:
        return [], y
    worth = "" if talk["worth"] is None else f", return {number(talk['worth'], 2, signed=True)}"
    who = "spoken by the plan" if talk["source"] == "live" else "from the logs"
    parts = [_heading(f"A conversation {who}{worth}", y + 8)]
    y += 44
    for who, said, belief in _lines(talk):
        parts.append(_text(_EDGE, y, who, "role"))
        parts.append(_text(_EDGE + 74, y, _cut(said, 92), "plain" if who == "agent" else "quiet"))
        if belief is not None:
            parts.append(bar(belief, _WIDTH - _EDGE - 240, y - 10, 240, 11))
        y += _LINE + 4
    return parts, y


def _lines(talk: Talk) -> list[tuple[str, str, Sequence[float] | None]]:
    opening = talk["opening"] or "(nothing)"
    found: list[tuple[str, str, Sequence[float] | None]] = [("before", opening, talk["first_belief"])]
    for turn in talk["turns"][:SPOKEN]:
        found.append(("agent", turn["said"], None))
        if turn["heard"] is not None:
            found.append(("answer", turn["heard"], turn["belief"]))
    return found


def _heading(text: str, y: float) -> str:
    rule = f'<path class="rule" d="M{_EDGE},{y - 8:.0f} H{_WIDTH - _EDGE}"/>'
    return rule + _text(_EDGE, y + 12, text.upper(), "heading")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'


def _cut(text: str, letters: int) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= letters else plain[: letters - 1].rstrip() + "…"


def _style() -> str:
    """Colours of both themes and all that the graph's classes need."""

    def colours(theme: str) -> str:
        levels = LIGHT if theme == "light" else DARK
        found = {**_PLAIN[theme], **{f"{s}{i}": c for s in "np" for i, c in enumerate(levels[s], 1)}}
        return "".join(f"--{name}:{value};" for name, value in found.items())

    states = "".join(f".b{i}{{fill:var(--{name})}}" for i, name in enumerate(_COLOURS))
    return (
        f":root{{{colours('light')}}}@media (prefers-color-scheme:dark){{:root{{{colours('dark')}}}}}"
        "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;"
        "font-size:13px;fill:var(--ink)}.paper{fill:var(--paper)}"
        ".title{font:600 26px Georgia,serif}.lead{font-size:16px}.name{font-weight:650}"
        ".heading{font-size:11px;font-weight:600;letter-spacing:.08em;fill:var(--muted)}"
        ".role{fill:var(--muted);font-size:12px}.quiet{fill:var(--muted)}"
        ".rule{stroke:var(--line);stroke-width:1}"
        ".plan text{font-size:12.5px}.plan path{fill:none;stroke:var(--muted);stroke-width:1.3}"
        ".plan marker path{stroke:none;fill:var(--muted)}"
        ".plan .box{fill:var(--card);stroke:var(--muted);stroke-width:1.2}"
        ".plan .first .box{stroke:var(--accent);stroke-width:2.2}"
        ".plan .id{fill:var(--muted);font-size:10px;text-anchor:end}"
        ".plan .under,.plan .seen{fill:var(--muted);font-size:11px}"
        ".plan .share{font-size:11px;font-weight:650}"
        ".plan .turn{fill:var(--muted);font-size:11px;text-anchor:middle}" + states
    )
