"""turnwise train dpo | kto | simpo | orpo: a policy from what people preferred, without a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch

from turnwise.algorithms.feedback import dpo, kto, orpo, simpo
from turnwise.cli.plan import told_plan_of_items
from turnwise.cli.policies import AskedOfPolicy, Opened, closed, opened, session, told_left_out
from turnwise.cli.say import console, notice, parse
from turnwise.data.cards.feedback import feedback_card, feedback_warnings
from turnwise.data.comparisons import feedback_rows
from turnwise.data.feedback import Feedback, Like, Pair, Ranking
from turnwise.data.files.feedback import read_feedback
from turnwise.data.heldout import split_by_prompt
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.judges import judge
from turnwise.models.lm.parts import parameter_count
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.recipes.tasks import gold_of
from turnwise.rollout.replies import expect_room
from turnwise.run.errors import InputError
from turnwise.run.folder import expect_fresh, write_json


@dataclass(frozen=True)
class AskedOfFeedback:
    """What was preferred."""

    feedback: str
    """JSONL or Parquet file of pairs, rankings or likes, a folder, or a datasets name or folder"""
    kind: Literal["pairs", "rankings", "likes"] | None = None
    """of the feedback; none: told from its columns"""
    heldout: float = 0.1
    """share of prompts that are not learnt from, picked by their words"""
    gold: str | None = None
    """built-in task whose truth is recorded and never learnt from: postcards"""


@dataclass(frozen=True)
class Dpo:
    """Direct preference optimisation on pairs or rankings."""

    asked: AskedOfPolicy
    feedback: AskedOfFeedback
    config: dpo.Config = field(default_factory=dpo.Config)


@dataclass(frozen=True)
class Kto:
    """Kahneman-Tversky optimisation on likes and dislikes; a pair counts as one of each."""

    asked: AskedOfPolicy
    feedback: AskedOfFeedback
    config: kto.Config = field(default_factory=kto.Config)


@dataclass(frozen=True)
class Simpo:
    """Preference optimisation without a reference, by the mean log-probability per token."""

    asked: AskedOfPolicy
    feedback: AskedOfFeedback
    config: simpo.Config = field(default_factory=simpo.Config)


@dataclass(frozen=True)
class Orpo:
    """Cloning of what was chosen with an odds-ratio term, without a reference."""

    asked: AskedOfPolicy
    feedback: AskedOfFeedback
    config: orpo.Config = field(default_factory=orpo.Config)


NOISY = ("conservative", "robust")
ALGORITHMS: dict[str, Any] = {"dpo": dpo, "kto": kto, "simpo": simpo, "orpo": orpo}
NO_PROBABILITY = ("members", "log_loss", "calibration", "by_margin")
"""of a reward model, whose differences are log-odds"""
KINDS = {"dpo": Dpo, "kto": Kto, "simpo": Simpo, "orpo": Orpo}


def run(name: str, args: Sequence[str]) -> dict[str, Any]:
    """Parse and train."""
    kind = KINDS[name]
    a: Any = parse(kind, args, f"train {name}", kind.__doc__ or "")
    if name == "dpo" and a.config.formula == "ipo" and not a.config.beta:
        raise InputError("--beta 0: expected a number above 0 for --formula ipo, whose gap is 1 / (2 beta)")
    if name == "dpo" and a.config.noise != dpo.Config.noise and a.config.formula not in NOISY:
        raise InputError(
            f"--noise {a.config.noise} with --formula {a.config.formula}: expected --formula conservative or "
            "robust, which alone take it"
        )
    expect_fresh(a.asked.out, resume=a.asked.resume)
    brought = read_feedback(a.feedback.feedback, a.feedback.kind)
    items = usable(name, brought, a)
    gold = gold_of(a.feedback.gold, {item.prompt for item in items})
    card = {"file": a.feedback.feedback, **feedback_card(brought)}
    if card["margins"] and card["margins"]["count"]:
        notice(f"mind: {name} does not use the margins of pairs")
    for hint in feedback_warnings(card):
        notice(f"mind: {hint}")
    learnt, held = split_by_prompt(items, a.feedback.heldout)
    if not learnt:
        raise InputError(
            f"--heldout {a.feedback.heldout}: nothing is left to learn from; expected a smaller share"
        )
    if a.feedback.heldout and not held:
        notice(f"mind: --heldout {a.feedback.heldout}: nothing is held out of {len(items):,} items")
    o = opened(a.asked)
    fit = feedback_rows(items, o.chat, o.context)
    told_left_out(len(items) - len(fit), len(items), f"items are longer than the context of {o.context}")
    rows, held_rows = split_by_prompt(fit, a.feedback.heldout)
    learnt, held = ([row.item for row in part] for part in (rows, held_rows))
    if not learnt:
        raise InputError(f"{a.feedback.feedback}: only held-out items fit the context of {o.context}")
    prompts = list(dict.fromkeys(item.prompt for item in held or learnt))
    if gold is not None:
        expect_room(o.policy, o.chat, prompts, a.asked.max_new_tokens)
    train = ALGORITHMS[name]
    if a.asked.dry_run:
        sizes = {"algorithm": name, "learnt": len(learnt), "held_out": len(held)}
        sizes["parameters"] = parameter_count(o.policy.lm)
        return told_plan_of_items(
            console(a.asked.json),
            sizes,
            a.config,
            rows,
            lambda c, few, run: train.train(c, few, [], o.policy, run, a.asked.seed),
        )
    extra = {"learnt": len(learnt), "held_out": len(held)}
    run = session(name, "preferences", a.asked, o, a, brought)
    write_json(a.asked.out / "card.json", card | extra)
    train.train(a.config, rows, held_rows, o.policy, run, a.asked.seed)
    quality = agreement(name, a, o, judged(held, brought)) if held else {}
    write_json(a.asked.out / "quality.json", quality)
    return closed(
        name, a.asked, o, prompts, held_out=bool(held), reward=None, gold=gold, extra=extra, quality=quality
    )


def judged(held: Sequence[Any], brought: Sequence[Feedback]) -> Sequence[Feedback]:
    """What the policy is asked about: the items held out, and of likes that were pairs the pairs."""
    if not isinstance(held[0], Like) or not isinstance(brought[0], Pair):
        return held
    there = {like.id for like in held}
    return [p for p in cast(Sequence[Pair], brought) if set(ids_of(p)) <= there]


def agreement(name: str, a: Any, o: Opened, items: Sequence[Feedback]) -> dict[str, Any]:
    """How well the policy tells apart, by its implicit rewards, what was held out; `before`: of those that
    have no reference, how well it did where it began.
    """
    if not items:
        return {}
    device = o.world.device
    start = o.policy.lm if a.asked.lora_rank else o.before.to(device)
    beside = (Reference(start),) if name in ("dpo", "kto") else ()

    def told(policy: LmPolicy) -> dict[str, Any]:
        @torch.inference_mode()
        def score(rows: Sequence[Tokens]) -> np.ndarray:
            worth = ALGORITHMS[name].implicit_rewards(policy, *beside, rows, a.config, device)
            return worth.double().cpu().numpy()[None]

        return {k: v for k, v in judge(score, items, o.chat).items() if k not in NO_PROBABILITY}

    found = told(o.policy)
    if isinstance(items[0], Like):  # from which h on a reply is liked KTO leaves open
        found = {k: found[k] for k in ("items", "prompts", "auc", "length_correlation")}
    found["criterion"] = "implicit reward" if beside else "log-probability per token"
    return found if beside else found | {"before": told(LmPolicy(o.before.to(device))).get("accuracy")}


def ids_of(pair: Pair) -> tuple[str, str]:
    """Of the like and the dislike that a pair is to KTO."""
    return f"{pair.id}-0", f"{pair.id}-1"


def usable(name: str, items: Sequence[Feedback], a: Any) -> list[Any]:
    """The items in the shape that the algorithm takes. InputError where it takes none such."""
    where, kind = a.feedback.feedback, type(items[0])
    if name == "kto":
        if kind is Like:
            return list(items)
        if kind is Pair:
            pairs = [p for p in cast(Sequence[Pair], items) if not p.tie]
            told_left_out(len(items) - len(pairs), len(items), "pairs are ties: neither reply is liked")
            if not pairs:
                raise InputError(f"{where}: all pairs are ties; expected some with a chosen reply for KTO")
            return [
                Like(p.prompt, t, liked=i == 0, annotator=p.annotator, id=id)
                for p in pairs
                for i, (t, id) in enumerate(zip(p.replies, ids_of(p), strict=True))
            ]
        found = f"{kind.__name__.lower()}s"
        raise InputError(
            f"{where}: expected likes (prompt, completion, label) or pairs for KTO; found {found}"
        )
    if kind is Pair:
        return list(items)
    if kind is Ranking and name == "dpo":
        if a.config.formula != "ranking":
            raise InputError(f"{where}: holds rankings; expected --formula ranking for them")
        return list(items)
    expected = "pairs or rankings" if name == "dpo" else "pairs"
    raise InputError(f"{where}: expected {expected} for {name.upper()}; found {kind.__name__.lower()}s")
