"""What the verbs that train a policy on replies share: opening the policy, measuring it, closing the run."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from turnwise.cli.say import console, notice
from turnwise.data.chat import ChatFormat
from turnwise.data.feedback import Prompt
from turnwise.evaluation.measures.replies import measure_replies, paired_gains
from turnwise.evaluation.pages.report import write_report
from turnwise.models.lm.lora import merged, with_lora
from turnwise.models.lm.parts import context_of, parameter_count
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.rollout.agent import Acting, Agent, load_agent
from turnwise.rollout.rewards import Reward
from turnwise.run import distributed
from turnwise.run.distributed import World
from turnwise.run.errors import InputError
from turnwise.run.folder import digest, expect_fresh, write_config, write_json
from turnwise.run.settings import flattened
from turnwise.run.training import TrainingRun

SILENT = ("resume", "dry_run", "json", "device", "threads")
"""flags that only say how a call behaves"""


@dataclass(frozen=True)
class AskedOfPolicy:
    """Which policy learns, and where its run is written."""

    policy: str
    """run folder of a cloned policy (turnwise train bc), or any causal LM by folder or name"""
    out: Path
    """run folder to write"""
    seed: int = 0
    """of the order of the data and of what is sampled"""
    lora_rank: int = 0
    """train low-rank adapters of this rank instead of all weights; the base is the reference then"""
    max_new_tokens: int = 64
    """longest reply, in tokens"""
    evaluation_replies: int = 4
    """replies to each held-out prompt when the trained policy is measured"""
    resume: bool = False
    """go on from the checkpoint in the run folder"""
    dry_run: bool = False
    """print the plan with sizes and estimated time, and stop"""
    json: bool = False
    """print one result object on stdout"""
    device: str = "auto"
    """cpu, cuda, or auto"""
    threads: int = 1
    """CPU threads; more helps only while nothing else runs"""
    checkpoint_every: int = 50
    """steps between checkpoints"""


@dataclass(frozen=True)
class Opened:
    """A policy ready to learn."""

    policy: LmPolicy
    chat: ChatFormat
    tokenizer: Any
    context: int
    world: World
    before: Any = field(repr=False)
    """the language model as it was, for comparing"""


def opened(a: AskedOfPolicy) -> Opened:
    """Load the policy and set the machine up. InputError for a run that has a critic."""
    if a.device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {a.device}: expected auto, cpu or cuda")
    if a.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has none that PyTorch can use; expected cpu or auto")
    expect_fresh(a.out, resume=a.resume)
    agent = load_agent(a.policy)
    if agent.critic is not None:
        raise InputError(
            f"--policy {a.policy}: this run has a critic; expected the run of a policy (turnwise train bc)"
        )
    world = distributed.start(a.device, "ddp")
    if world.size > 1:
        raise InputError(f"{world.size} processes: replies are learnt from by one; expected no torchrun")
    if world.device.type == "cpu":
        torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    before = copy.deepcopy(agent.lm)
    lm = with_lora(agent.lm, a.lora_rank) if a.lora_rank else agent.lm
    return Opened(LmPolicy(lm), agent.chat, agent.tokenizer, context_of(before), world, before)


def session(
    algorithm: str, family: str, a: AskedOfPolicy, o: Opened, settings: Any, data: Iterable[Any]
) -> TrainingRun:
    """The run folder, with what was asked and a hash of the data."""
    asked = {"algorithm": algorithm, "family": family, "data": digest(data)} | {
        k: str(v) if isinstance(v, Path) else v
        for k, v in flattened(asdict(settings)).items()
        if k not in SILENT
    }
    write_config(a.out, asked, resume=a.resume)
    return TrainingRun(a.out, o.world, what=algorithm, checkpoint_every=a.checkpoint_every, log_every=5)


def closed(
    algorithm: str,
    a: AskedOfPolicy,
    o: Opened,
    prompts: Sequence[Prompt],
    *,
    held_out: bool,
    reward: Reward | None,
    gold: Reward | None,
    extra: Mapping[str, Any],
    columns: Sequence[Mapping[str, Any]] | None = None,
    quality: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Save the policy, measure it and where it began on `prompts`, write the page.

    `quality`: how well it tells apart held-out feedback.
    """
    distributed.stop()
    lm = merged(o.policy.lm)
    Agent(lm, o.tokenizer, None, Acting(max_new_tokens=a.max_new_tokens)).save(a.out / "policy")
    o.before.to(next(lm.parameters()).device)
    reference = Reference(o.before)
    judge = reward or gold
    measured: dict[str, Any] = {}
    for name, model in (("before", o.before), ("after", lm)):
        if judge is None or not prompts:
            continue
        measured[name] = measure_replies(
            LmPolicy(model),
            o.chat,
            prompts,
            group=a.evaluation_replies,
            seed=a.seed + 1_000_003,
            max_new_tokens=a.max_new_tokens,
            reward=judge,
            gold=gold,
            reference=reference,
            columns=columns,
        )
        if reward is None:  # gold stood in for it
            del measured[name]["reward"], measured[name]["by_prompt"]["reward"]
    if measured:
        measured["gained"] = paired_gains(measured["before"], measured["after"])
        for name in ("before", "after"):
            del measured[name]["by_prompt"]
        measured["held_out"] = len(prompts) if held_out else 0
        write_json(a.out / "replies.json", measured)
    result = {
        "algorithm": algorithm,
        "run": str(a.out),
        "policy": str(a.out / "policy"),
        "parameters": parameter_count(lm),
        **extra,
        **({} if quality is None else {"quality": {k: v for k, v in quality.items() if k != "worst"}}),
        "metrics": last_metrics(a.out),
        "measured": {
            name: {k: v for k, v in measured[name].items() if k != "examples"}
            for name in ("before", "after", "gained")
            if name in measured
        },
        "report": str(write_report(a.out)),
    }
    write_json(a.out / "result.json", result)
    out = console(a.json)
    for name, m in result["measured"].items():
        told = [f"{key} {interval(m[key])}" for key in ("reward", "gold") if key in m]
        if name != "gained":
            told.append(f"KL {m['kl']:.2f} nats a reply, {m['length']:.1f} tokens")
        out.print(f"{name:>7}: {'  '.join(told)}")
    both = [measured[name] for name in ("before", "after") if name in measured]
    constant = {m["reward"][k] for m in both if "reward" in m for k in ("low", "high")}
    if len(constant) == 1 and None not in constant:
        out.print("mind: the reward was the same for every prompt; there was nothing to learn from it")
    last = result["metrics"]
    loss = f"  heldout/loss {last['heldout/loss']:.3f}" if "heldout/loss" in last else ""
    out.print(f"{algorithm}: {a.out}{in_words(quality or {})}{loss}  report {result['report']}")
    return result


def told_left_out(count: int, of: int, why: str) -> None:
    """How much of what was brought is not used."""
    if count:
        notice(f"mind: {count:,} of {of:,} {why}; left out")


def in_words(quality: Mapping[str, Any]) -> str:
    """What was measured on held-out items, for people."""
    told = ""
    if "accuracy" in quality:
        told += f"  held-out accuracy {quality['accuracy']:.1%}{_ends(quality, '.1%')}"
    elif quality.get("auc"):
        told += f"  held-out AUC {quality['auc']['mean']:.1%}{_ends(quality['auc'], '.1%')}"
    if quality.get("tau") is not None:
        told += f"  tau {quality['tau']:.3f}"
    if "rmse" in quality:
        told += f"  held-out RMSE {quality['rmse']:.3f}{_ends(quality, '.3f')}"
        told += f"  R2 {quality['r2']:.3f}" if quality["r2"] is not None else ""
    return told


def _ends(found: Mapping[str, Any], form: str) -> str:
    return f" ({found['low']:{form}} to {found['high']:{form}}, 95%)" if found.get("low") is not None else ""


def interval(found: Mapping[str, Any]) -> str:
    """mean (low to high), the mean alone where nothing is known of its spread"""
    if found["low"] is None:
        return f"{found['mean']:.3f}"
    return f"{found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def last_metrics(folder: Path) -> dict[str, float]:
    """The last line of metrics.jsonl."""
    file = folder / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return json.loads(lines[-1]) if lines else {}
