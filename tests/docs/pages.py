"""The pages of README and docs as what is printed on them: blocks with their language, links, headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONVENTIONS.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: Path
    line: int
    """line of the page on which its first line stands, counted from 1"""
    language: str
    """first word of the fence; empty where there is none"""
    argument: str
    """the rest of that line: of a whole file its name, of a directive what it is about"""
    text: str

    @property
    def place(self) -> str:
        """Page and line, as editors read them."""
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    """Path of a page from the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """All code blocks of a page in order, indented ones too."""
    found = []
    for token in MARKDOWN.parse(page.read_text(encoding="utf-8")):
        if token.type == "fence":
            language, _, argument = token.info.strip().partition(" ")
            found.append(Block(page, token.map[0] + 2, language, argument.strip(), token.content))
        elif token.type == "code_block":
            found.append(Block(page, token.map[0] + 1, "", "", token.content))
    return found


def links_of(page: Path) -> list[tuple[int, str]]:
    """Links and images of a page: the line of their paragraph, and where they lead."""
    found = []
    for token in MARKDOWN.parse(page.read_text(encoding="utf-8")):
        for child in token.children or []:
            target = child.attrGet("href") or child.attrGet("src")
            if target is not None:
                found.append((token.map[0] + 1 if token.map else 0, str(target)))
    return found


def anchors_of(page: Path) -> set[str]:
    """What a link to a heading of the page may name, by the rule of the code hosts."""
    tokens = MARKDOWN.parse(page.read_text(encoding="utf-8"))
    headings = [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def mentions_of(page: Path) -> list[str]:
    """Commands inside sentences: `code` that begins with `turnwise` and another word."""
    tokens = MARKDOWN.parse(page.read_text(encoding="utf-8"))
    inline = [child for token in tokens for child in token.children or [] if child.type == "code_inline"]
    return [" ".join(code.content.split()) for code in inline if code.content.startswith("turnwise ")]
