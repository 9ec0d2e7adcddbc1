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

from turnwise.models.decisions import in_own_precision
from turnwise.models.lm.encoder_decoder.trunk import EncoderDecoder
from turnwise.models.lm.parts import features_at


class RewardModel(nn.Module):
    """E linear heads on one trunk, each a reward r(prompt, reply) read at the reply's last token.

    `trunk` is the base model of a `transformers` causal LM, or an `EncoderDecoder`, whose decoder reads the
    reply. With one head and a causal trunk it is what `AutoModelForSequenceClassification` with
    `num_labels=1` computes. Heads begin at random so that they differ (members of an ensemble), and smaller
    than in Stiennon et al. 2020 (arXiv:2009.01325, B.1: variance 1/(D+1)): rewards begin near 0.
    """

    def __init__(self, trunk: Any, width: int, *, ensemble: int = 1):
        super().__init__()
        self.trunk = trunk
        self.heads = nn.Linear(width, ensemble, bias=False)
        nn.init.normal_(self.heads.weight, std=1 / (width + 1))

    def forward(self, ids: Int[Tensor, "B T"], decisions: Int[Tensor, "B A1"]) -> Float[Tensor, "E B"]:
        """Rewards by each head, read at the final state, which is each row's last token."""
        seen = decisions if isinstance(self.trunk, EncoderDecoder) else decisions[:, -1:]
        at_end = features_at(self.trunk, ids, seen)[:, -1].to(self.heads.weight.dtype)
        with in_own_precision(at_end):
            return self.heads(at_end).transpose(0, 1)


class RewardEnsemble(nn.Module):
    """Reward models that read by themselves, one after the other; their heads are its members."""

    def __init__(self, models: Sequence[RewardModel]):
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, ids: Int[Tensor, "B T"], decisions: Int[Tensor, "B A1"]) -> Float[Tensor, "E B"]:
        """Rewards by each head of each model, in order."""
        return torch.cat([model(ids, decisions) for model in self.models])


AnyRewardModel = RewardModel | RewardEnsemble
"""forward(ids [B, T], decisions [B, A1]) -> [E, B]"""
