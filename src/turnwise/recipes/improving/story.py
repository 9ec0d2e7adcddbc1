"""From logs to a better policy, or to the word that there is none: one call.

logs ──► learnt from | judging ──► stages (`stages.py`) ──► every policy, by the judging part (`compare`)
     and by a second model learnt from it (`opinion.py`) ──► the choice (`choice.py`) ──► page
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from turnwise.data.cards.logs import data_card, warnings
from turnwise.data.dataset import Logs
from turnwise.data.files.logs import read_logs, write_logs
from turnwise.data.splits.choices import records_of, returns_of
from turnwise.data.splits.heldout import Split, split_heldout
from turnwise.evaluation.pages.report import write_report
from turnwise.recipes.improving.choice import Choice, choose
from turnwise.recipes.improving.clock import Clock
from turnwise.recipes.improving.opinion import Opinion, models_of, opinions
from turnwise.recipes.improving.stages import CLONE, SECOND, stages_of
from turnwise.recipes.improving.work import Done, Work, carry_out
from turnwise.recipes.measuring.compare import Candidate, candidates_of, compare
from turnwise.recipes.opened import load
from turnwise.recipes.settings.improve import ImproveSettings, Labour
from turnwise.recipes.settings.train import LogReading
from turnwise.recipes.trained import ActPolicy, Policy
from turnwise.recipes.training.parts import expect_outcomes
from turnwise.run.errors import InputError
from turnwise.run.files.lock import RESULT, has_ended, locked
from turnwise.run.folder import FORMAT, digest, expect_fresh, write_config, write_json
from turnwise.run.terminal import say

FILE = "improve.json"
SAFE = "safe"
"""folder of the step that the logs vouch for, if it can talk"""
OWN = "logs.jsonl"
"""conversations that were given as rows, as the folder keeps them"""
FEWEST = 60
"""conversations below which nothing is tried: half of them judge"""
MEGABYTES = 550
"""resident memory of a process before it reads anything, in MiB"""
PER_MESSAGE = 0.004
"""and of each message that it reads, in MiB"""


@dataclass(frozen=True)
class Improved:
    """What came of it."""

    folder: Path
    result: dict[str, Any]
    """improve.json"""
    policy: Policy | ActPolicy | None = field(default=None, repr=False)
    """the policy to take; None: keep what you have"""

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "report.html"


def improve(
    logs: Any,
    out: str | Path = "improved",
    *,
    workers: int = 2,
    resume: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Improved:
    """Learn from logged conversations with outcomes, judge what was learnt, and choose.

    `logs`: a path, or rows, as `read_logs` takes them. `out`: a new folder. Every stage is a run of its own
    in it, `policy` is what to take, improve.json what was found and report.html the page. `settings`: fields
    of `ImproveSettings` (`heldout`, `heldout_by`, `preset`, `betas`, `practice`, `seed`, ...) and of
    `LogReading` (`outcome_column`, ...).

    A stage that cannot be done says why, and what needs it is left out. InputError for logs without outcomes
    or with too few conversations, SettingError for a folder that holds something else, Interrupted after
    Ctrl-C: `resume` goes on.
    """
    s, reading = _settings(settings)
    labour = Labour(workers, resume)
    folder = Path(out)
    expect_fresh(folder, resume=resume)
    read = read_logs(logs, **vars(reading), quiet=quiet)
    _expect_enough(read)
    split = split_heldout(read, s.heldout, s.heldout_by)
    with locked(folder):
        facts: dict[str, Any] = {"format": FORMAT, "algorithm": "improve"}
        facts |= {"logs": read.source, "data": digest(records_of(read)), **asdict(s), **asdict(reading)}
        write_config(folder, json.loads(json.dumps(facts)), resume=resume, places=("logs",))
        if has_ended(folder):
            return opened(folder)
        source = str(logs) if isinstance(logs, str | Path) else str(folder / OWN)
        if not isinstance(logs, str | Path):
            reading = LogReading()  # what is written is in our own format
            if not (folder / OWN).exists():
                write_logs(folder / OWN, read)
        return _told(Work(folder, source, reading, s), labour, read, split, quiet)


def opened(folder: Path) -> Improved:
    """What `improve` left in a folder."""
    found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    policy: Any = load(folder) if found["choice"]["name"] is not None else None
    return Improved(folder, found, policy)


def _told(w: Work, labour: Labour, read: Logs, split: Split, quiet: bool) -> Improved:
    """The whole story, with each chapter said as it begins."""
    began = time.monotonic()

    def tell(text: str) -> None:
        if not quiet:
            seconds = int(time.monotonic() - began)
            say(f"[{seconds // 60}:{seconds % 60:02d}] {text}")

    card = data_card(read, split=split)
    write_json(w.out / "card.json", card)
    for text in warnings(card, read):
        tell(f"warning: {text}")
    same = card["return"]["std"] == 0
    stages = [] if same else stages_of(w.s)
    thousand = card["agent_turns"]["mean"] * len(read) / 1000
    clock = Clock(stages, thousand, w.s.heldout, labour.workers)
    tell(
        f"{len(read):,} conversations, {len(split.learnt):,} to learn from and {len(split.held):,} to judge "
        f"by; {card['return']['mean']:.4g} each"
    )
    if not same:
        memory = max(1, labour.workers) * (MEGABYTES + PER_MESSAGE * card["messages"]) / 1000
        tell(f"about {clock.left()} and {memory:.1g} GB, a guess from other logs")
    done = carry_out(w, labour, stages, clock, tell, quiet)
    compared, told, choice = _judged(w, read, split, done, tell, same)
    result = {
        "logs": read.source,
        "conversations": len(read),
        "learnt": len(split.learnt),
        "judging": len(split.held),
        "choice": asdict(choice),
        "opinions": {name: o._asdict() for name, o in told.items()},
        "compared": compared,
        "stages": [asdict(x) for x in done],
        "seconds": round(time.monotonic() - began, 1),
        "memory": {"gigabytes": round(_peak(), 2)},
    }
    return _written(w, result, choice)


def _judged(
    w: Work,
    read: Logs,
    split: Split,
    done: Sequence[Done],
    tell: Callable[[str], None],
    same: bool,
) -> tuple[dict[str, Any] | None, dict[str, Opinion], Choice]:
    """What the logs and the second model say of every policy, and the choice."""
    if same:
        why = (
            f"every conversation earned the same, {float(returns_of(read)[0]):.4g}: nothing in them is better"
        )
        return None, {}, Choice("keep", None, (why[0].upper() + why[1:] + ".",))
    there = {x.name: x for x in done if x.failed is None}
    runs = {x.title: w.out / x.name for x in there.values() if x.candidate}
    if not runs:
        reasons = "; ".join(f"{x.title}: {x.failed}" for x in done if x.failed is not None)
        return None, {}, Choice("keep", None, (f"Nothing could be learnt from these logs ({reasons}).",))
    tell(f"judging {len(runs)} policies by conversations from which none has learnt")
    asked: dict[str, Any] = {"seed": w.s.seed, "resamples": w.s.resamples, "betas": w.s.betas}
    asked["talks"] = w.s.talks
    if w.s.heldout_by is not None and "=" not in w.s.heldout_by:
        asked["cluster"] = w.s.heldout_by
    shutil.rmtree(w.out / SAFE, ignore_errors=True)  # of a call that was stopped while it chose
    compared = compare(runs, read, safe=w.out / SAFE, quiet=True, **asked)
    told: dict[str, Opinion] = {}
    if SECOND in there:
        tell("asking the second model")
        second = load(w.out / SECOND)
        assert isinstance(second, ActPolicy)
        of_acts = {c.name: c.policy for c in _candidates(w, runs) if isinstance(c.policy, ActPolicy)}
        told = opinions(of_acts, models_of(second), talks=w.s.talks, seed=w.s.seed)
    returns = returns_of(read)
    clone = there[CLONE].title if CLONE in there else None
    ends = float(returns.min()), float(returns.max())
    return compared, told, choose(compared["rows"], compared["safe"], told, clone, ends)


def _candidates(w: Work, runs: Mapping[str, Path]) -> list[Candidate]:
    return [c for title, run in runs.items() for c in candidates_of(run, title, w.s.betas)]


def _written(w: Work, result: dict[str, Any], choice: Choice) -> Improved:
    """The policy to take, and the files that say so; result.json is the last."""
    policy: Any = None
    if choice.word == "vouched":
        policy = load(w.out / SAFE)
    elif choice.word == "models":
        runs = {x["title"]: w.out / x["name"] for x in result["stages"] if x["candidate"] and not x["failed"]}
        policy = next(c.policy for c in _candidates(w, runs) if c.name == choice.name)
    ended: dict[str, Any] = {"algorithm": "improve", "choice": result["choice"]}
    if policy is not None:
        policy.save(w.out / "policy")
        if policy.held is not None:
            policy.held.save(w.out)
        ended |= {"policy": "policy", "task": policy.task}
    write_json(w.out / FILE, result)
    write_json(w.out / RESULT, ended)
    write_report(w.out)
    return opened(w.out)


def _settings(given: Mapping[str, Any]) -> tuple[ImproveSettings, LogReading]:
    """TypeError for a setting that there is not."""
    names = [{f.name for f in fields(kind)} for kind in (ImproveSettings, LogReading)]
    for name in given:
        if name not in names[0] | names[1]:
            raise TypeError(
                f"improve has no setting {name!r}; expected one of {', '.join(sorted(names[0] | names[1]))}"
            )
    first, second = ({k: v for k, v in given.items() if k in own} for own in names)
    return ImproveSettings(**first), LogReading(**second)


def _expect_enough(read: Logs) -> None:
    """InputError for logs without outcomes, and for too few conversations."""
    expect_outcomes(read, read.source)
    if len(read) < FEWEST:
        raise InputError(
            f"{read.source}: expected {FEWEST} conversations or more; found {len(read):,}, and half of "
            "them would have to judge what the others have taught"
        )


def _peak() -> float:
    """Gigabytes that this process and one of its workers held at most."""
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return (
        sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        / unit
    )
