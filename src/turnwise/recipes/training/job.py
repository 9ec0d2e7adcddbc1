"""A run that is ready to start: planned, or carried out into its folder."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from turnwise.evaluation.pages.report import write_report
from turnwise.recipes.catalogue import Algorithm, Family
from turnwise.recipes.opened import load
from turnwise.recipes.trained import Actor
from turnwise.recipes.training.learning import How, criterion_of
from turnwise.recipes.training.machine import Machine
from turnwise.run import distributed
from turnwise.run.files.lock import LOCK, RESULT, has_ended, locked
from turnwise.run.files.whole import PART, whole_file
from turnwise.run.folder import FORMAT, PLACES, expect_fresh, read_result, write_config, write_json
from turnwise.run.passes import Passes
from turnwise.run.rehearsal import VARIABLE, rehearsing
from turnwise.run.settings import flattened
from turnwise.run.training import TrainingRun

R = TypeVar("R")

SCHEDULE = ("lr", "schedule", "warmup", "checkpoint_every", "checkpoints", "log_every", "heldout_every")
"""settings that a resumed run may have other values of, beside the length of training"""
LENGTH: dict[Family, tuple[str, ...]] = {
    "logs": ("epochs",),
    "partners": ("epochs",),
    "codebooks": (),
    "act_agents": ("epochs",),
    "plans": (),
    "talkers": ("talks",),
    "conversations": ("talks",),
    "reward": ("epochs",),
    "preferences": ("epochs",),
    "replies": ("steps",),
    "acting": ("steps", "episodes"),
}
"""how each family calls the length of training"""
DATA = ("logs", "heldout_logs", "feedback", "prompts")
"""settings that say where the data lies, whose content a digest says"""
MEASURED = (
    RESULT,
    "estimate.json",
    "evaluation.json",
    "conversations.jsonl",
    "episodes.jsonl",
    "probe.json",
    "report.html",
)
"""files about a policy that has ended its training; `result.json`, which says so, goes first"""
REPORT = "report.html"
CONFIG = "config.yaml"
NOT_RECORDED = (
    "out",
    "resume",
    "device",
    "threads",
    "workers",
    "micro_batch",
    "gradient_checkpointing",
    "pack_rows",
    "track",
    "strategy",
    "reward_retries",
    "reward_wait",
    "engine",
    "engine_folder",
    "engine_timeout",
    "engine_wait",
    "ray",
    "shards",
    "ray_cpus",
)
"""settings that say how a call behaves and not what it computes: a run may be resumed with others"""


@dataclass(frozen=True)
class Trial:
    """A small piece of training that is timed to estimate the full time."""

    train: Callable[[TrainingRun], Any]
    amount: int
    """what it takes, in the unit of `Plan.total`"""


@dataclass(frozen=True)
class Plan:
    """What a run would be."""

    sizes: Mapping[str, int | str]
    total: int
    unit: str
    """what `total` counts: steps or episodes"""
    trial: Trial
    how: How | None = None
    """how rows go through a language model"""


@dataclass(frozen=True)
class Job(Generic[R]):
    """Everything ready to train."""

    algorithm: Algorithm
    settings: Sequence[Any]
    """dataclasses and mappings of what was asked, in the order of the run's config"""
    data: str | None
    """digest of what is learnt from; a run can be resumed only on the same data"""
    plan: Plan
    train: Callable[[TrainingRun], Any]
    finish: Callable[[], tuple[R, dict[str, Any]]]
    """saves what was trained and measures it; returns the trained object and its result entries"""
    content: Mapping[str, str] = field(default_factory=dict)
    """digests of what the run stands on, by the name of the setting that says where that lies: a run can be
    resumed only on the same, wherever it lies now"""
    files: Mapping[str, Any] = field(default_factory=dict)
    """JSON files of the run folder that are known before the first step"""
    copies: Mapping[str, Path] = field(default_factory=dict)
    """files that the run folder keeps a copy of, by the copy's name"""
    env: Any = None
    """the environment, for an agent that acts in one"""
    warnings: Sequence[str] = ()


def carry_out(job: Job[R], machine: Machine) -> tuple[R, dict[str, Any]] | None:
    """Train, save, measure, write the page; what was trained and the result. None on processes other than 0.

    The run folder is complete when this returns, and no other process has written it. Ctrl-C leaves a
    checkpoint and raises Interrupted. A run that had ended already is what it was. One that fails before
    anything was learnt leaves nothing, so that the next try may have other settings and other data.
    """
    name, out, world = job.algorithm.name, machine.out, machine.world
    world.expect_same("data", job.data or "none")
    with contextlib.ExitStack() as held:
        # Rank 0 alone writes; what it refuses, all processes refuse.
        if world.on_main(lambda: _open_folder(job, machine, held)):
            distributed.stop()
            return _as_it_ended(job, out) if world.main else None
        criterion = None if job.plan.how is None else criterion_of(job.algorithm)
        with machine.training_run(name, job.plan.how, criterion) as run:
            job.train(run)
        distributed.stop()
        if not world.main:
            return None
        made, facts = job.finish()
        if job.plan.how is not None and (run.keep == "best" or run.patience is not None):
            facts["best"] = {"step": run.best.step, f"heldout/{criterion}": run.best.loss}
        result = {"algorithm": name, "run": str(out), **facts, "metrics": last_metrics(out)}
        result["report"] = str(out / REPORT)
        # The file says of places how they are called in the folder, which may be moved. It makes the run a
        # finished one, so all but the page, a view of the folder, is there before it.
        kept = {k: Path(v).name if k in PLACES else v for k, v in result.items() if k != "run"}
        write_json(out / RESULT, kept)
        write_report(out)
    return made, result


def _open_folder(job: Job[Any], machine: Machine, held: contextlib.ExitStack) -> bool:
    """Take the folder, and write what is known before the first step. Whether the run has ended already."""
    row, out = job.algorithm, machine.out
    if not out.exists():
        held.push(lambda kind, *_: _remove_empty(out) if kind is not None else None)
    held.enter_context(locked(out))
    expect_fresh(out, resume=machine.run.resume)  # again: while data was read, another run may have begun
    if not (out / CONFIG).exists():
        written = {CONFIG, "env.json", "algorithm.json", *job.files, *job.copies}
        held.push(lambda kind, *_: _forget(out, written) if kind is not None else None)
    first: dict[str, Any] = {"format": FORMAT, "family": row.family, "algorithm": row.name}
    first |= {} if job.data is None else {"data": job.data}
    if rehearsing():
        first["rehearsal"] = True
        machine.warn(f"this is a rehearsal ({VARIABLE} is set): a few steps, and no result means anything")
    settings = first | flat(*job.settings) | {f"{k}_content": v for k, v in job.content.items()}
    changed = write_config(
        out,
        settings,
        resume=machine.run.resume,
        may_change=SCHEDULE + LENGTH[row.family],
        places=(*job.content, *(() if job.data is None else DATA)),
    )
    if has_ended(out):
        if not changed:
            return True
        for file in MEASURED:  # of what the run was before it goes on
            (out / file).unlink(missing_ok=True)
    write_json(out / "algorithm.json", row.facts())
    for file, value in job.files.items():
        write_json(out / file, value)
    for file, original in job.copies.items():
        with whole_file(out / file) as part:
            shutil.copyfile(original, part)
    for text in job.warnings:
        machine.warn(text)
    return False


def _forget(out: Path, written: Collection[str]) -> None:
    """Remove what a run has written before its first step, if there is nothing else."""
    if {f.name for f in out.iterdir() if f.name != LOCK and not f.name.endswith(PART)} <= set(written):
        for name in (CONFIG, *written):  # without settings first, so that half of it is no run
            (out / name).unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # what somebody else put there stays
        folder.rmdir()


def _as_it_ended(job: Job[Any], out: Path) -> tuple[Any, dict[str, Any]]:
    """What a run that has ended trained, and its result."""
    made = load(out)
    if isinstance(made, Actor):
        made = replace(made, env=job.env)
    if not (out / REPORT).exists():
        write_report(out)
    return made, read_result(out)


def flat(*settings: Any) -> dict[str, Any]:
    """Every setting by its name, nested values flattened, as the command line names them too."""
    found: dict[str, Any] = {}
    for part in settings:
        values = flattened(part if isinstance(part, Mapping) else asdict(part))
        found |= {k: str(v) if isinstance(v, Path) else v for k, v in values.items() if k not in NOT_RECORDED}
    return found


def estimate(plan: Plan) -> dict[str, Any]:
    """The plan with the seconds that training would take, from its trial; the trial leaves no files."""
    with tempfile.TemporaryDirectory() as folder:
        through = Passes() if plan.how is None else plan.how.passes
        run = TrainingRun(Path(folder), what="timing", quiet=True, through=through)
        began = time.perf_counter()
        plan.trial.train(run)
        each = (time.perf_counter() - began) / plan.trial.amount
    takes = {} if plan.how is None else plan.how.facts()
    seconds = float(f"{each * plan.total:.3g}")
    return {**plan.sizes, plan.unit: plan.total, "estimated_seconds": seconds, **takes}


def passes_plan(
    sizes: Mapping[str, int | str],
    config: Any,
    items: Sequence[Any],
    train: Callable[[Any, Sequence[Any], TrainingRun], Any],
    how: How,
) -> Plan:
    """The plan of passes over `items` in batches; its trial is one pass over two batches of them."""
    few = items[: 2 * config.batch_size]
    batches, timed = (-(-len(x) // config.batch_size) for x in (items, few))
    once = replace(config, epochs=1.0)
    trial = Trial(lambda run: train(once, few, run), timed)
    return Plan(sizes, max(1, round(config.epochs * batches)), "steps", trial, how)


def last_metrics(folder: Path) -> dict[str, float]:
    """The last line of metrics.jsonl."""
    file = folder / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return json.loads(lines[-1]) if lines else {}
