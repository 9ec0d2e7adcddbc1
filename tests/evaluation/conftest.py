"""HTML as elements and text, for the tests of pages and pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """A page as elements, with text by element; refuses tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
        elif not self._open or self._open[-1] != "style":
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())

    def row(self, name: str) -> str:
        """Text of the table row that begins with a name."""
        found = re.search(rf'<tr[^>]*>\s*<th scope="row">{re.escape(name)}<?.*?</tr>', self.html, re.S)
        assert found, f"no row {name}"
        return " ".join(re.sub(r"<[^>]+>", " ", found[0]).split())


@pytest.fixture(scope="session")
def parse_html() -> Callable[[str], Page]:
    """HTML or SVG, parsed; refuses tags that do not nest."""
    return Page
