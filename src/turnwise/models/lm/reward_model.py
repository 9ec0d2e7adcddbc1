"""Reward models: a scalar for a whole reply, read where it ends; alone, or several that disagree.

An ensemble is [E, B] rewards of the same rows. Its members have apart, from the cheapest on,

    heads       RewardModel(trunk, width, ensemble=E): one trunk, read once
    adapters    RewardEnsemble of models whose trunks share frozen weights (`models/lm/classifier.py`)
    trunks      RewardEnsemble of models that share nothing

The more they have apart, the more their disagreement says of what was not learnt (Eisenstein et al. 2023,
arXiv:2312.09244: members that share what was pretrained are wrong together).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class RewardModel(nn.Module):
    """E linear heads on one trunk, each a reward r(prompt, reply) read at the reply's last token.

    `trunk` maps ids [B, T] to an output whose `last_hidden_state` is [B, T, D] (the base model of a
    `transformers` causal LM). With one head it is what `AutoModelForSequenceClassification` with
    `num_labels=1` computes. Heads begin at random so that they differ (members of an ensemble), and smaller
    than in Stiennon et al. 2020 (arXiv:2009.01325, B.1: variance 1/(D+1)): rewards begin near 0.
    """

    def __init__(self, trunk: Any, width: int, *, ensemble: int = 1):
        super().__init__()
        self.trunk = trunk
        self.heads = nn.Linear(width, ensemble, bias=False)
        nn.init.normal_(self.heads.weight, std=1 / (width + 1))

    def forward(self, ids: Int[Tensor, "B T"], final: Int[Tensor, "B"]) -> Float[Tensor, "E B"]:
        """Rewards by each head; `final` is the position of each row's last token."""
        features = self.trunk(input_ids=ids, use_cache=False).last_hidden_state
        rows = torch.arange(len(ids), device=ids.device)
        return self.heads(features[rows, final]).transpose(0, 1)


class RewardEnsemble(nn.Module):
    """Reward models that read by themselves, one after the other; their heads are its members."""

    def __init__(self, models: Sequence[RewardModel]):
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, ids: Int[Tensor, "B T"], final: Int[Tensor, "B"]) -> Float[Tensor, "E B"]:
        """Rewards by each head of each model, in order."""
        return torch.cat([model(ids, final) for model in self.models])


AnyRewardModel = RewardModel | RewardEnsemble
"""forward(ids [B, T], final [B]) -> [E, B]"""
