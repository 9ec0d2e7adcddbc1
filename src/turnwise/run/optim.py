"""Optimizers, and the schedules of their learning rates."""

from __future__ import annotations

import math

import torch
from torch import nn

from turnwise.run.settings import Adam, AdamW


def optimizer_of(module: nn.Module, settings: AdamW | Adam) -> torch.optim.Optimizer:
    """The optimizer whose settings these are."""
    return adamw(module, settings) if isinstance(settings, AdamW) else adam(module, settings)


def adamw(module: nn.Module, settings: AdamW) -> torch.optim.Optimizer:
    """AdamW over the parameters that learn (Loshchilov & Hutter 2017, arXiv:1711.05101).

    Only matrices decay. Gains, biases (a head's bias is the mean return) and embeddings, whose rows are each
    learnt from few tokens, do not.
    """
    whole = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    learning = [p for p in module.parameters() if p.requires_grad]
    decays = [p.ndim > 1 and id(p) not in whole for p in learning]
    groups = [
        {
            "params": [p for p, d in zip(learning, decays, strict=True) if d],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p, d in zip(learning, decays, strict=True) if not d], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.99))


def adam(module: nn.Module, settings: Adam) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2014, arXiv:1412.6980) for agents that learn from their own acting.

    Its epsilon is 1e-5: gradients of policies nearly vanish at times, and must not be blown up then. Fused:
    small agents have many small weights, and a step over them one by one costs as much as a backward pass.
    """
    learning = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.Adam(learning, lr=settings.lr, eps=1e-5, fused=True)


LOWEST = 0.05
"""share of the learning rate that is never fallen below"""


def warmed_up(settings: AdamW, step: int, total: int) -> float:
    """Learning rate of a step: it rises over a share `warmup` of all steps, and then follows the schedule.

    Rise and fall multiply, so that the peak is a little below the learning rate if the rise takes long.
    """
    # A share and not a number of steps: a number that suits long runs swallows all of a short one.
    rise = min(1.0, (step + 1) / max(1.0, settings.warmup * total))
    return rise * scheduled(settings, 1 - step / total)


def scheduled(settings: AdamW | Adam, remaining: float) -> float:
    """Learning rate by the schedule alone; `remaining` is the share of training still to come.

    linear: it falls linearly to a twentieth. cosine: it falls to a twentieth along half a cosine (Loshchilov
    & Hutter 2016, arXiv:1608.03983, eq. 5, without restarts).
    """
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "cosine":
        return settings.lr * (LOWEST + (1 - LOWEST) * (1 - math.cos(math.pi * remaining)) / 2)
    return settings.lr * max(LOWEST, remaining)


def rate_in_words(settings: AdamW | Adam, step: int, total: int) -> str:
    """The learning rate with which a run goes on at `step`, for people."""
    rising = isinstance(settings, AdamW)
    rate = warmed_up(settings, step, total) if rising else scheduled(settings, 1 - step / total)
    if settings.schedule == "constant":
        return f"the learning rate is {rate:.3g}"
    return f"the learning rate is {rate:.3g} there, as in a run of {total} steps from the start, and falls"


def annealed(start: float, end: float, remaining: float) -> float:
    """A number that goes linearly from `start` to `end`; `remaining` is the share of training still to
    come."""
    return end + (start - end) * remaining
