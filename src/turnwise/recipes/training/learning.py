"""A language model made ready to learn: precision, adapters, layers formed again; and the memory it takes."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from turnwise.models import chunks
from turnwise.models.lm.encoder_decoder.trunk import is_encoder_decoder
from turnwise.models.lm.learning.adapted import bytes_kept
from turnwise.models.lm.learning.packing import pack_rows_
from turnwise.models.lm.learning.recompute import recompute_layers_
from turnwise.models.lm.learning.saved import saved_by
from turnwise.models.lm.lora import Adapter, adapter_of, dropouts_of, with_lora
from turnwise.models.lm.parts import trunk_of
from turnwise.models.room import memory
from turnwise.models.target import copy_of_what_learns
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.settings.learning import Learning
from turnwise.run.distributed import World
from turnwise.run.errors import SettingError
from turnwise.run.learner import WHILE_LEARNING
from turnwise.run.metrics import MOVING_TARGET
from turnwise.run.passes import Passes

ACTIVATIONS = 4 * 2**30
"""bytes of activations up to which rows go through a model together, unless a micro-batch is set"""
_KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def expect_arithmetic(learning: Learning, device: torch.device) -> None:
    """SettingError for a precision that this machine computes in by emulation, or not at all."""
    for name in ("dtype", "autocast"):
        value = getattr(learning, name)
        if value == "bfloat16" and not has_bfloat16(device):
            what = "GPU" if device.type == "cuda" else "processor"
            standard = "float32" if name == "dtype" else "none"
            raise SettingError(name, value, f"{standard}: this {what} has no arithmetic in bfloat16")


def expect_criterion(learning: Learning, algorithm: Algorithm, heldout: int) -> None:
    """SettingError for a choice by the held-out loss where there is none that means anything."""
    for name, default in (("keep", "last"), ("patience", None)):
        value = getattr(learning, name)
        if value != default and not heldout:
            raise SettingError(name, value, f"{default or 'nothing'}: no rows are held out to go by")
        if value != default and criterion_of(algorithm) is None:
            expected = (
                f"{default or 'nothing'}: no loss of {algorithm.title} on held-out rows says how good it is"
            )
            raise SettingError(name, value, expected)


def criterion_of(algorithm: Algorithm) -> str | None:
    """The held-out loss to go by: the first one that is no distance to a target which moves itself."""
    losses = {k: x for k, x in algorithm.module.METRICS.items() if x.loss}
    moving = any(x.about == MOVING_TARGET for x in losses.values())
    return None if moving else next(iter(losses), None)


def has_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are the machine's own: they can be emulated, slowly, anywhere."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "amx_tile", "arm_bf16"))


def autocast(learning: Learning) -> torch.dtype | None:
    """In what matrix products are computed; None: in the precision of the weights."""
    return None if learning.autocast == "none" else _KINDS[learning.autocast]


def ready(lm: Any, learning: Learning) -> Any:
    """The model as it learns, in place: weights in their precision, adapters put on, layers formed again."""
    lm = lm.to(_KINDS[learning.dtype])
    if learning.lora_rank:
        lm = with_lora(
            lm,
            learning.lora_rank,
            alpha=learning.lora_alpha,
            dropout=learning.lora_dropout,
            targets=learning.lora_targets,
        )
        for module in dropouts_of(lm):
            setattr(module, WHILE_LEARNING, True)
    if learning.pack_rows:
        if is_encoder_decoder(lm):
            raise SettingError("pack_rows", True, "False: the rows of an encoder-decoder have two parts each")
        pack_rows_(trunk_of(lm))
    if learning.gradient_checkpointing:
        recompute_layers_(trunk_of(lm))
    return lm


def ready_beside(lm: Any, learning: Learning) -> Any:
    """The same of a copy. What lies under adapters does not change, and is there once, beside the model."""
    lm.requires_grad_(False)
    if learning.lora_rank and learning.dtype == "float32":
        return ready(copy_of_what_learns(lm), learning)
    return ready(copy.deepcopy(lm).requires_grad_(), learning)


def kept_adapter(lm: Any, learning: Learning, base: str | None) -> Adapter | None:
    """What is saved in place of the whole model, where adapters are kept."""
    adapter = adapter_of(lm) if learning.adapters == "kept" else None
    return None if adapter is None or base is None else adapter.based_on(base)


@dataclass(frozen=True)
class Memory:
    """What training is going to take, in bytes, by what takes it."""

    weights: int
    copies: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    allocator: int = 0
    """holes between blocks, which the C library keeps"""

    @property
    def total(self) -> int:
        """All of it, beside the program itself."""
        return sum(vars(self).values())


@dataclass(frozen=True)
class How:
    """How rows go through what learns, and what that takes."""

    passes: Passes
    memory: Memory
    rows: int
    """rows of the largest part of a batch, at most"""
    learning: Learning

    def of_run(self, criterion: str | None) -> dict[str, Any]:
        """Fields of a `TrainingRun`; `criterion`: the held-out loss to go by."""
        return {
            "through": self.passes,
            "lower": lower(self.learning, self.rows),
            "keep": self.learning.keep,
            "patience": self.learning.patience,
            "heldout_every": self.learning.heldout_every,
            "criterion": criterion,
        }

    def facts(self) -> dict[str, str | int]:
        """Entries of a plan."""
        parts = ", ".join(f"{name} {gib(n)}" for name, n in vars(self.memory).items() if n > 2**20)
        advice = {} if (text := self.advice()) is None else {"to lower memory": text}
        needed = gib(self.memory.total) + (f" ({parts})" if parts else "")
        return {"memory": needed, "rows at a time": self.rows, **advice}

    def advice(self) -> str | None:
        """What to change if the machine has less; None if it has enough."""
        here = memory()
        if here is None or self.memory.total < here:
            return None
        return f"this machine has {gib(here)}; {lower(self.learning, self.rows)}"


def lower(learning: Learning, rows: int | None) -> str:
    """What takes less memory, in the words of settings."""
    found = []
    if rows is None or rows > 1:
        found.append(f"a smaller micro_batch ({rows} rows are read at a time)" if rows else "a micro_batch")
    if not learning.gradient_checkpointing:
        found.append("gradient_checkpointing")
    if not learning.lora_rank:
        found.append("adapters (lora_rank 8)")
    if learning.dtype == "float32":
        found.append("weights in bfloat16 (dtype)" if learning.lora_rank else "autocast in bfloat16")
    found.append("a smaller model, or shorter rows")
    return "expected " + ", ".join(found[:-1]) + (" or " if found[:-1] else "") + found[-1]


def gib(n: float) -> str:
    """Bytes for people."""
    return f"{n / 2**30:,.1f} GiB" if n >= 2**29 else f"{n / 2**20:,.0f} MiB"


def settled(
    module: nn.Module,
    trunks: Sequence[Any],
    learning: Learning,
    world: World,
    *,
    rows: int,
    longest: int,
    vocab: int,
    each: int = 1,
    beside: Sequence[nn.Module] = (),
    copies: int = 0,
    also_learns: Sequence[nn.Module] = (),
) -> How:
    """How items of at most `longest` positions go through `module`, `rows` a step, and the memory it takes.

    `trunks` are those whose activations are there at a time; an item is `each` rows (a pair is two). `beside`
    are other modules that are held, `copies` how often what learns is there once more (as a target, as a
    reference), and of each of `also_learns` there will be a copy that learns as a whole.
    """
    precision = autocast(learning)
    found = [saved_by(trunk, precision) for trunk in trunks]

    def activations(positions: int, recompute: bool = learning.gradient_checkpointing) -> float:
        return sum(x.of(positions, recompute) for x in found)

    per_position = each * activations(1000) / 1000
    if learning.micro_batch is None:
        passes = Passes(precision, positions=max(longest, int(ACTIVATIONS / max(1.0, per_position))))
    else:
        passes = Passes(precision, rows=learning.micro_batch)
    share = -(-rows // world.size)
    at_once = min(share, passes.at_once(longest) or share)
    parameters = {id(p): p for x in (module, *beside) for p in x.parameters()}.values()
    learnt = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    more = sum(p.nbytes for x in also_learns for p in x.parameters())
    kept = 0 if precision is None else bytes_kept(module, precision)
    positions = at_once * longest * each
    wide = min(positions * vocab, chunks.MOST) * 4
    on_cpu = next(module.parameters()).device.type == "cpu"
    holes = (HOLES if at_once >= share else HOLES_OF_PARTS) if on_cpu else 0.0
    return How(
        passes,
        Memory(
            weights=sum(p.nbytes for p in parameters) + more + kept,
            copies=copies * learnt,
            gradients=learnt + more,
            optimizer=2 * (learnt + more),
            activations=math.ceil(activations(positions)),
            logits=WIDE * wide,
            # A layer whose activations are let go leaves as many holes as one that keeps them.
            allocator=math.ceil(holes * activations(positions, recompute=False)),
        ),
        at_once,
        learning,
    )


HOLES, HOLES_OF_PARTS = 0.3, 0.9
"""of activations, formed once or twice: what lies unused between blocks in the C library's heap, in steps of
one part and of several, where gradients that stay from part to part split what was freed (measured: .29, and
.90 to .93; .20 to .29 where layers are formed again)"""
WIDE = 3
"""tensors as wide as the vocabulary that exist at a time: logits, their softmax, its gradient"""
