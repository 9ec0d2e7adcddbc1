"""Several trainings that belong together: each setting with each seed, here or on workers of Ray.

A run of a sweep is a run folder like any other. A run whose worker is lost is begun anew by another one, and
goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from turnwise.evaluation.measures.intervals import student_interval
from turnwise.recipes.catalogue import ALGORITHMS, algorithm_of
from turnwise.recipes.measuring.evaluate import evaluate
from turnwise.recipes.settings.sweep import SweepSettings
from turnwise.recipes.settings.train import RunSettings
from turnwise.recipes.training.families import prepare_and_carry_out
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.lock import locked
from turnwise.run.folder import write_json
from turnwise.run.progress import Progress
from turnwise.run.shards.here import Here, Workers
from turnwise.run.shards.on_ray import on_ray

FILE = "sweep.json"
LEADING = ("heldout/loss", "return", "discounted_return", "reward", "heldout/accuracy", "loss")
"""metrics by which runs are compared that nobody measured: the first of these that all of them log"""
CHOSEN = (
    "the best of several settings looks better on these runs than it is: measure it with seeds that it was "
    "not chosen by"
)


@dataclass(frozen=True)
class Trial:
    """One run of a sweep."""

    name: str
    """of its settings"""
    algorithm: str
    config: Any
    given: Mapping[str, Any]
    """settings of its family, as `fit` takes them"""
    run: RunSettings


def sweep(
    configs: Any,
    data: Any,
    *,
    out: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    episodes: int | None = None,
    ray: str | None = None,
    ray_gpus: float = 0.0,
    resume: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Train each setting with each seed on the same data, and set them side by side.

    `configs`: an algorithm's settings, or several by names of yours: {"small": tw.PPO(lanes=16), "large":
    tw.PPO(lanes=64)}. `data` and `settings` are those of `fit`. `out`: the folder of all runs, one the other
    beside the next as NAME/seed-0; sweep.json there holds what this returns. `episodes`: each run is measured
    with so many at its end, as `evaluate` does with its own defaults. `ray`: workers of Ray that train the
    runs, each with as many CPUs as `threads` says, and `ray_gpus` GPUs; `out` and the data have to be where
    all of them see them. `resume`: runs that ended stay as they are, others go on from their checkpoints.

    The result has `rows`, one for each setting: `runs` with their numbers, and `mean` over seeds with its
    95% interval (Student's; None for one seed). `by` names the number. InputError if a run cannot be.
    """
    asked = SweepSettings(tuple(seeds), (), episodes, ray, ray_gpus)
    named = configs if isinstance(configs, Mapping) else {"": configs}
    own = {f: settings.pop(f) for f in RunSettings.__dataclass_fields__ if f in settings}
    own |= {"out": Path(out), "resume": resume}
    trials = [
        Trial(name, algorithm_of(config).name, config, settings, RunSettings(**{**own, "seed": seed}))
        for name, config in named.items()
        for seed in asked.seeds
    ]
    return carry_out_all(placed(trials), data, asked, Path(out), resume=resume, quiet=quiet)


def placed(trials: Sequence[Trial]) -> list[Trial]:
    """The same, each in a folder of its own below that of the sweep. InputError for two of one folder."""
    found = [
        replace(t, run=replace(t.run, out=t.run.out.absolute() / _safe(t.name) / f"seed-{t.run.seed}"))
        for t in trials
    ]
    folders = [str(t.run.out).casefold() for t in found]
    for t, folder in zip(found, folders, strict=True):
        if folders.count(folder) > 1:
            raise InputError(f"{t.name!r} has a folder that another setting has too; expected other names")
    return found


def _safe(name: str) -> str:
    return re.sub(r"[^\w=.,+-]", "-", name).strip(".") or ("" if not name else "setting")


def carry_out_all(
    trials: Sequence[Trial], data: Any, asked: SweepSettings, out: Path, *, resume: bool, quiet: bool
) -> dict[str, Any]:
    """Train and measure them all; write sweep.json."""
    if out.exists() and not out.is_dir():
        raise SettingError("out", str(out), "a folder; a file of that name exists")
    if not resume and any(path.is_file() for path in out.rglob("*")):
        raise SettingError("out", str(out), "a new folder, or resume; this one holds other files")
    shared = _Shared(data, asked.episodes, Path.cwd())
    with contextlib.ExitStack() as closing:
        workers: Workers = Here()
        if asked.ray is not None:
            threads = max(t.run.threads for t in trials)
            workers = closing.enter_context(on_ray(asked.ray, threads, asked.ray_gpus))
        closing.enter_context(locked(out))
        so_far = 0
        bar = closing.enter_context(Progress("training runs", len(trials), quiet=quiet))

        def done(_: int) -> None:
            nonlocal so_far
            so_far += 1
            bar.at(so_far)

        numbers = workers.each(_train, shared, trials, done)
        result = _side_by_side(trials, numbers, asked, out)
        write_json(out / FILE, result)
    return result


@dataclass(frozen=True)
class _Shared:
    """What all runs of a sweep share."""

    data: Any
    episodes: int | None
    place: Path
    """where relative paths begin"""


def _train(shared: _Shared, trial: Trial) -> dict[str, float]:
    """Train one and measure it; its numbers."""
    with contextlib.chdir(shared.place) if shared.place.is_dir() else contextlib.nullcontext():
        out = trial.run.out
        # A worker that was lost leaves a checkpoint: the next one goes on from there.
        run = replace(trial.run, resume=(out / "config.yaml").exists())
        made = prepare_and_carry_out(
            ALGORITHMS[trial.algorithm], trial.config, shared.data, dict(trial.given), run, quiet=True
        )
        numbers = {k: float(v) for k, v in made.result["metrics"].items() if k not in ("step", "seconds")}
        if shared.episodes is not None:
            found = evaluate(out, episodes=shared.episodes, quiet=True)
            numbers = {found.score: found.mean, **numbers}
    return numbers


def _side_by_side(
    trials: Sequence[Trial], numbers: Sequence[dict[str, float]], asked: SweepSettings, out: Path
) -> dict[str, Any]:
    common = [k for k in numbers[0] if all(k in x for x in numbers)]
    measured = common[:1] if asked.episodes is not None else []
    by = next((k for k in (*measured, *LEADING, *common) if k in common), None)
    rows = []
    for name in dict.fromkeys(t.name for t in trials):
        own = [(t, x) for t, x in zip(trials, numbers, strict=True) if t.name == name]
        row: dict[str, Any] = {"name": name, "mean": None, "low": None, "high": None}
        if by is not None:
            values = [x[by] for _, x in own]
            row["mean"] = math.fsum(values) / len(values)
            if len(values) > 1:
                row["low"], row["high"] = student_interval(values)
        row["runs"] = [
            {"seed": t.run.seed, "run": str(t.run.out.relative_to(out.absolute())), "numbers": x}
            for t, x in own
        ]
        rows.append(row)
    result: dict[str, Any] = {"algorithms": sorted({t.algorithm for t in trials}), "by": by}
    result |= {"episodes": asked.episodes, "seeds": list(asked.seeds), "rows": rows}
    return result | ({"note": CHOSEN} if len(rows) > 1 else {})
