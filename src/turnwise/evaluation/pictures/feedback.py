"""Pictures of rewards and of what is learnt from them: over-optimisation, and a reliability diagram."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from turnwise.evaluation.pictures import style


def overoptimisation_plot(points: Sequence[Mapping[str, Any]], key: str) -> Markup:
    """The reward that is learnt from, and the gold reward if it is known, against the square root of the KL.

    `points` are rows of metrics, each with `kl` (nats per reply) and `reward`. Gao et al. 2023,
    arXiv:2210.10760, plot both against sqrt(KL): for best-of-n the curves are then nearly straight.
    """
    # The KL is estimated from samples, and near 0 an estimate can be negative.
    x = [math.sqrt(max(0.0, float(m["kl"]))) for m in points]
    series = [("reward", style.ACCENT, "-"), ("gold", style.WARM, (0, (5, 3)))]
    width, height, top, bottom = 460, 300, 14, 44
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(width, height)
        axes = style.axes_inside(figure, (52, 68, top, bottom))
        axes.set(xlabel="square root of the KL to the reference, nats per reply")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        ends, last = [], []
        for name, colour, dashes in series:
            if not any(name in m for m in points):
                continue
            y = [float(m[name]) if name in m else math.nan for m in points]
            axes.plot(x, y, color=colour, linestyle=dashes, linewidth=1.7)
            axes.plot(x, y, "o", color=colour, markersize=3)
            last.append((name, y[-1], colour))
            ends.append(f"{name} from {style.number(y[0])} to {style.number(y[-1])}")
        low, high = axes.get_ylim()
        room = height - top - bottom
        places = style.apart([(y - low) / (high - low) * room for _, y, _ in last], 14)
        for (name, _, colour), place in zip(last, places, strict=True):
            axes.text(1.02, place / room, name, transform=axes.transAxes, va="center_baseline", color=colour)
        description = f"Against the square root of the KL, up to {style.number(max(x))}: {'; '.join(ends)}"
        return style.svg(figure, key, description)


def reliability_plot(curve: Sequence[Mapping[str, Any]], key: str) -> Markup:
    """Reliability diagram: the observed share against the predicted probability, with the count of each bin.

    Perfectly calibrated predictions lie on the diagonal (Niculescu-Mizil & Caruana 2005).
    """
    most = max(b["count"] for b in curve)
    with matplotlib.rc_context(style.RC):
        figure = style.figure_of(420, 380)
        axes = style.axes_inside(figure, (52, 44, 18, 44))
        axes.set(xlabel="predicted probability", ylabel="observed share", xlim=(0, 1), ylim=(0, 1))
        axes.plot([0, 1], [0, 1], color=style.MUTED, linewidth=1, linestyle=(0, (5, 3)))
        axes.annotate(
            "perfect", (1, 1), xytext=(4, 0), textcoords="offset points", va="center", color=style.MUTED
        )
        x, y = [b["predicted"] for b in curve], [b["observed"] for b in curve]
        axes.plot(x, y, color=style.ACCENT, linewidth=1.7)
        sizes = [10 + 60 * b["count"] / most for b in curve]
        axes.scatter(x, y, s=sizes, color=style.ACCENT, zorder=3, linewidths=0, clip_on=False)
        for b in curve:
            below = b["observed"] > 0.12  # a count below a dot at the bottom would lie on the axis
            at = (b["predicted"], b["observed"])
            axes.annotate(style.number(b["count"], 0), at, color=style.INK, size=10,
                          xytext=(7, -13) if below else (-7, 9), textcoords="offset points",
                          ha="left" if below else "right")  # fmt: skip
        description = "; ".join(
            f"predicted {style.number(b['predicted'], 2)}, observed {style.number(b['observed'], 2)}, "
            f"{style.number(b['count'], 0)} times"
            for b in curve
        )
        return style.svg(figure, key, f"Reliability diagram: {description}")
