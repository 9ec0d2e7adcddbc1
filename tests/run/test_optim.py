from __future__ import annotations

import torch
from torch import nn

from turnwise.run.optim import adamw
from turnwise.run.settings import AdamW


def test_only_matrices_decay() -> None:
    """With no gradient a step multiplies what decays by 1 - lr * weight_decay and leaves the rest alone."""
    net = nn.ModuleDict({"embed": nn.Embedding(4, 3), "norm": nn.LayerNorm(3), "out": nn.Linear(3, 2)})
    before = {k: v.clone() for k, v in net.named_parameters()}
    optimizer = adamw(net, AdamW(lr=0.1, weight_decay=0.5))
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in net.named_parameters():
        factor = 0.95 if name == "out.weight" else 1.0
        torch.testing.assert_close(p, factor * before[name])


def test_what_does_not_learn_is_left_out() -> None:
    net = nn.Linear(3, 2)
    net.bias.requires_grad_(False)
    held = [p for g in adamw(net, AdamW(0.1, weight_decay=0.5)).param_groups for p in g["params"]]
    assert len(held) == 1 and held[0] is net.weight
