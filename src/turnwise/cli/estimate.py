"""turnwise evaluate RUN --logs FILE: what a policy is worth, from the logs of another alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnwise.cli.say import console, notice, parse
from turnwise.recipes.settings.measure import EstimateSettings
from turnwise.recipes.settings.train import LogReading
from turnwise.run.errors import SettingError


@dataclass(frozen=True)
class Judging:
    """How logs are asked."""

    acts: Path | None = None
    """Codebooks (turnwise train acts) by which the replies of a policy that writes its own words are read, so
    that it is estimated per act."""
    reward: str | None = None
    """Function of a conversation as module:function, whose rewards take the place of those that were logged:
    a number, or one for each message of the agent."""
    safe: Path | None = None
    """New folder, to which the safe choice is written as a run: the policy at some of the turns, a clone of
    the logged agent at the others. Nothing is written if the logged agent itself is what is safe."""
    threads: int = 1
    """CPU threads."""
    json: bool = False
    """Print one result object on stdout."""


@dataclass(frozen=True)
class RunOnLogs:
    """What is estimated, and from what."""

    run: Path
    """Run folder of a trained policy, into which the estimate is written; or the folder of any causal
    language model of transformers."""
    logs: str
    """Logged conversations of another agent, or of this one: JSONL or Parquet file, a folder of them, or a
    datasets name or folder."""
    model: Path | None = None
    """Run folder of a plan (turnwise train pomdp) with the same codebooks, whose learnt models are to
    promise what the policy is worth; none: a plan's own."""


@dataclass(frozen=True)
class EvaluateOnLogs:
    """Estimate what a policy is worth from logged conversations alone: per act if it chooses acts; if it
    writes its own words, per turn, per token, or per act as codebooks read them."""

    target: RunOnLogs
    judging: Judging = field(default_factory=Judging)
    reading: LogReading = field(default_factory=LogReading)
    settings: EstimateSettings = field(default_factory=EstimateSettings)


def run(args: Sequence[str]) -> dict[str, Any]:
    """Estimate, print, and write the result into the run."""
    about = f"{EvaluateOnLogs.__doc__} Without --logs it holds live conversations."
    a = parse(EvaluateOnLogs, args, "evaluate", about, alone="run")
    if not a.target.run.exists():
        raise SettingError(
            "run", str(a.target.run), "the folder of a trained policy or of a language model; no such folder"
        )
    import torch

    from turnwise.data.files.logs import read_logs
    from turnwise.evaluation.pages.report import write_report
    from turnwise.recipes.measuring.estimate import FILE, estimate

    torch.set_num_threads(a.judging.threads)
    logs = read_logs(a.target.logs, **vars(a.reading))
    j = a.judging
    asked = {"acts": j.acts, "model": a.target.model, "reward": j.reward, "safe": j.safe}
    found = estimate(a.target.run, logs, **asked, **vars(a.settings))
    for warning in found["warnings"]:
        notice(f"warning: {warning}")
    out = console(a.judging.json)
    for line in found["lines"]:
        out.print(line, markup=False, highlight=False)
    result = {key: value for key, value in found.items() if key != "lines"}
    if not (a.target.run / FILE).is_file():  # a language model's folder is no run, and stays as it is
        return result
    page = write_report(a.target.run)
    out.print(f"report: {page}")
    return result | {"report": str(page)}
