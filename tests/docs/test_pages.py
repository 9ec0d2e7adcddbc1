"""Every code block and every command of README and docs runs as printed; a failure names page and line.

The pages of algorithms are in a file of their own, for the sake of two workers.
"""

from __future__ import annotations

import pytest
from pages import PAGES, ROOT, blocks_of, name_of
from story import SET_UP, commands

ALGORITHMS = ROOT / "docs" / "algorithms"


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks_of(p) and not p.is_relative_to(ALGORITHMS)], ids=name_of
)
def test_a_page_works_as_printed(page, run_page):
    run_page(page)


def test_what_is_not_run_is_printed_somewhere():
    """An exemption whose line is gone would let in another one."""
    shells = [b for p in PAGES for b in blocks_of(p) if b.language in ("sh", "console")]
    assert set(SET_UP) <= {line for block in shells for line in commands(block)}
