"""Stages carried out side by side, each as soon as those that it needs are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from turnwise.data.dataset import Logs
from turnwise.data.files.logs import read_logs
from turnwise.data.splits.heldout import split_heldout
from turnwise.recipes.catalogue import ALGORITHMS
from turnwise.recipes.improving.clock import Clock
from turnwise.recipes.improving.stages import Stage
from turnwise.recipes.settings.improve import ImproveSettings, Labour
from turnwise.recipes.settings.train import LogReading
from turnwise.recipes.side_by_side import named, result_of, workers
from turnwise.run.errors import InputError
from turnwise.run.files.lock import has_ended


@dataclass(frozen=True)
class Work:
    """What every worker is told."""

    out: Path
    source: str
    reading: LogReading
    s: ImproveSettings


@dataclass
class Done:
    """What became of a stage."""

    name: str
    title: str
    about: str
    candidate: bool
    seconds: float = 0.0
    failed: str | None = None
    """why it could not be done, in words; None: it is done"""


def carry_out(
    w: Work,
    labour: Labour,
    stages: Sequence[Stage],
    clock: Clock,
    tell: Callable[[str], None],
    quiet: bool,
) -> list[Done]:
    """All stages, each as soon as those that it needs are done."""
    found = {x.name: Done(x.name, x.title, x.about, x.candidate) for x in stages}
    waiting, ready = list(stages), set[str]()
    running: dict[Future[Any], Stage] = {}
    with workers(labour.workers, quiet=quiet) as pool:
        while waiting or running:
            for x in list(waiting):
                lacking = [n for n in x.after if found[n].failed is not None]
                if lacking:
                    waiting.remove(x)
                    found[x.name].failed = f"it needs {', '.join(found[n].title for n in sorted(lacking))}"
                elif x.after <= ready:
                    waiting.remove(x)
                    tell(f"{x.title}: {x.about}")
                    running[pool.submit(_stage, x, w, labour.resume, quiet)] = x
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                x = running.pop(future)
                try:
                    seconds = result_of(future)
                except InputError as error:
                    found[x.name].failed = str(error)
                    tell(f"{x.title}: cannot be done: {error}")
                    continue
                found[x.name].seconds = round(seconds, 1)
                ready.add(x.name)
                clock.heard(x, seconds)
                tell(f"{x.title}: done; about {clock.left()} left")
    return [found[x.name] for x in stages]


def _stage(x: Stage, w: Work, resume: bool, quiet: bool) -> float:
    """Carry out a stage, unless that is done; its seconds."""
    import torch

    from turnwise.recipes.training.fit import fit

    torch.set_num_threads(1)
    named(x.name)
    folder = w.out / x.name
    if has_ended(folder):
        return 0.0
    began = time.monotonic()
    given: dict[str, Any] = {key: str(w.out / name) for key, name in x.needs.items()}
    data: Any = w.source
    if x.partner is not None:
        data = str(w.out / x.partner)
    elif x.learns == "learnt":
        given |= {"heldout": w.s.heldout, "heldout_by": w.s.heldout_by, **asdict(w.reading)}
    else:
        read = read_logs(w.source, **vars(w.reading), quiet=True)
        split = split_heldout(read, w.s.heldout, w.s.heldout_by)
        data = Logs(split.held, f"{read.source}, the judging part", read.reading)
        given["heldout"] = 0.0
    if x.algorithm not in ("acts", "act-ppo"):
        given["estimate"] = False  # all are judged together
    config = ALGORITHMS[x.algorithm].config(**x.config)
    begun = resume and (folder / "config.yaml").exists()
    fit(config, data, out=folder, seed=w.s.seed, resume=begun, quiet=quiet, **given)
    return time.monotonic() - began
