"""The frozen policy that a learning one is kept near."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from turnwise.data.batch import Batch, pack_tokens
from turnwise.data.tokens import Tokens
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.replies import Scorer, actions_logp


class Reference:
    """A policy as it is now, for the log-probabilities that it gives what the learning one does.

    A policy of LoRA adapters is its own reference: with the adapters switched off the base speaks, and no
    second copy is held. Adapters must be fresh then (they change nothing at first). Any other is copied.

    `place` puts a copy where it is to compute, as `World.place` does. It is made before the policy is placed.
    If `apart`, adapters get a copy too: a policy that is split over processes can switch none off.
    """

    def __init__(self, lm: Any, place: Callable[[nn.Module], None] | None = None, apart: bool = False):
        self.adapted = hasattr(lm, "peft_config") and not apart
        self._known: dict[int, tuple[Tokens, float]] = {}
        self._dtype = torch.float32
        self.lm = lm if self.adapted else copy.deepcopy(lm).requires_grad_(False).eval()
        self.scorer = Scorer(LmPolicy(self.lm), apart)
        if place is not None and not self.adapted:
            place(self.scorer)

    def remember(self, parts: Iterable[Sequence[Tokens]], *, group: int = 1) -> None:
        """Read these rows once, before anything learns. `of_replies` knows them from now on.

        Beforehand and in this order: a row's last digits depend on what is read beside it, and a run that is
        resumed is to find the same ones.
        """
        device = next(self.lm.parameters()).device
        for rows in parts:
            batch = pack_tokens(rows, gamma=1.0).to(device)
            found = self.logp(batch, group=group).sum(1)
            self._dtype = found.dtype
            # The row itself is kept too: its place in memory is its name.
            self._known |= {id(row): (row, x) for row, x in zip(rows, found.tolist(), strict=True)}

    def of_replies(self, rows: Sequence[Tokens], batch: Batch, *, group: int = 1) -> Float[Tensor, "B"]:
        """Log-probabilities of whole replies; those that are remembered are not read. `batch`: these rows."""
        if any(id(row) not in self._known for row in rows):
            return self.logp(batch, group=group).sum(1)
        numbers = [self._known[id(row)][1] for row in rows]
        return torch.tensor(numbers, dtype=self._dtype, device=batch.mask.device)

    @torch.no_grad()
    def logp(self, batch: Batch, *, group: int = 1) -> Float[Tensor, "B A"]:
        """Log-probabilities of the actions, 0 where masked; rows of a group share their prompt."""
        if not self.adapted:
            return self.scorer(batch, group, True)
        with self.lm.disable_adapter():
            return actions_logp(self.lm, batch, group=group)
