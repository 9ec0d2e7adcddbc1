"""The picture of a comparison: its figures can be read aloud, and labels keep apart."""

from __future__ import annotations

import re

from turnwise.evaluation.pictures.comparison import Interval, comparison_plot


def test_plot_says_its_numbers_aloud_and_labels_references(parse_html):
    rows = [Interval("ILQL", 0.36, 0.324, 0.396, best=True), Interval("A $x$ & <b>", -0.3, -0.34, -0.26)]
    references = [Interval("exact optimum", 0.5675), Interval("behaviour", 0.55, 0.54, 0.56)]
    for narrow in (False, True):
        svg = str(comparison_plot(rows, references, score="mean return", decimals=3, narrow=narrow))
        page = parse_html(svg)
        label = page.elements[0][1]["aria-label"]
        assert (
            label is not None and "ILQL 0.360 (0.324 to 0.396)" in label and "exact optimum 0.5675" in label
        )
        assert "A $x$ & <b>" in page.text  # neither mathematics nor markup
        assert "−0.300" in page.text and "0.360" in page.text
        heights = {
            name: float(re.search(rf'y="([-\d.]+)"[^>]*>{name}', svg)[1]) for name in ("exact", "behaviour")
        }
        assert abs(heights["exact"] - heights["behaviour"]) > 10  # neighbours stand on two levels
