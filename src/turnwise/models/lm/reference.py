"""The frozen policy that a learning one is kept near."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from turnwise.models.lm.replies import score_replies
from turnwise.models.target import slow_copy


class Reference:
    """A policy as it is now, for the log-probabilities that it gives what the learning one does.

    A policy of LoRA adapters is its own reference: with the adapters switched off the base speaks, and no
    second copy is held. Adapters must be fresh then (they change nothing at first). Any other is copied.
    """

    def __init__(self, lm: Any):
        self.adapted = hasattr(lm, "peft_config")
        self.lm = lm if self.adapted else slow_copy(lm).eval()

    @torch.no_grad()
    def logp(
        self,
        ids: Int[Tensor, "B T"],
        decisions: Int[Tensor, "B A1"],
        actions: Int[Tensor, "B A"],
        mask: Bool[Tensor, "B A"],
        group: int = 1,
    ) -> Float[Tensor, "B A"]:
        """Of the actions, 0 where masked."""
        if not self.adapted:
            return score_replies(self.lm, ids, decisions, actions, mask, group=group).logp
        with self.lm.disable_adapter():
            return score_replies(self.lm, ids, decisions, actions, mask, group=group).logp
