"""The page of each algorithm has every setting with its default, and every metric that is logged."""

from __future__ import annotations

import importlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from turnwise.run.metrics import COMMON
from turnwise.run.settings import flattened

PAGES = Path(__file__).parents[2] / "docs" / "algorithms"


def section(page: Path, title: str) -> str:
    """The text of a page from one heading to the next."""
    return re.split(r"^## ", page.read_text(encoding="utf-8").split(f"\n## {title}\n", 1)[1], flags=re.M)[0]


def named(page: Path, title: str) -> set[str]:
    """Words in backticks in a section, and in the same section of the pages that it refers to."""
    text = section(page, title)
    words = set(re.findall(r"`([^`]+)`", text))
    for other in re.findall(rf"\]\(([a-z0-9-]+\.md)#{title.lower()}\)", text):
        words |= named(page.parent / other, title)
    return words


def written(value: Any) -> set[str]:
    """How a default may stand on a page."""
    if value is None:
        return {"none"}
    if isinstance(value, str):
        return {value}
    scientific = f"{value:e}".split("e")
    return {str(value), f"{value:,}", f"{value:g}", f"{float(scientific[0]):g}e{int(scientific[1])}"}


@pytest.mark.parametrize("page", sorted(PAGES.glob("*/*.md")), ids=lambda p: p.stem)
def test_settings_and_metrics_are_those_of_the_code(page: Path) -> None:
    files = {"reward-models": "reward", "learnt-pomdp": "pomdp", "acts": "codebooks"}
    file = files.get(page.stem, page.stem.removeprefix("act-").removeprefix("talk-").replace("-", "_"))
    name = f"turnwise.algorithms.{page.parent.name}.{file}"
    module: Any = importlib.import_module(name)
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", section(page, "Config"), flags=re.M)
    settings = flattened(asdict(module.Config()))
    assert [field for field, _ in rows] == list(settings)
    for field, default in rows:
        assert default in written(settings[field]), field
    assert module.METRICS.keys() | COMMON.keys() <= named(page, "Metrics")
