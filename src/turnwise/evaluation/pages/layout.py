"""A page before it is laid out, and how it becomes one HTML file that opens on its own.

Nothing on a page is loaded from anywhere, and text from conversations is data, never markup.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from turnwise.evaluation.pages.provenance import provenance
from turnwise.evaluation.pages.run_files import RunFiles
from turnwise.evaluation.pictures.style import DARK, LEVELS, LIGHT, number

_COLOURS = {"light": LIGHT, "dark": DARK, "levels": range(1, LEVELS + 1)}


@dataclass(frozen=True)
class Page:
    """The templates of a page in their order, and the values that they show.

    Every page also shows how its `runs` were made (`provenance`).
    """

    parts: Sequence[str]
    words: str
    """the template that says what the page's words mean"""
    values: Mapping[str, Any]
    runs: Sequence[RunFiles]
    command: str | None = None
    """the command that makes all of it again; None: that of the one run"""


def render(page: Page) -> str:
    """The HTML. Its content security policy forbids every load, and every script but the page's own."""
    environment = _templates()
    script = environment.get_template("script.html").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    made = provenance(page.runs, page.command)
    values = {
        "runs": [],
        "colours": _COLOURS,
        "parts": page.parts,
        "words": page.words,
        "unfinished": [r.name for r in page.runs if r.config and r.algorithm.family and not r.ended],
        **made,
        **page.values,
    }
    return environment.get_template("page.html").render(**values, script=Markup(script), digest=digest)


@functools.cache
def _templates() -> jinja2.Environment:
    """What pages are made of, read once."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["number"] = number
    return environment
