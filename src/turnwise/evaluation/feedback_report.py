"""What the pages of policies that learn from replies or preferences show beside learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from turnwise.evaluation.plots import ACCENT, LINE, STYLE, WARM, apart, number, svg, tick

REPLIES = (
    "dpo",
    "kto",
    "simpo",
    "orpo",
    "rloo",
    "grpo",
    "token-ppo",
    "reply-reinforce",
    "online-dpo",
    "best-of-n",
)
"""algorithms whose runs are of policies on replies"""
_SIZE = 460, 300


def is_of_replies(config: Mapping[str, Any]) -> bool:
    """Whether the run's policy learnt from replies or preferences."""
    return config.get("algorithm") in REPLIES


def reply_view(metrics: Sequence[Mapping[str, Any]], measured: Mapping[str, Any] | None) -> dict[str, Any]:
    """Reward and gold against the distance from the reference, and replies before and after."""
    points = [m for m in metrics if "kl" in m and "reward" in m]
    rows = []
    for name, m in (measured or {}).items():
        if isinstance(m, Mapping):
            told = {k: _interval(m[k]) for k in ("reward", "gold") if k in m}
            rows.append({"name": name, "kl": m.get("kl"), "length": m.get("length"), **told})
    after = (measured or {}).get("after", {})
    before = (measured or {}).get("before", {})
    return {
        "rows": rows,
        "gold": any("gold" in r for r in rows),
        "rewarded": any("reward" in r for r in rows),
        "overoptimisation": overoptimisation_plot(points, "over") if len(points) > 1 else None,
        "golden": any("gold" in m for m in points),
        "examples": after.get("examples", []),
        "before": before.get("examples", []),
    }


def _interval(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return number(found["mean"], 3)
    return f"{number(found['mean'], 3)} ({number(found['low'], 3)} to {number(found['high'], 3)})"


def overoptimisation_plot(points: Sequence[Mapping[str, Any]], key: str) -> Markup:
    """The reward that is learnt from, and gold where it is known, against the square root of the KL.

    Gao et al. 2023, arXiv:2210.10760, draw it so: for best of n both are nearly lines in sqrt(KL).
    """
    x = [math.sqrt(max(0.0, float(m["kl"]))) for m in points]
    series = [("reward", ACCENT, "-"), ("gold", WARM, (0, (5, 3)))]
    width, height = _SIZE
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((52 / width, 44 / height, 1 - 120 / width, 1 - 58 / height))
        axes.set(xlabel="square root of the KL to the reference, nats a reply")
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        axes.spines["left"].set_visible(False)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(y)))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        ends, last = [], []
        for name, colour, dashes in series:
            if not any(name in m for m in points):
                continue
            y = [float(m[name]) if name in m else math.nan for m in points]
            axes.plot(x, y, color=colour, linestyle=dashes, linewidth=1.7)
            axes.plot(x, y, "o", color=colour, markersize=3)
            last.append((name, y[-1], colour))
            ends.append(f"{name} from {number(y[0])} to {number(y[-1])}")
        bottom, top = axes.get_ylim()
        room = height - 58
        heights = apart([(y - bottom) / (top - bottom) * room for _, y, _ in last], 14)
        for (name, _, colour), place in zip(last, heights, strict=True):
            axes.text(1.02, place / room, name, transform=axes.transAxes, va="center_baseline", color=colour)
        return svg(figure, key, f"Over the square root of the KL up to {number(max(x))}: {'; '.join(ends)}")
