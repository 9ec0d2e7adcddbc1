"""turnwise train reward: a reward model from what people said of replies."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from turnwise.algorithms.feedback import reward
from turnwise.cli.plan import told_plan_of_items
from turnwise.cli.policies import SILENT, in_words, last_metrics, told_left_out
from turnwise.cli.say import console, notice, parse
from turnwise.cli.train import AskedOfBc
from turnwise.data.cards.feedback import feedback_card, feedback_warnings
from turnwise.data.chat import ChatFormat
from turnwise.data.comparisons import feedback_rows
from turnwise.data.feedback import Feedback, Score
from turnwise.data.files.feedback import read_feedback
from turnwise.data.heldout import split_by_prompt
from turnwise.evaluation.measures.judges import judge
from turnwise.evaluation.pages.report import write_report
from turnwise.models.lm.classifier import adapted_trunks
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.parts import context_of, parameter_count, trunk_of, width_of
from turnwise.models.lm.pretrained import load_lm
from turnwise.models.lm.reward_model import RewardEnsemble, RewardModel
from turnwise.rollout.reward_scorer import RewardScorer
from turnwise.run import distributed
from turnwise.run.errors import InputError
from turnwise.run.folder import digest, expect_fresh, write_config, write_json
from turnwise.run.settings import flattened
from turnwise.run.training import TrainingRun


@dataclass(frozen=True)
class Asked:
    """What the reward model is asked."""

    feedback: str
    """JSONL or Parquet file of pairs, rankings, likes or scores, a folder, or a datasets name or folder"""
    out: Path
    """run folder to write"""
    kind: Literal["pairs", "rankings", "likes", "scores"] | None = None
    """of the feedback; none: told from its columns"""
    seed: int = 0
    """of fresh weights and of the order of the data"""
    heldout: float = 0.1
    """share of prompts that are not learnt from, picked by their words"""
    ensemble: int = 1
    """members, whose disagreement tells where not to trust them"""
    apart: Literal["heads", "trunks"] = "heads"
    """what members have for themselves: a head, or all that learns (a trunk; adapters under --lora-rank)"""
    lora_rank: int = 0
    """train low-rank adapters of this rank instead of all weights; 0 trains all"""
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
    checkpoint_every: int = 100
    """steps between checkpoints"""


@dataclass(frozen=True)
class Reward:
    """A reward model from pairs, rankings, likes or scores."""

    asked: Asked
    model: AskedOfBc = field(default_factory=AskedOfBc)
    config: reward.Config = field(default_factory=reward.Config)


def run(name: str, args: Sequence[str]) -> dict[str, Any]:
    """Parse and train."""
    a = parse(Reward, args, f"train {name}", Reward.__doc__ or "")
    asked = a.asked
    out = console(asked.json)
    expect_possible(a)
    expect_fresh(asked.out, resume=asked.resume)
    items = read_feedback(asked.feedback, asked.kind)
    learnt, held = split_by_prompt(items, asked.heldout)
    if not learnt:
        raise InputError(
            f"--heldout {asked.heldout}: nothing is left to learn from; expected a smaller share"
        )
    if asked.heldout and not held:
        notice(f"mind: --heldout {asked.heldout}: nothing is held out of {len(items):,} items")
    world = distributed.start(asked.device, "ddp")
    if world.size > 1:
        raise InputError("reward models learn in one process; expected no torchrun")
    if world.device.type == "cpu":
        torch.set_num_threads(asked.threads)
    torch.manual_seed(asked.seed)
    scorer, context = fresh_or_loaded(a, learnt)
    fit = feedback_rows(items, scorer.chat, context)
    told_left_out(len(items) - len(fit), len(items), f"items are longer than the context of {context}")
    rows, held_rows = split_by_prompt(fit, asked.heldout)
    learnt, held = ([row.item for row in part] for part in (rows, held_rows))
    if not learnt:
        raise InputError(f"{asked.feedback}: only held-out items fit the context of {context}")
    if asked.dry_run:
        return told_plan_of_items(
            out,
            {
                "algorithm": "reward",
                "learnt": len(learnt),
                "held_out": len(held),
                "parameters": parameter_count(scorer.model),
            },
            a.config,
            rows,
            lambda c, few, run: reward.train(c, few, [], scorer.model, run, asked.seed),
        )
    card = {"file": asked.feedback, **feedback_card(items), "learnt": len(learnt), "held_out": len(held)}
    told = {"algorithm": "reward", "family": "reward", "data": digest(items), **settings(a)}
    write_config(asked.out, told, resume=asked.resume)
    write_json(asked.out / "card.json", card)
    for hint in [*feedback_warnings(card), *far_from_standard(learnt)]:
        notice(f"mind: {hint}")
    session = TrainingRun(asked.out, world, what="reward", checkpoint_every=asked.checkpoint_every)
    reward.train(a.config, rows, held_rows, scorer.model, session, asked.seed)
    distributed.stop()
    scorer.save(asked.out / "reward")
    quality = judge(scorer.score, held, scorer.chat) if held else {}
    write_json(asked.out / "quality.json", quality)
    result = {
        "algorithm": "reward",
        "run": str(asked.out),
        "reward": str(asked.out / "reward"),
        "parameters": parameter_count(scorer.model),
        "learnt": len(learnt),
        "held_out": len(held),
        "quality": {k: v for k, v in quality.items() if k != "worst"},
        "metrics": last_metrics(asked.out),
        "report": str(write_report(asked.out)),
    }
    write_json(asked.out / "result.json", result)
    out.print(f"reward: {asked.out}{in_words(quality)}  report {result['report']}")
    return result


def settings(a: Reward) -> dict[str, Any]:
    """Every flag and its value, but for those that only say how this call behaves."""
    told = asdict(a) | {"model": a.model.told()}
    flat = {k: v for k, v in flattened(told).items() if k not in SILENT}
    return {k: str(v) if isinstance(v, Path) else v for k, v in flat.items()}


def expect_possible(a: Reward) -> None:
    """Refuse what cannot work before anything is read or written."""
    asked, m = a.asked, a.model
    if asked.device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {asked.device}: expected auto, cpu or cuda")
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has none that PyTorch can use; expected cpu or auto")
    if a.config.centring < 0:
        raise InputError(f"--centring {a.config.centring}: expected 0 or more")
    if asked.ensemble < 1:
        raise InputError(f"--ensemble {asked.ensemble}: expected 1 member or more")
    if asked.lora_rank and m.model is None:
        raise InputError(
            "--lora-rank: adapters of fresh weights would learn nothing; expected --model as well"
        )
    for name, value in vars(AskedOfBc(model=m.model)).items():
        if m.model is not None and getattr(m, name) != value:
            raise InputError(
                f"--{name} {getattr(m, name)}: that is for a fresh model, and --model {m.model} brings its "
                "own; expected one of the two"
            )


def far_from_standard(items: Sequence[Feedback]) -> list[str]:
    """A hint where scores are far from what a head without a constant begins with."""
    scores = np.array([x.score for x in items if isinstance(x, Score)])
    if not len(scores) or (abs(scores.mean()) <= 3 and 0.1 <= scores.std() <= 10):
        return []
    return [
        f"scores have mean {scores.mean():.3g} and deviation {scores.std():.3g}; rewards begin at 0 and "
        "learn slowly to be large: scale scores to mean 0 and deviation 1"
    ]


def fresh_or_loaded(a: Reward, learnt: Sequence[Feedback]) -> tuple[RewardScorer, int]:
    """A reward model on the trunks asked for, and its context."""
    m, asked = a.model, a.asked
    trunks = asked.ensemble if asked.apart == "trunks" else 1
    if m.model is None:
        texts = [x.content for item in learnt for x in item.prompt]
        texts += [t for item in learnt for t in item.replies]
        tokenizer = train_tokenizer(texts, m.vocab, m.context)
        lms = [fresh(m, tokenizer) for _ in range(trunks)]
    else:
        start = Path(m.model) / "policy"
        lm, tokenizer = load_lm(str(start if start.is_dir() else m.model))
        lms = [lm] * trunks if asked.lora_rank else [lm, *(copy.deepcopy(lm) for _ in range(trunks - 1))]
    context, width = context_of(lms[0]), width_of(lms[0])
    bases = adapted_trunks(lms[0], asked.lora_rank, trunks) if asked.lora_rank else map(trunk_of, lms)
    models = [RewardModel(base, width, ensemble=asked.ensemble // trunks) for base in bases]
    return RewardScorer(models[0] if trunks == 1 else RewardEnsemble(models), tokenizer), context


def fresh(m: AskedOfBc, tokenizer: Any) -> Any:
    """A small Llama with weights of its own."""
    return llama(
        len(tokenizer),
        width=m.width,
        layers=m.layers,
        heads=m.heads,
        context=m.context,
        eos=ChatFormat(tokenizer).stop,
        pad=tokenizer.pad_token_id,
    )
