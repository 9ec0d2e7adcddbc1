"""Slow copies of networks, for bootstrap targets that do not chase themselves."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def slow_copy(module: M) -> M:
    """A copy without gradients, to be moved by `polyak_` only."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def polyak_(target: nn.Module, source: nn.Module, rate: float) -> None:
    """target <- (1 - rate) target + rate source, parameter by parameter; `rate` per call, 1 is a copy.

    Of modules that are split over processes, each moves its own part: both must be split alike.
    """
    pairs = tuple(target.parameters()), tuple(source.parameters())
    torch._foreach_lerp_(*pairs, rate)  # pyright: ignore[reportPrivateImportUsage]
