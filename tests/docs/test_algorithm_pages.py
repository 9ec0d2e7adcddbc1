"""Every code block and every command of the pages of algorithms runs as printed."""

from __future__ import annotations

import pytest
from pages import PAGES, ROOT, blocks_of, name_of

ALGORITHMS = ROOT / "docs" / "algorithms"


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks_of(p) and p.is_relative_to(ALGORITHMS)], ids=name_of
)
def test_a_page_works_as_printed(page, run_page):
    run_page(page)
