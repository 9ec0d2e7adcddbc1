"""turnwise evaluate, of a run whose agent acts in an environment."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnwise.cli.say import console, notice, parse
from turnwise.cli.solve import Bounds
from turnwise.run.errors import InputError
from turnwise.run.folder import read_config, write_json, write_text

SHOWN = 8
"""episodes kept for the report page"""
PROBED = 600
"""episodes whose memories are read"""
SECONDS = 10.0
"""for the bounds of the optimum, and for the best memoryless policy"""
ERRORS = 3.0
"""standard errors by which a mean may exceed what no agent exceeds"""


@dataclass(frozen=True)
class EvaluateAgent:
    """Play whole episodes with a trained agent, and set its mean beside what is known of the environment."""

    run: Path
    """run folder of a trained agent; results are written into it"""
    env: str | None = None
    """environment, if not the one of training; it must look the same to the agent"""
    episodes: int = 2000
    """whole episodes"""
    seed: int = 0
    """of the environment and of the agent's own chances"""
    greedy: bool = False
    """the likeliest action always, in place of drawing from the policy"""
    lanes: int = 250
    """episodes at a time"""
    horizon: int | None = None
    """steps after which an episode is cut; none: until what could follow is negligible"""
    threads: int = 1
    """CPU threads"""
    json: bool = False
    """print one result object on stdout"""


def run(args: Sequence[str]) -> dict[str, Any]:
    """Measure; write evaluation.json, episodes.jsonl, probe.json and the page."""
    a = parse(EvaluateAgent, args, "evaluate RUN", EvaluateAgent.__doc__ or "")
    result = evaluate(a)
    out = console(a.json)
    low, high = result["low"], result["high"]
    out.print(
        f"{a.run}: {result['score']} [bold]{result['mean']:.4g}[/bold] ({low:.4g} to {high:.4g}, 95%; "
        f"standard error {result['standard_error']:.2g}), {result['episodes']:,} episodes of "
        f"{result['length']:.4g} steps"
    )
    for line in _known(result):
        out.print(f"  {line}")
    for note in result["truth"]["notes"]:
        out.print(f"  [dim]not known: {note}[/dim]")
    if result["above"]:
        out.print(
            f"[red]impossible[/red]: the mean exceeds {result['bound']:.6g}, which no agent exceeds, by more "
            f"than {ERRORS:g} standard errors: a fault of environment, bound or evaluation"
        )
        result["exit"] = 1
    out.print(f"report: {result['report']}")
    return result


def _known(result: dict[str, Any]) -> list[str]:
    """What the mean stands beside, line by line."""
    t, lines = result["truth"], []
    if t.get("lower") is not None:
        lines.append(f"V*_obs, of the best policy with memory: between {t['lower']:.6g} and {t['upper']:.6g}")
    if t.get("stochastic") is not None:
        lines.append(f"best stochastic memoryless policy found: {t['stochastic']:.6g}")
    if t.get("deterministic") is not None:
        lines.append(f"best deterministic memoryless policy: {t['deterministic']:.6g}")
    if t.get("maximum") is not None:
        lines.append(f"maximum: {t['maximum']:.6g}")
    if result["exact"] is not None:
        lines.append(f"this policy has no memory; its exact value: {result['exact']:.6g}")
    if result["share"] is not None and result["share"] < 0:
        lines.append("its memory gains it nothing: a policy without one does better")
    elif result["share"] is not None:
        lines.append(f"share of what memory is worth: {100 * result['share']:.0f}%")
    return lines


def evaluate(a: EvaluateAgent) -> dict[str, Any]:
    """The same for callers in Python."""
    config = read_config(a.run)
    saved, env, problem, gamma, longest = _prepared(a, config)
    from turnwise.evaluation.measures.episode_views import annotate_episodes
    from turnwise.evaluation.measures.episodes import Greedy, episode_summary, play, tail_of
    from turnwise.evaluation.measures.truth import bound_above, exact_value, share_of
    from turnwise.evaluation.pages.report import write_report
    from turnwise.run.progress import Progress

    agent: Any = Greedy(saved.agent) if a.greedy else saved.agent
    lanes = min(a.lanes, a.episodes)
    with Progress("playing", a.episodes) as bar:
        held = play(
            agent,
            env,
            episodes=a.episodes,
            lanes=lanes,
            longest=longest,
            gamma=gamma or 1.0,
            seed=a.seed,
            progress=bar.at,
        )
    result: dict[str, Any] = {
        "env": a.env or config["env"],
        **episode_summary(held, gamma=gamma, seed=a.seed),
    }
    memoryless = saved.memory.memory == "none"
    truth = _truth(a, env, problem)
    result |= {
        "kind": saved.kind,
        "greedy": a.greedy,
        "horizon": longest,
        "tail": tail_of(problem, longest) if problem is not None and result["truncated"] else 0.0,
        "truth": truth,
        "exact": None,
    }
    if problem is not None and memoryless:
        result["exact"] = exact_value(saved.agent, problem, greedy=a.greedy)
    bound = bound_above(truth, memoryless)
    room = ERRORS * result["standard_error"] + result["tail"] + 1e-6
    result |= {"bound": bound, "above": bound is not None and result["mean"] > bound + room}
    result["share"] = share_of(result["mean"], truth) if not memoryless else None
    result["probe"] = _probe(a, saved, problem, held, truth)
    shown = annotate_episodes(saved.agent, env, held[:SHOWN], gamma=gamma)
    write_json(a.run / "evaluation.json", result)
    lines = "".join(json.dumps(e, ensure_ascii=False, allow_nan=False) + "\n" for e in shown)
    write_text(a.run / "episodes.jsonl", lines)
    return {**result, "report": str(write_report(a.run))}


def _prepared(a: EvaluateAgent, config: dict[str, Any]) -> tuple[Any, Any, Any, float | None, int]:
    """The agent; the environment, its problem and discount; steps of an episode at most."""
    import torch

    from turnwise.cli.environments import find_environment, problem_of
    from turnwise.envs.tabular import TabularEnv
    from turnwise.evaluation.measures.episodes import MOST_STEPS, horizon_for
    from turnwise.models.agents.spec import Spaces
    from turnwise.rollout.player import load_saved

    if "env" not in config:
        raise InputError(f"{a.run}: not the run of an agent that acts in an environment")
    if not (a.run / "policy").is_dir():
        raise InputError(f"{a.run}: no policy yet; expected a run that is complete (go on with --resume)")
    torch.set_num_threads(a.threads)
    saved = load_saved(a.run)
    name = a.env or config["env"]
    horizon = a.horizon
    env, gamma = find_environment(name, min(a.lanes, a.episodes), horizon)
    problem = problem_of(env)
    if problem is not None:
        gamma = problem.discount
        longest = a.horizon or horizon_for(problem)
        env = TabularEnv(problem, longest)
    else:
        longest = a.horizon or MOST_STEPS
        if a.horizon is None and config.get("horizon") is not None:
            longest = int(config["horizon"])
            env, _ = find_environment(name, min(a.lanes, a.episodes), longest)
    here, there = Spaces.of(env), saved.spaces
    if (here.observations, here.actions) != (there.observations, there.actions):
        raise InputError(
            f"--env {name}: observations {here.observations} and actions {here.actions}; the agent was made "
            f"for {there.observations} and {there.actions}"
        )
    if a.greedy and saved.kind == "q":
        notice("--greedy: an agent of values takes the best action in any case")
    return saved, env, problem, gamma, longest


def _truth(a: EvaluateAgent, env: Any, problem: Any) -> dict[str, Any]:
    from turnwise.evaluation.measures.truth import Limits, truth_of_problem, truth_of_task

    if problem is None:
        return truth_of_task(env)
    with Bounds(SECONDS) as bar:
        found = truth_of_problem(problem, a.seed, Limits(SECONDS), bar.at)
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in found.items()}


def _probe(
    a: EvaluateAgent, saved: Any, problem: Any, held: Sequence[Any], truth: dict[str, Any]
) -> dict[str, Any] | None:
    """What the memory knows; written into probe.json. None where there is nothing to probe."""
    import torch

    from turnwise.evaluation.measures.belief_probe import MOST_STATES, probe_memory
    from turnwise.models.agents.spec import agent_of
    from turnwise.run.progress import Progress

    path = a.run / "probe.json"
    path.unlink(missing_ok=True)
    if problem is None or problem.shape[0] > MOST_STATES:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(a.seed)
        fresh = agent_of(saved.kind, saved.memory, saved.critic, saved.spaces).eval().memory
    with Progress("reading memories", 3) as bar:
        found = probe_memory(
            problem,
            saved.agent.memory,
            fresh,
            held[:PROBED],
            a.seed,
            expected=not truth["rewards_inform"],
            progress=bar.at,
        )
    write_json(path, found)
    return {name: line["accuracy"] for name, line in found["lines"].items()}
