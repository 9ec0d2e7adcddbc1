"""turnwise train NAME: one verb for every algorithm of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Any

from turnwise.cli.learnt import in_acts, in_words, print_critic, print_plan, print_replies
from turnwise.cli.say import console, notice, parse
from turnwise.cli.sources import (
    SOURCES,
    ActSource,
    AgentSource,
    BeliefBeside,
    CriticBeside,
    CriticSource,
    EnvironmentSource,
    FeedbackSource,
    LogOrEnvironment,
    LogsBeside,
    LogSource,
    MeasuringReward,
    PartnerSource,
    PolicyBeside,
    PolicySource,
    PromptSource,
    TalkerSource,
    TaskSource,
)
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.recipes.catalogue import ALGORITHMS, FAMILIES, Algorithm, Family
from turnwise.recipes.settings.engine import EngineSettings
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.ray import RaySettings
from turnwise.recipes.settings.sweep import SweepSettings
from turnwise.recipes.settings.train import (
    ActSettings,
    Ending,
    EnsembleSettings,
    EnvironmentSettings,
    FeedbackReading,
    FeedbackSettings,
    LogReading,
    LogSettings,
    PartnerSettings,
    PrivilegedCritic,
    RandomEpisodes,
    ReplySettings,
    RewardShaping,
    RunSettings,
    Start,
    TalkSettings,
)
from turnwise.run.errors import SettingError

if TYPE_CHECKING:
    from rich.console import Console

    from turnwise.recipes.training.job import Job


@dataclass(frozen=True)
class Output:
    """What this call prints."""

    dry_run: bool = False
    """Print the plan with sizes and estimated time, and stop."""
    json: bool = False
    """Print one result object on stdout."""


_FAMILY_FLAGS: dict[Family, tuple[type[Any], ...]] = {
    "logs": (LogSource, LogReading, LogSettings, Learning, Ending),
    "partners": (LogSource, LogReading, PartnerSettings, Learning),
    "codebooks": (LogSource, LogReading, ActSettings),
    "act_agents": (LogSource, LogReading, ActSource, ActSettings, Ending, MemorySpec),
    "plans": (LogOrEnvironment, LogReading, ActSource, ActSettings, Ending, PolicyBeside, RandomEpisodes),
    "talkers": (PartnerSource, TalkerSource, MemorySpec),
    "conversations": (TaskSource, TalkSettings, Learning),
    "reward": (FeedbackSource, FeedbackReading, FeedbackSettings, EnsembleSettings, Learning),
    "preferences": (
        FeedbackSource,
        FeedbackReading,
        MeasuringReward,
        FeedbackSettings,
        ReplySettings,
        Learning,
    ),
    "replies": (
        PromptSource,
        FeedbackReading,
        FeedbackSettings,
        ReplySettings,
        RewardShaping,
        Learning,
        EngineSettings,
        RaySettings,
    ),
    "acting": (EnvironmentSource, EnvironmentSettings, AgentSource, MemorySpec),
}
ALONE: dict[Family, str] = {
    "logs": "logs",
    "partners": "logs",
    "codebooks": "logs",
    "act_agents": "logs",
    "plans": "logs",
    "talkers": "partner",
    "conversations": "task",
    "reward": "feedback",
    "preferences": "feedback",
    "replies": "prompts",
    "acting": "env",
}
"""the flag that a path by itself is for: what is learnt from"""


_TITLES: dict[type[Any], str] = {
    RunSettings: "run",
    Output: "output",
    LogSource: "logs",
    LogOrEnvironment: "logs",
    RandomEpisodes: "episodes",
    LogReading: "reading",
    FeedbackReading: "reading",
    LogSettings: "learning",
    PartnerSettings: "learning",
    Learning: "cost",
    ActSource: "acts",
    ActSettings: "learning",
    Ending: "ending",
    Start: "model",
    PolicySource: "policy",
    PolicyBeside: "policy",
    AgentSource: "policy",
    PartnerSource: "partner",
    TalkerSource: "policy",
    TaskSource: "task",
    PrivilegedCritic: "critic",
    CriticBeside: "critic",
    CriticSource: "critic",
    BeliefBeside: "states",
    TalkSettings: "speaking",
    FeedbackSource: "feedback",
    FeedbackSettings: "learning",
    EnsembleSettings: "ensemble",
    ReplySettings: "replies",
    PromptSource: "prompts",
    MeasuringReward: "measuring",
    RewardShaping: "shaping",
    EngineSettings: "engine",
    RaySettings: "ray",
    SweepSettings: "sweep",
    EnvironmentSource: "environment",
    EnvironmentSettings: "episodes",
    MemorySpec: "memory",
    CriticSpec: "critic",
    LogsBeside: "logs",
}
"""what the help calls each group of flags"""


def flags_of(row: Algorithm, *, sweep: bool = False) -> type[Any]:
    """The flags of an algorithm, or of a sweep of it: one field a topic, each a dataclass."""
    kinds: list[type[Any]] = list(_FAMILY_FLAGS[row.family])
    if row.family not in ("acting", "act_agents", "plans", "codebooks", "talkers"):
        kinds.insert(1, Start if row.fresh else PolicySource)
    if row.critic:
        kinds.append(CriticSpec)
    if row.family == "conversations" and row.holds == "a critic":
        kinds.append(CriticBeside)
    if row.replays:
        kinds += [LogsBeside, LogReading]
    if row.family == "logs" and row.holds == "a critic":
        kinds.insert(2, CriticSource)
    if row.family == "talkers":
        kinds.append(PrivilegedCritic if row.holds == "a critic" else BeliefBeside)
    if sweep:  # whole runs are given to Ray, and not what they sample
        kinds = [SweepSettings, *(kind for kind in kinds if kind is not RaySettings)]
    config = row.light_config
    topics: list[tuple[Any, ...]] = [(_TITLES[kind], kind) for kind in (RunSettings, Output, *kinds)]
    # Fields without a default come first, as dataclasses ask.
    needed = [t for t in topics if _needs_a_value(t[1])]
    free = [(name, kind, field(default_factory=kind)) for name, kind in topics if not _needs_a_value(kind)]
    free.append((row.name.replace("-", "_"), config, field(default_factory=config)))
    return make_dataclass("Flags", [*needed, *free], frozen=True)


def _needs_a_value(kind: type[Any]) -> bool:
    return any(f.default is MISSING and f.default_factory is MISSING for f in fields(kind))


def run(name: str, args: Sequence[str]) -> dict[str, Any]:
    """Parse, then plan or train."""
    row = ALGORITHMS[name]
    about = f"{row.what[0].upper()}{row.what[1:]}: {FAMILIES[row.family]}."
    flags = parse(flags_of(row), args, f"train {name}", about, alone=ALONE[row.family])
    settings, output, light, source, given = taken(row, flags)
    # Flags are known to be good now, and what takes seconds to import may be.
    from turnwise.recipes.training.families import prepare_and_carry_out

    plan = _printed_plan(output.json) if output.dry_run else None
    found = prepare_and_carry_out(
        row, row.config(**vars(light)), source, given, settings, quiet=False, plan=plan
    )
    if output.dry_run or found is None:
        return found or {}
    _print(row, found.result, settings.out, output.json)
    return dict(found.result)


def taken(row: Algorithm, flags: Any) -> tuple[RunSettings, Output, Any, Any, dict[str, Any]]:
    """Settings of the run, what is printed, the algorithm's numbers, what is learnt from, and the rest."""
    asked = {type(part).__name__: part for part in vars(flags).values()}
    settings, output = asked.pop("RunSettings"), asked.pop("Output")
    light = asked.pop("Config")
    asked.pop("SweepSettings", None)
    given: dict[str, Any] = {}
    for part in asked.values():
        given |= vars(part)
    sources = [x for x in [given.pop(key, None) for key in SOURCES] if x is not None]
    if len(sources) != 1:
        raise SettingError("logs", None, "either logs or env")
    return settings, output, light, sources[0], given


def _printed_plan(json: bool) -> Callable[[Job[Any]], dict[str, Any]]:
    """Print the plan of a job, and return it."""

    def show(job: Job[Any]) -> dict[str, Any]:
        from turnwise.recipes.training.job import estimate

        plan, out = estimate(job.plan), console(json)
        out.print("plan (nothing is written):")
        for key, value in plan.items():
            words = key.replace("_", " ")
            out.print(f"  {words:<20}{value}" if isinstance(value, str) else f"  {words:<20}{value:,}")
        return plan

    return show


def _print(row: Algorithm, result: Mapping[str, Any], folder: Any, json: bool) -> None:
    """What the run came to, for people."""
    out = console(json)
    print_replies(result.get("measured", {}), out)
    metrics = result["metrics"]
    if metrics.get("left_out"):
        skipped = f"; {metrics['skipped']:,.0f} steps learnt nothing" if metrics.get("skipped") else ""
        out.print(
            f"the reward was silent on {metrics['left_out']:,.0f} prompts, which were left out{skipped}"
        )
    if row.family == "codebooks":
        out.print(f"{row.name}: {folder}")
        for side, found in result["sides"].items():
            out.print(f"  {side}: {in_acts(found)}", markup=False)
    elif row.family in (
        "logs", "partners", "act_agents", "plans", "talkers", "conversations", "acting",
    ):  # fmt: skip
        shown = [f"{k} {v:.4g}" for k, v in metrics.items() if k not in ("step", "seconds")]
        out.print(f"{row.name}: {folder}  {'  '.join(shown)}")
        if "critic" in result:
            print_critic(result["critic"], out)
    else:
        for text in result.get("quality", {}).get("cautions", []):
            out.print(f"caution: {text}")
        loss = f"  heldout/loss {metrics['heldout/loss']:.3f}" if "heldout/loss" in metrics else ""
        out.print(f"{row.name}: {folder}{in_words(result.get('quality', {}))}{loss}")
    if (verdict := result.get("wording", {}).get("verdict")) and not result["wording"]["beaten"]:
        out.print(verdict)
    for line in result.get("told", {}).get("lines", ()):
        out.print(f"  {line}", markup=False, highlight=False)
    if "estimate" in result:
        _print_estimate(result["estimate"], out)
    out.print(f"report: {result['report']}")
    if row.family == "plans":
        print_plan(result, out)
    talks = ("act_agents", "talkers", "conversations", "acting")
    if row.family == "plans" or (row.family in talks and "policy" in result):
        notice(f"next: turnwise evaluate {folder}")


def _print_estimate(found: Mapping[str, Any], out: Console) -> None:
    """What the held-out conversations say that the policy is worth, or why they say nothing."""
    if "none" in found:
        out.print(f"no estimate of its worth: {found['none']}", markup=False, highlight=False)
        return
    out.print(f"what {found['conversations']:,} conversations that were held out say of it:")
    for line in found["lines"]:
        out.print(f"  {line}", markup=False, highlight=False)
