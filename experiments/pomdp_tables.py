"""Tables of `estimates_pomdps`: what is lost by going by the last observation, and which estimate when."""

from __future__ import annotations

from typing import Any

import numpy as np
from belief_graphs import TARGETS, WORLDS, truth_of
from judging import add, confident_and_wrong, score
from scipy.stats import spearmanr

OF_LAST, OF_BELIEF = ", propensities of last observation", ", propensities of belief"
LARGE = 5000
"""numbers of episodes above which MAGIC, tables of histories and models are left out: they take their time"""
GOES_BY = ("last observation", "belief")
WORDS = ("vouch", "model only", "cannot tell")


def models(name: str, size: int) -> bool:
    """Whether models are held against the logs, which takes its time."""
    return name == "optimal" and size <= LARGE


def cells(rows: list[dict[str, Any]]) -> list[tuple[str, int, list[dict[str, Any]]]]:
    """(world, size, rows), in the order in which they are shown."""
    keys = sorted({(r["world"], r["size"]) for r in rows}, key=lambda k: (list(WORLDS).index(k[0]), k[1]))
    return [(w, n, [r for r in rows if (r["world"], r["size"]) == (w, n)]) for w, n in keys]


def scores_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every estimator in every cell."""
    return [
        {"world": world, "size": size, "target": name, "estimator": estimator}
        | score([r["targets"][name]["estimates"][estimator] for r in sets], truth_of(*WORLDS[world], name))
        for world, size, sets in cells(rows)
        for name in TARGETS
        for estimator in sets[0]["targets"][name]["estimates"]
    ]


def truths_table(truths: dict[str, dict[str, float]], lines: list[str]) -> None:
    """The exact values."""
    add(lines, "True values", "logs", "behaviour", *TARGETS)
    for world, of in truths.items():
        lines.append(f"| {world} | {' | '.join(f'{of[n]:.3f}' for n in ('behaviour', *TARGETS))} |")


BIASES = {
    "direct": ("direct, last observation", "direct, belief"),
    "weighted, estimated propensities": (f"weighted{OF_LAST}", f"weighted{OF_BELIEF}"),
    "weighted doubly robust, all estimated": (
        f"weighted doubly robust{OF_LAST}",
        f"weighted doubly robust{OF_BELIEF}",
    ),
    "weighted doubly robust, known propensities": (
        "weighted doubly robust, last observation",
        "weighted doubly robust, belief",
    ),
}


def biases_table(scores: list[dict[str, Any]], lines: list[str]) -> None:
    """The bias of who goes by the last observation, beside that of who goes by the belief."""
    sizes = sorted({s["size"] for s in scores})
    add(
        lines,
        "Bias: the last observation against the belief",
        "logs",
        "target",
        "estimate",
        "state",
        *(f"{n:,}" for n in sizes),
    )
    found = {(s["world"], s["target"], s["estimator"], s["size"]): s for s in scores}
    for world in WORLDS:
        for name in TARGETS:
            for label, names in BIASES.items():
                for state, estimator in zip(GOES_BY, names, strict=True):
                    of = [found.get((world, name, estimator, n), {}) for n in sizes]
                    if any(of):
                        shown = " | ".join(_bias(s) for s in of)
                        lines.append(f"| {world} | {name} | {label} | {state} | {shown} |")


def _bias(s: dict[str, Any]) -> str:
    if "bias" not in s:
        return ""
    n = s["sets"] - s["missing"]
    return f"{s['bias']:+.3f} ± {1.96 * s['deviation'] / max(n - 1, 1) ** 0.5:.3f}"


def verdicts_table(rows: list[dict[str, Any]], lines: list[str]) -> list[dict[str, Any]]:
    """How often the logs vouch without a model, and how often that was wrongly confident."""
    columns = ("logs", "episodes", "sets", "target", "effective, median", "vouch", "wrongly confident")
    more = (
        "per decision",
        "vouch, last observation",
        "wrongly confident",
        "vouch, belief",
        "wrongly confident",
    )
    add(lines, "What the verdict says, by propensities", *columns, *more)
    found, hows = [], {"": "known", OF_LAST: "last observation", OF_BELIEF: "belief"}
    for world, size, sets in cells(rows):
        for name in TARGETS:
            truth, of = truth_of(*WORLDS[world], name), [r["targets"][name] for r in sets]
            row: dict[str, Any] = {"world": world, "size": size, "target": name, "sets": len(of)}
            row["effective"] = float(np.median([t["effective"] for t in of]))
            for how, label in hows.items():
                row[f"vouch, {label}"] = sum(t["verdict" + how] == "vouch" for t in of)
                row[f"wrong, {label}"] = sum(confident_and_wrong(t, truth, how) for t in of)
            lead = "weighted per decision"
            row["wrong, per decision"] = sum(confident_and_wrong(t, truth, "", lead) for t in of)
            found.append(row)
            shown = [world, f"{size:,}", len(of), name, f"{row['effective']:,.0f}"]
            shown += [row["vouch, known"], row["wrong, known"], row["wrong, per decision"]]
            shown += [row[f"{k}, {x}"] for x in GOES_BY for k in ("vouch", "wrong")]
            lines.append(f"| {' | '.join(map(str, shown))} |")
    total = sum(r["sets"] for r in found)
    for label in hows.values():
        vouched, wrong = (sum(r[f"{k}, {label}"] for r in found) for k in ("vouch", "wrong"))
        lines += [
            f"\nPropensities {label if label == 'known' else 'of ' + label}: of {total:,} verdicts "
            f"{vouched:,} *vouch*, {wrong} of them wrongly confident ({wrong / total:.2%} of all)."
        ]
    return found


def models_table(rows: list[dict[str, Any]], lines: list[str]) -> list[dict[str, Any]]:
    """What is said of far targets with each of the models beside the logs."""
    columns = ("logs", "episodes", "sets", "target (true value)", "model", "its promise, mean")
    add(lines, "A model beside the logs", *columns, *WORDS, "found off where it was checked")
    found = []
    for world, size, sets in cells(rows):
        for name in (n for n in TARGETS if models(n, size)):
            truth = truth_of(*WORLDS[world], name)
            for model in GOES_BY:
                said = [r["targets"][name]["models"][model] for r in sets]
                counts = {w: sum(s["verdict"] == w for s in said) for w in WORDS}
                off, promise = sum(s["off"] for s in said), float(np.mean([s["promise"] for s in said]))
                row = {"world": world, "size": size, "target": name, "model": model, "sets": len(said)}
                found.append(row | {"promise": promise, **counts, "off": off})
                shown = " | ".join(str(counts[w]) for w in WORDS)
                label = f"| {world} | {size:,} | {len(said)} | {name} ({truth:.3f}) | {model} "
                lines.append(f"{label}| {promise:.3f} | {shown} | {off} |")
    return found


def ranks_table(rows: list[dict[str, Any]], lines: list[str]) -> list[dict[str, Any]]:
    """Regret of the highest estimate, and rank correlation, over sizes."""
    sizes, found = sorted({r["size"] for r in rows}), []
    shown: dict[tuple[str, str], list[str]] = {}
    for world, size, sets in cells(rows):
        truths = {n: truth_of(*WORLDS[world], n) for n in TARGETS}
        for estimator in sets[0]["targets"]["near"]["estimates"]:
            regrets, ranks = [], []
            for r in sets:
                of = {n: r["targets"][n]["estimates"][estimator][0] for n in TARGETS}
                known = [n for n in TARGETS if of[n] is not None]
                if len({of[n] for n in known}) > 1:
                    ranks.append(spearmanr([of[n] for n in known], [truths[n] for n in known]).statistic)
                best = max(known, key=lambda n: of[n]) if known else "near"
                regrets.append(max(truths.values()) - truths[best])
            median, rank = float(np.median(regrets)), float(np.mean(ranks)) if ranks else None
            found.append(
                {"world": world, "size": size, "estimator": estimator, "median regret": median, "rank": rank}
            )
            cell = f"{rank:.2f} ({median:.3f})" if rank is not None else ""
            shown.setdefault((world, estimator), [""] * len(sizes))[sizes.index(size)] = cell
    head = "Rank correlation of the targets (median regret of the highest)"
    add(lines, head, "logs", "estimator", *(f"{n:,}" for n in sizes))
    lines += [f"| {w} | {e} | {' | '.join(of)} |" for (w, e), of in shown.items()]
    return found


def estimates_table(scores: list[dict[str, Any]], lines: list[str]) -> None:
    """Every estimator: bias, deviation, RMSE and coverage."""
    sizes = sorted({s["size"] for s in scores})
    for world in WORLDS:
        of = [s for s in scores if s["world"] == world]
        if not of:
            continue
        sets = {n: max((s["sets"] for s in of if s["size"] == n), default=0) for n in sizes}
        heads = [f"{n:,} ({sets[n]} sets)" for n in sizes]
        head = f"{world}: bias / deviation / RMSE / covered, by number of episodes"
        add(lines, head, "target", "estimator", *heads)
        found = {(s["target"], s["estimator"], s["size"]): s for s in of}
        for name in TARGETS:
            for estimator in dict.fromkeys(s["estimator"] for s in of):
                shown = [_cell(found.get((name, estimator, n), {})) for n in sizes]
                lines.append(f"| {name} | {estimator} | {' | '.join(shown)} |")


def _cell(s: dict[str, Any]) -> str:
    if "bias" not in s:
        return "missing in all" if s else ""
    missing = f" ({s['missing']} missing)" if s["missing"] else ""
    return f"{s['bias']:+.3f} / {s['deviation']:.3f} / {s['rmse']:.3f} / {s['covered']:.2f}{missing}"
