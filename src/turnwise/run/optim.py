"""Optimizers, and the learning-rate schedule of language-model algorithms."""

from __future__ import annotations

import torch
from torch import nn


def adamw(module: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW over the parameters that learn (Loshchilov & Hutter 2017, arXiv:1711.05101).

    Only matrices decay. Gains, biases (a head's bias is the mean return) and embeddings, whose rows are each
    learnt from few tokens, do not.
    """
    whole = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    learning = [p for p in module.parameters() if p.requires_grad]
    decays = [p.ndim > 1 and id(p) not in whole for p in learning]
    groups = [
        {"params": [p for p, d in zip(learning, decays, strict=True) if d], "weight_decay": weight_decay},
        {"params": [p for p, d in zip(learning, decays, strict=True) if not d], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99))


def adam(module: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2014, arXiv:1412.6980) for agents that learn from their own acting.

    Its epsilon is 1e-5: gradients of policies nearly vanish at times, and must not be blown up then. Fused:
    small agents have many small weights, and a step over them one by one costs as much as a backward pass.
    """
    learning = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.Adam(learning, lr=lr, eps=1e-5, fused=True)


def warmup_linear(step: int, total: int, warmup: int, floor: float = 0.05) -> float:
    """Factor on the learning rate: rises over `warmup` steps, falls linearly to `floor` at `total`."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    return rise * max(floor, 1 - step / total)


def descend(
    module: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor, *, lr: float, grad_clip: float
) -> None:
    """One gradient step at learning rate `lr`, the global gradient norm clipped to `grad_clip`."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), grad_clip)
    optimizer.step()
