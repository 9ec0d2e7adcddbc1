"""Slow copies of networks, for bootstrap targets that do not chase themselves."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def copy_of_what_learns(module: M) -> M:
    """A copy that shares with the module what does not learn: the weights under adapters, tables.

    A pretrained trunk is there once, however many copies of its adapters there are.
    """
    shared: dict[int, Any] = {id(p): p for p in module.parameters() if not p.requires_grad}
    for m in module.modules():
        shared |= {id(b): b for n, b in m._buffers.items() if n in m._non_persistent_buffers_set}
    return copy.deepcopy(module, shared)


def slow_copy(module: M) -> M:
    """A copy without gradients, to be moved by `polyak_` only; what does not learn is the module's."""
    return copy_of_what_learns(module).requires_grad_(False)


@torch.no_grad()
def polyak_(target: nn.Module, source: nn.Module, rate: float) -> None:
    """target <- (1 - rate) target + rate source, parameter by parameter; `rate` per call, 1 is a copy.

    Of modules that are split over processes, each moves its own part: both must be split alike.
    """
    pairs = zip(target.parameters(), source.parameters(), strict=True)
    moved = [(t, s) for t, s in pairs if t is not s]  # what both share does not move
    targets: list[Tensor] = [t for t, _ in moved]
    sources: list[Tensor] = [s for _, s in moved]
    torch._foreach_lerp_(targets, sources, rate)  # pyright: ignore[reportPrivateImportUsage]
