"""Links between pages lead somewhere, in a checkout as on the site."""

from __future__ import annotations

import pytest
from pages import PAGES, ROOT, anchors_of, links_of, name_of

LINKED = [*PAGES, ROOT / "LOG.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "experiments").glob("*.md"))]


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_somewhere(page):
    for line, target in links_of(page):
        path, _, anchor = target.partition("#")
        if ":" in path:
            continue  # an address of the web, which a test does not open
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name_of(page)}:{line}: {target}"
        assert not anchor or anchor in anchors_of(there), f"{name_of(page)}:{line}: {target}"
