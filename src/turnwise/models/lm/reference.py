"""The frozen policy that a learning one is kept near."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from turnwise.data.batch import Batch
from turnwise.models.lm.replies import actions_logp


class Reference:
    """A policy as it is now, for the log-probabilities that it gives what the learning one does.

    A policy of LoRA adapters is its own reference: with the adapters switched off the base speaks, and no
    second copy is held. Adapters must be fresh then (they change nothing at first). Any other is copied.
    """

    def __init__(self, lm: Any):
        self.adapted = hasattr(lm, "peft_config")
        self.lm = lm if self.adapted else copy.deepcopy(lm).requires_grad_(False).eval()

    @torch.no_grad()
    def logp(self, batch: Batch, *, group: int = 1) -> Float[Tensor, "B A"]:
        """Log-probabilities of the actions, 0 where masked; rows of a group share their prompt."""
        if not self.adapted:
            return actions_logp(self.lm, batch, group=group)
        with self.lm.disable_adapter():
            return actions_logp(self.lm, batch, group=group)
