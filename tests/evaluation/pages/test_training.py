"""Panels of a run's metrics: what is declared, what belongs together, and how curves are drawn."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from turnwise.evaluation.pages.training import heldout_figures, panels
from turnwise.evaluation.pictures.curves import Panel, panel_plot
from turnwise.run.metrics import Metric


def test_panels_group_what_belongs_together():
    """Held-out joins training, and Q joins V as declared; the declared ones lead in their order; step 2,
    logged twice, keeps its last value; NaN goes."""
    declared = {
        "loss": Metric("loss", "nats per token", loss=True),
        "td": Metric("TD loss", "squared units of return", loss=True),
        "q": Metric("Q", "units of return", panel="Q and V"),
        "v": Metric("V", "units of return", panel="Q and V"),
    }
    rows = [
        {"step": 1, "grad_norm": 9.0, "q": 0.1, "v": 0.2, "td": 0.5},
        {"step": 2, "loss": 5.0, "heldout/loss": 6.0, "epoch": 1},
        {"step": 2, "loss": 4.0, "v": float("nan")},
    ]
    found = panels(rows, declared)
    assert [p.title for p in found] == ["loss", "TD loss", "Q and V", "grad_norm"]
    assert [p.unit for p in found] == ["nats per token", "squared units of return", "units of return", ""]
    assert [(c.label, c.steps, c.values) for c in found[0].curves] == [
        ("train", (2.0,), (4.0,)),
        ("held out", (2.0,), (6.0,)),
    ]
    assert [(c.label, c.values) for c in found[2].curves] == [("Q", (0.1,)), ("V", (0.2,))]


def test_what_is_not_declared_is_called_no_loss():
    """Keys that look like losses, on a run that declares nothing: they keep their keys, and come last."""
    rows = [{"step": 1, "policy_loss": 1.0, "heldout/td": 2.0, "reward": 3.0}]
    declared = {"reward": Metric("reward of replies")}
    assert [p.title for p in panels(rows, declared)] == ["reward of replies", "policy_loss", "td, held out"]
    figures = heldout_figures(rows, declared)
    assert figures == [
        ("td", "2.00", "measured on logged conversations kept from training; not what the policy would earn")
    ]


def test_long_curves_are_thinned_by_averaging(parse_html):
    """400 points in groups of 3: the first is (0 + 1 + 4) / 3 at step 1; the end is kept as it is."""
    (panel,) = panels([{"step": s, "loss": s * s} for s in range(400)], {})
    (curve,) = panel.curves
    assert curve.steps[:2] == (1.0, 4.0)
    assert curve.values[0] == pytest.approx((0 + 1 + 4) / 3)
    assert (curve.steps[-1], curve.values[-1]) == (399.0, 399.0**2)
    label = parse_html(str(panel_plot(panel, "k"))).elements[0][1]["aria-label"]
    assert label == "loss over 399 steps: loss from 1.67 to 159,201"


def test_end_labels_of_close_lines_stand_apart():
    panel = panels([{"step": s, "loss": 1.0, "heldout/loss": 1.001} for s in range(3)], {})[0]
    svg = str(panel_plot(Panel(panel.title, panel.curves), "k"))
    heights = [float(y) for y in re.findall(r'y="([\d.]+)"[^>]*>(?:train|held out) 1\.00<', svg)]
    assert len(heights) == 2 and abs(heights[0] - heights[1]) >= 11


def test_long_labels_stand_above_the_picture():
    """Four labels of up to 30 letters, 6.3 px each, would leave 84 of 330 px to the lines: one row each."""
    declared = {k: Metric(f"{k} replies", panel="implicit rewards") for k in ("chosen", "rejected")}
    rows = [{"step": s, f"{of}chosen": 1.0, f"{of}rejected": 1.0} for s in (1, 2) for of in ("", "heldout/")]
    (panel,) = panels(rows, declared)
    svg = str(panel_plot(panel, "k"))
    found = re.findall(r'x="([\d.]+)" y="([\d.]+)"[^>]*>((?:chosen|rejected) replies [^<]*)<', svg)
    assert [text for *_, text in sorted(found, key=lambda at: float(at[1]))] == [
        "chosen replies train 1.00",
        "rejected replies train 1.00",
        "chosen replies held out 1.00",
        "rejected replies held out 1.00",
    ]
    heights = sorted(float(y) for _, y, _ in found)
    assert all(b - a >= 13.9 for a, b in pairwise(heights)) and len({x for x, *_ in found}) == 1
