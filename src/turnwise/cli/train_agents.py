"""turnwise train ppo | a2c | reinforce | r2d2 | sac: agents with memory, by their own acting."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from turnwise.algorithms.acting import a2c, ppo, r2d2, reinforce, sac
from turnwise.cli.environments import find_environment
from turnwise.cli.say import console, notice, parse
from turnwise.models.agents.spec import CriticSpec, Kind, MemorySpec, Spaces, agent_of, parameters_of
from turnwise.rollout.player import Saved
from turnwise.run import distributed
from turnwise.run.errors import InputError
from turnwise.run.folder import expect_fresh, write_config, write_json
from turnwise.run.settings import flattened
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Asked:
    """What every run of an agent is asked."""

    env: str
    """environment: one of ours (tiger, cheese, repeat-previous, ...), a .pomdp file, or an id of Gymnasium"""
    out: Path
    """run folder to write"""
    horizon: int | None = None
    """steps after which an episode is cut; none: the environment's own, 100 where it has none"""
    seed: int = 0
    """of weights, actions and the environment"""
    resume: bool = False
    """go on from the checkpoint in the run folder"""
    dry_run: bool = False
    """print the plan with sizes and estimated time, and stop"""
    json: bool = False
    """print one result object on stdout"""
    device: str = "cpu"
    """cpu, cuda, or auto; small agents are fastest on a cpu"""
    threads: int = 1
    """CPU threads; more helps only while nothing else runs"""
    checkpoint_every: int = 50
    """updates between checkpoints"""


@dataclass(frozen=True)
class Ppo:
    """Proximal policy optimisation with memory."""

    asked: Asked
    memory: MemorySpec = field(default_factory=MemorySpec)
    critic: CriticSpec = field(default_factory=CriticSpec)
    config: ppo.Config = field(default_factory=ppo.Config)


@dataclass(frozen=True)
class A2c:
    """Advantage actor-critic with memory: short rollouts, one gradient step each."""

    asked: Asked
    memory: MemorySpec = field(default_factory=MemorySpec)
    critic: CriticSpec = field(default_factory=CriticSpec)
    config: a2c.Config = field(default_factory=a2c.Config)


@dataclass(frozen=True)
class Reinforce:
    """REINFORCE with memory: whole episodes, a baseline."""

    asked: Asked
    memory: MemorySpec = field(default_factory=MemorySpec)
    critic: CriticSpec = field(default_factory=CriticSpec)
    config: reinforce.Config = field(default_factory=reinforce.Config)


@dataclass(frozen=True)
class R2d2:
    """Q-learning on histories from replay (R2D2); with --memory none, the broken Q(o, a)."""

    asked: Asked
    memory: MemorySpec = field(default_factory=MemorySpec)
    config: r2d2.Config = field(default_factory=r2d2.Config)


@dataclass(frozen=True)
class Sac:
    """Discrete soft actor-critic with memory, from replay."""

    asked: Asked
    memory: MemorySpec = field(default_factory=MemorySpec)
    config: sac.Config = field(default_factory=sac.Config)


KINDS: dict[str, tuple[Any, Kind, Callable[..., Any]]] = {
    "ppo": (Ppo, "actor-critic", ppo.train),
    "a2c": (A2c, "actor-critic", a2c.train),
    "reinforce": (Reinforce, "actor-critic", reinforce.train),
    "r2d2": (R2d2, "q", r2d2.train),
    "sac": (Sac, "soft", sac.train),
}
"""flags, what is trained, and how"""


def run(name: str, args: Sequence[str]) -> dict[str, Any]:
    """Parse and train."""
    flags = KINDS[name][0]
    a = parse(flags, args, f"train {name}", flags.__doc__ or "")
    if a.asked.device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {a.asked.device}: expected auto, cpu or cuda")
    if a.asked.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has none that PyTorch can use; expected cpu or auto")
    env, discount = find_environment(a.asked.env, a.config.lanes, a.asked.horizon)
    given = any(arg == "--gamma" or arg.startswith("--gamma=") for arg in args)
    if discount is not None and not given:
        a = replace(a, config=replace(a.config, gamma=discount))
    return train(name, a, env)


def train(name: str, a: Any, env: Any) -> dict[str, Any]:
    """Train one agent; its run folder is complete when this returns."""
    asked: Asked = a.asked
    _, kind, algorithm = KINDS[name]
    out = console(asked.json)
    expect_fresh(asked.out, resume=asked.resume)
    world = distributed.start(asked.device)
    if world.size > 1:
        raise InputError("agents that act while they learn run in one process; expected no torchrun")
    torch.set_num_threads(asked.threads)
    torch.manual_seed(asked.seed)
    spaces = Spaces.of(env)
    critic = getattr(a, "critic", CriticSpec())
    agent = agent_of(kind, a.memory, critic, spaces)
    if asked.dry_run:
        return _plan(name, a, env, agent, algorithm, out)
    write_config(asked.out, {"algorithm": name, "family": "acting", **_flat(a)}, resume=asked.resume)
    session = TrainingRun(asked.out, world, what=name, checkpoint_every=asked.checkpoint_every)
    algorithm(a.config, env, agent, session, asked.seed)
    Saved(agent.cpu(), kind, a.memory, critic, spaces).save(asked.out / "policy")
    result = {
        "algorithm": name,
        "run": str(asked.out),
        "policy": str(asked.out / "policy"),
        "parameters": parameters_of(agent),
        "metrics": _last(asked.out / "metrics.jsonl"),
    }
    from turnwise.evaluation.pages.report import write_report

    result["report"] = str(write_report(asked.out))
    write_json(asked.out / "result.json", result)
    numbers = "  ".join(f"{k} {v:.4g}" for k, v in result["metrics"].items() if k not in ("step", "seconds"))
    out.print(f"{name}: {asked.out}  {numbers}")
    notice(f"next: turnwise evaluate {asked.out}")
    return result


def _plan(name: str, a: Any, env: Any, agent: Any, algorithm: Any, out: Any) -> dict[str, Any]:
    """What would be done, and for how long: a small part is timed."""
    counted = "episodes" if name == "reinforce" else "steps"
    amount = getattr(a.config, counted)
    few = max(1, amount // 50)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        trial = replace(a.config, **{counted: few})
        algorithm(trial, env, agent, TrainingRun(Path(folder), what="timing", quiet=True), a.asked.seed)
        per_one = (time.perf_counter() - began) / few
    plan = {
        "algorithm": name,
        "environment": a.asked.env,
        "parameters": parameters_of(agent),
        counted: amount,
        "estimated_seconds": round(per_one * amount, 1),
    }
    out.print("plan (nothing is written):")
    for key, value in plan.items():
        shown = value if isinstance(value, str) else f"{value:,}"
        out.print(f"  {key.replace('_', ' '):<20}{shown}")
    return plan


def _last(metrics: Path) -> dict[str, float]:
    lines = metrics.read_text(encoding="utf-8").splitlines()
    return json.loads(lines[-1]) if lines else {}


def _flat(a: Any) -> dict[str, Any]:
    """Every flag and its value, but for those that only say how this call behaves."""
    merged = flattened(asdict(a))
    for name in ("resume", "dry_run", "json", "device", "threads"):
        merged.pop(name)
    return {k: str(v) if isinstance(v, Path) else v for k, v in merged.items()}
