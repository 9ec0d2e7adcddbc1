"""What numbers the flags take: one table for all verbs, checked before anything is read or written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from turnwise.run.errors import InputError

Check = tuple[str, Callable[[float], bool]]

POSITIVE: Check = ("a number above 0", lambda x: x > 0)
NOT_NEGATIVE: Check = ("0 or more", lambda x: x >= 0)
SHARE: Check = ("a number from 0 to 1", lambda x: 0 <= x <= 1)
PART: Check = ("a number above 0 and at most 1", lambda x: 0 < x <= 1)
INSIDE: Check = ("a number between 0 and 1", lambda x: 0 < x < 1)
SOME: Check = ("1 or more", lambda x: x >= 1)
TWO: Check = ("2 or more", lambda x: x >= 2)
SEED: Check = ("a whole number from 0 to 2^63 - 1", lambda x: 0 <= x < 2**63)
ANY: Check = ("a finite number", lambda x: True)

RANGES: dict[str, Check] = {
    "adv_clip": NOT_NEGATIVE,
    "anneal": SHARE,
    "batch_size": SOME,
    "beta": NOT_NEGATIVE,
    "betas": NOT_NEGATIVE,
    "checkpoint_every": SOME,
    "context": TWO,
    "capacity": SOME,
    "clip": POSITIVE,
    "clip_high": POSITIVE,
    "clip_reward": POSITIVE,
    "conversations": SOME,
    "cql_weight": NOT_NEGATIVE,
    "episodes": TWO,
    "deadline": POSITIVE,
    "entropy": SHARE,
    "entropy_end": NOT_NEGATIVE,
    "entropy_weight": NOT_NEGATIVE,
    "epochs": POSITIVE,
    "evaluation_replies": SOME,
    "epsilon": SHARE,
    "epsilon_end": SHARE,
    "gamma": SHARE,
    "gamma_within_turn": SHARE,
    "grad_clip": POSITIVE,
    "group": SOME,
    "heads": SOME,
    "heldout": ("a number from 0 to below 1", lambda x: 0 <= x < 1),
    "keep_top": PART,
    "kl_target": POSITIVE,
    "lam": SHARE,
    "lanes": SOME,
    "layers": SOME,
    "lookahead": SHARE,
    "lora_rank": NOT_NEGATIVE,
    "lr": POSITIVE,
    "max_new_tokens": SOME,
    "minibatches": SOME,
    "n": SOME,
    "noise": ("a number from 0 to below 0.5", lambda x: 0 <= x < 0.5),
    "partner_weight": NOT_NEGATIVE,
    "polyak": PART,
    "prompts_per_step": SOME,
    "proposals": SOME,
    "rollout": SOME,
    "seed": SEED,
    "simulate": ("0, or 2 to 1,000,000", lambda x: x == 0 or 2 <= x <= 1e6),
    "starts": SOME,
    "steps": SOME,
    "target_gap": NOT_NEGATIVE,
    "tau": INSIDE,
    "tau_within_turn": INSIDE,
    "temperature": NOT_NEGATIVE,
    "threads": SOME,
    "top_k": SOME,
    "updates": SOME,
    "validation_episodes": TWO,
    "value_clip": POSITIVE,
    "value_weight": NOT_NEGATIVE,
    "visit_discount": SHARE,
    "warmup": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "width": SOME,
    "window": SOME,
    "workers": SOME,
}


def expect_in_range(asked: Any) -> None:
    """InputError for the first flag of a dataclass, nested ones included, whose number it does not take."""
    for f in fields(asked):
        value = getattr(asked, f.name)
        if is_dataclass(value):
            expect_in_range(value)
        for x in value if isinstance(value, tuple) else (value,):
            if isinstance(x, bool) or not isinstance(x, int | float):
                continue
            expected, fits = RANGES.get(f.name, ANY)
            if not (math.isfinite(x) and fits(x)):
                raise InputError(f"--{f.name.replace('_', '-')} {x}: expected {expected}")
