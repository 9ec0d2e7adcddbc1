"""turnwise evaluate: a policy in live conversations, or an agent or a plan in whole episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnwise.cli import partner
from turnwise.cli.say import Bounds, against_proof, console, notice, parse, styled
from turnwise.cli.targets import TaskChoice, opened
from turnwise.cli.words import split_words
from turnwise.recipes.settings.engine import EngineSettings
from turnwise.recipes.settings.measure import ConversationSettings, EpisodeSettings
from turnwise.recipes.settings.ray import RaySettings
from turnwise.run.errors import InputError, SettingError
from turnwise.run.folder import read_config

OTHERS = {
    "acting": "Runs of policies that converse take other options: turnwise evaluate RUN --help.",
    "conversing": "Runs of agents in an environment take other options: turnwise evaluate RUN --help. From "
    "logs alone, before anyone talks to it: turnwise evaluate RUN --logs FILE (and --help for more). It also "
    "says how good a partner from logs is.",
}


@dataclass(frozen=True)
class Run:
    """What is measured."""

    run: Path
    """Run folder of a trained policy or agent; results are written into it."""
    threads: int = 1
    """CPU threads."""
    json: bool = False
    """Print one result object on stdout."""


@dataclass(frozen=True)
class EnvironmentChoice:
    """The environment."""

    env: str | None = None
    """Environment, if not the one of training; it must look the same to the agent."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment, each as KEY=VALUE or all as one JSON object; none: those of training."""


@dataclass(frozen=True)
class EvaluatePolicy:
    """Hold conversations with a live task and measure a trained policy."""

    target: Run
    task: TaskChoice = field(default_factory=TaskChoice)
    settings: ConversationSettings = field(default_factory=ConversationSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    ray: RaySettings = field(default_factory=RaySettings)


@dataclass(frozen=True)
class EvaluateAgent:
    """Play whole episodes with a trained agent or plan, and set its mean beside what is known there."""

    target: Run
    env: EnvironmentChoice = EnvironmentChoice()
    settings: EpisodeSettings = field(default_factory=EpisodeSettings)
    ray: RaySettings = field(default_factory=RaySettings)


def run(args: Sequence[str]) -> dict[str, Any]:
    """Measure, print, and write the results into the run."""
    if partner.is_partner(args):
        return partner.run(args)
    if any(word == "--logs" or word.startswith("--logs=") for word in args):
        from turnwise.cli.estimate import run as estimate

        return estimate(args)
    if acts_in_environment(args):
        about = f"{EvaluateAgent.__doc__} {OTHERS['acting']}"
        return _agent(parse(EvaluateAgent, args, "evaluate", about, alone="run"))
    about = f"{EvaluatePolicy.__doc__} {OTHERS['conversing']}"
    return _policy(parse(EvaluatePolicy, args, "evaluate", about, alone="run"))


def acts_in_environment(args: Sequence[str]) -> bool:
    """Whether the folder that is to be measured says that it is the run of an agent in an environment."""
    found = split_words(EvaluateAgent, args)
    folders = [Path(word) for word in (*found.flags.get("run", ()), *found.alone)]
    runs = [folder for folder in folders if (folder / "config.yaml").is_file()]
    if any(folder.name.lower().endswith(".policy") for folder in folders):  # of a solver
        return True
    config = read_config(runs[0]) if runs else {}
    family = "solved" if config.get("verb") == "solve" else config.get("family")
    return family in ("acting", "solved") or (family == "plans" and "env" in config)


def _policy(a: EvaluatePolicy) -> dict[str, Any]:
    from turnwise.recipes.measuring import act_conversations, conversations
    from turnwise.recipes.settings.words import parse_settings
    from turnwise.recipes.trained import ActPolicy, Policy

    policy, s, out = opened(a.target.run, a.target.threads), a.settings, console(a.target.json)
    if not isinstance(policy, Policy | ActPolicy):
        raise InputError(f"{a.target.run}: holds no policy that converses; expected the run of one")
    task = conversations.partner_of(policy, a.task.named, parse_settings(a.task.task_settings))
    if isinstance(policy, ActPolicy):
        if a.engine.engine is not None:
            raise SettingError("engine", a.engine.engine, conversations.WORDS_ONLY)
        found = act_conversations.measure(policy, task, s, a.ray)
    else:
        if s.betas and policy.agent.critic is None:
            notice("warning: --betas: this policy has no critic whose strength could be chosen")
        elif s.betas:
            notice(f"choosing beta on {s.validation_episodes} validation conversations each")
        found = conversations.measure(policy, task, s, a.engine, a.ray)
    result = dict(found.result)
    out.print(f"{a.target.run}: mean return {found.interval}, {found.episodes:,} conversations")
    if result["truncated"]:
        form = (
            "[yellow]warning[/yellow] {} of {} conversations were cut before their end, by the task or "
            "where the policy's context was full: what they would have earned later is missing from the mean"
        )
        out.print(styled(form, f"{result['truncated']:,}", f"{found.episodes:,}"))
    if result.get("failed"):
        form = "[yellow]warning[/yellow] the partner failed in {} more conversations, which count for nothing"
        out.print(styled(form, f"{result['failed']:,}"))
    for line in found.beside:
        out.print(f"  {line}")
    if found.report is None:
        notice(f"{a.target.run} is a saved model and no run: nothing is written")
        return result
    out.print(f"report: {found.report}")
    return result | {"report": str(found.report)}


def _agent(a: EvaluateAgent) -> dict[str, Any]:
    from turnwise.recipes.measuring import episodes, solved, worlds
    from turnwise.recipes.measuring.evaluate import place_of
    from turnwise.recipes.solved import Solved
    from turnwise.recipes.trained import Actor, World
    from turnwise.recipes.workers import expect_undivided

    actor = opened(a.target.run, a.target.threads)
    assert isinstance(actor, Actor | World | Solved)
    if not isinstance(actor, Actor):
        expect_undivided(a.ray)
    if isinstance(actor, Actor) and a.settings.greedy and actor.saved.kind == "q":
        notice("--greedy: an agent of values takes the best action in any case")
    place = place_of(actor, a.env.env, a.env.env_kwargs)
    with Bounds(episodes.SECONDS) as bar:
        if isinstance(actor, Solved):
            found = solved.measure(actor, place, a.settings, bounds=bar.at)
        elif isinstance(actor, World):
            found = worlds.measure(actor, place, a.settings, bounds=bar.at)
        else:
            found = episodes.measure(actor, place, a.settings, a.ray, bounds=bar.at)
    result, out = dict(found.result), console(a.target.json)
    low, high = result["low"], result["high"]
    spread = f"({low:.4g} to {high:.4g}, 95%; standard error {result['standard_error']:.2g})"
    played = f"{result['episodes']:,} episodes"
    if "length" in result:
        played += f" of {result['length']:.4g} steps"
    form = "{}: {} [bold]{}[/bold] {}, {}"
    out.print(styled(form, a.target.run, result["score"], f"{result['mean']:.4g}", spread, played))
    for line in found.beside:
        out.print(f"  {line}")
    for line in against_proof(result, "a fault of environment, bound or evaluation"):
        out.print(line)
    if found.report is None:
        notice(f"{a.target.run} is no run: nothing is written")
        return result
    out.print(f"report: {found.report}")
    return result | {"report": str(found.report)}
