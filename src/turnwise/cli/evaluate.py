"""turnwise evaluate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnwise.cli.say import console, notice, parse
from turnwise.recipes.tasks import find_task
from turnwise.run.errors import InputError
from turnwise.run.folder import read_config, write_json, write_text

VALIDATION_SEED = 1_000_003
"""added to the seed for validation conversations, so that they are other ones than the evaluation's"""
SHOWN = 12
"""conversations kept for the report page"""
AGENTS_TOO = (
    " Runs of agents that act in an environment (ppo, ...) take other options: turnwise evaluate RUN --help."
)


@dataclass(frozen=True)
class Evaluate:
    """Hold conversations with a live task and measure a trained policy."""

    run: Path
    """run folder of a trained policy; results are written into it"""
    task: str = "helpdesk"
    """the built-in task to talk to"""
    episodes: int = 2000
    """conversations"""
    seed: int = 0
    """the same seed gives every policy the same customers"""
    lanes: int = 64
    """conversations held at a time"""
    betas: tuple[float, ...] = ()
    """strengths of the critic to choose from, on validation conversations; the best is kept"""
    validation_episodes: int = 300
    """conversations for each of the betas"""
    temperature: float = 1.0
    """of sampling; 0 is greedy"""
    threads: int = 1
    """CPU threads"""
    json: bool = False
    """print one result object on stdout"""


def run(args: Sequence[str]) -> dict[str, Any]:
    """Measure, write evaluation.json and conversations.jsonl; of an agent in an environment: its episodes."""
    args = named_run(args)
    if acts_in_environment(args):
        from turnwise.cli import evaluate_agents

        return evaluate_agents.run(args)
    a = parse(Evaluate, args, "evaluate", (Evaluate.__doc__ or "") + AGENTS_TOO)
    task = find_task(a.task)
    if not a.run.is_dir():
        raise InputError(f"--run {a.run}: no such folder; expected the run folder of a trained policy")
    result = evaluate(a)
    interval = f"{result['low']:.3f} to {result['high']:.3f}"
    out = console(a.json)
    out.print(f"{a.run}: mean return {result['mean']:.3f} ({interval}, 95%), {a.episodes:,} conversations")
    if result["truncated"]:
        out.print(
            f"[yellow]mind[/yellow] {result['truncated']:,} of {a.episodes:,} conversations filled the "
            "policy's context and were cut: what they would have earned later is missing from the mean"
        )
    for known in task.references():
        between = "exact" if known.low is None else f"{known.low:.4f} to {known.high:.4f}, 95%"
        out.print(f"{known.name}: {known.mean:.4f} ({between})")
    return result


def named_run(args: Sequence[str]) -> list[str]:
    """`RUN ...` is `--run RUN ...`."""
    words = list(args)
    return ["--run", *words] if words and not words[0].startswith("-") else words


def acts_in_environment(args: Sequence[str]) -> bool:
    """Whether the folder after --run is the run of an agent that acts in an environment."""
    words = list(args)
    folder = next((w.removeprefix("--run=") for w in words if w.startswith("--run=")), None)
    if "--run" in words[:-1]:
        folder = words[words.index("--run") + 1]
    return (
        folder is not None and (Path(folder) / "config.yaml").is_file() and "env" in read_config(Path(folder))
    )


def evaluate(a: Evaluate) -> dict[str, Any]:
    """The same for callers in Python: pick beta on validation conversations, then measure."""
    import torch

    from turnwise.evaluation.measures.conversation_views import annotate_conversation
    from turnwise.evaluation.measures.conversations import (
        conversation_summary,
        hold_conversations,
        tune_acting,
    )
    from turnwise.evaluation.pages.report import write_report
    from turnwise.rollout.agent import load_agent, save_acting
    from turnwise.run.progress import Progress

    torch.set_num_threads(a.threads)
    task = find_task(a.task)
    agent = load_agent(a.run).with_acting(temperature=a.temperature)
    tried: list[dict[str, Any]] = []
    if a.betas and agent.critic is None:
        notice("--betas: this policy has no critic whose strength could be chosen")
    elif a.betas:
        notice(f"choosing beta on {a.validation_episodes} validation conversations each")
        with Progress("beta", len(a.betas)) as bar:
            agent, tried = tune_acting(
                agent,
                task.live(),
                [{"beta": beta} for beta in a.betas],
                episodes=a.validation_episodes,
                seed=a.seed + VALIDATION_SEED,
                lanes=a.lanes,
                progress=bar.at,
            )
    with Progress("talking", a.episodes) as bar:
        held = hold_conversations(
            agent, task.live(), episodes=a.episodes, seed=a.seed, lanes=a.lanes, progress=bar.at
        )
    result = {"task": a.task, **conversation_summary(held, a.seed), "optimum": task.known("optimum")}
    result["beta"] = agent.acting.beta if agent.critic is not None else None
    result["validation"] = tried
    views = [
        annotate_conversation(agent, c.dialogue, c.tokens, source="policy", hidden=c.hidden)
        for c in held[:SHOWN]
    ]
    if tried:
        save_acting(a.run / "policy", agent.acting)
    write_json(a.run / "evaluation.json", result)
    lines = "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in views)
    write_text(a.run / "conversations.jsonl", lines)
    result["report"] = str(write_report(a.run))
    return result
