"""turnwise sweep NAME: the same training for several settings and seeds, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from turnwise.cli.say import console, notice, parse
from turnwise.cli.train import ALONE, flags_of, taken
from turnwise.cli.words import split_words
from turnwise.recipes.catalogue import ALGORITHMS, FAMILIES, Algorithm
from turnwise.recipes.settings.sweep import SweepSettings, points_of
from turnwise.run.errors import SettingError


def run(name: str, args: Sequence[str]) -> dict[str, Any]:
    """Parse every combination, then train them all and print the table."""
    row = ALGORITHMS[name]
    kind = flags_of(row, sweep=True)
    about = f"Train several settings and seeds and set them side by side. {row.what}: {FAMILIES[row.family]}."
    first = parse(kind, args, f"sweep {name}", about, alone=ALONE[row.family])
    asked: SweepSettings = first.sweep
    settings, output, *_ = taken(row, first)
    if "seed" in split_words(kind, args).flags:
        raise SettingError("seed", settings.seed, "seeds, for a sweep has several")
    if output.dry_run:
        return _listed(row, asked, settings.out, output.json)
    combinations = [
        (_named(point), taken(row, parse(kind, [*args, *_words(kind, args, point)], f"sweep {name}", about,
                                         alone=ALONE[row.family])))
        for point in points_of(asked.grid)
    ]  # fmt: skip
    # Flags are known to be good now, and what takes seconds to import may be.
    from turnwise.recipes.sweep import Trial, carry_out_all, placed

    trials = [
        Trial(words, name, row.config(**vars(light)), given, replace(own, seed=seed))
        for words, (own, _, light, _, given) in combinations
        for seed in asked.seeds
    ]
    source = combinations[0][1][3]
    result = carry_out_all(placed(trials), source, asked, settings.out, resume=settings.resume, quiet=False)
    _print(result, settings.out, output.json)
    return result


def _named(point: dict[str, str]) -> str:
    """`lr=1e-3,memory=gru`, as the folder of the runs is called."""
    return ",".join(f"{k}={v}" for k, v in point.items())


def _words(kind: type[Any], args: Sequence[str], point: dict[str, str]) -> list[str]:
    """The flags of a combination. SettingError for one that is given beside it, or that is no setting."""
    given = split_words(kind, args).flags
    for name in point:
        if name in ("seed", "out", "resume", "json", "dry_run", *SweepSettings.__dataclass_fields__):
            raise SettingError("grid", name, "settings of training, which this is not")
        if name in given:
            raise SettingError("grid", name, "flags that are not given beside it too")
    return [f"--{name.replace('_', '-')}={value}" for name, value in point.items()]


def _listed(row: Algorithm, asked: SweepSettings, out: Path, json: bool) -> dict[str, Any]:
    """The runs that there would be."""
    names = [_named(point) for point in points_of(asked.grid)]
    show = console(json)
    show.print(f"plan (nothing is written): {len(names) * len(asked.seeds)} runs of {row.name}")
    for name in names:
        show.print(
            f"  {out / name}/seed-{{{','.join(map(str, asked.seeds))}}}", markup=False, highlight=False
        )
    return {"runs": len(names) * len(asked.seeds), "settings": names, "seeds": list(asked.seeds)}


def _print(result: dict[str, Any], out: Path, json: bool) -> None:
    show = console(json)
    seeds = len(result["seeds"])
    show.print(f"{out}: {result['by']} over {seeds} seed{'s' if seeds > 1 else ''}")
    for row in result["rows"]:
        name = row["name"] or "these settings"
        values = (
            "  ".join(f"{run['numbers'][result['by']]:.4g}" for run in row["runs"]) if result["by"] else ""
        )
        mean = "" if row["mean"] is None else f"{row['mean']:.4g}"
        if row["low"] is not None:
            mean += f" ({row['low']:.4g} to {row['high']:.4g}, 95%)"
        show.print(f"  {name}  {mean}  by seed: {values}", markup=False, highlight=False)
    if "note" in result:
        show.print(result["note"])
    notice(f"every run has a page: {out}/.../report.html; numbers: {out / 'sweep.json'}")
