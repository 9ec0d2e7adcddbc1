"""Replay of whole conversations, as the ids that were sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from turnwise.data.tokens import Tokens

_ARRAYS = ("ids", "action", "turn_end", "rewards", "message_logp", "token_logp")


class TalkReplay:
    """The latest conversations, at most `capacity` of them; all are drawn alike."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: list[Tokens] = []
        self.changes = 0
        """how often it has changed"""

    def add(self, rows: Sequence[Tokens]) -> None:
        """The oldest go where there is no room."""
        self.rows = [*self.rows, *rows][-self.capacity :]
        self.changes += 1

    def draw(self, n: int, rng: np.random.Generator) -> list[Tokens]:
        """n conversations, none twice as long as there are as many."""
        picked = rng.choice(len(self.rows), n, replace=n > len(self.rows))
        return [self.rows[i] for i in picked.tolist()]

    def state(self) -> dict[str, Any]:
        """All of it, one array after the other."""
        found: dict[str, Any] = {
            name: torch.from_numpy(np.concatenate([getattr(row, name) for row in self.rows] or [np.zeros(0)]))
            for name in _ARRAYS
        }
        found["lengths"] = [len(row) for row in self.rows]
        found["terminated"] = [row.terminated for row in self.rows]
        found["next_known"] = [row.next_known for row in self.rows]
        return found | {"changes": self.changes}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state` that was saved."""
        cuts = np.cumsum(state["lengths"])[:-1]
        arrays = zip(*(np.split(state[name].numpy(), cuts) for name in _ARRAYS), strict=True)
        ends = zip(state["terminated"], state["next_known"], strict=True)
        self.rows = [
            Tokens(*found, terminated=ended, next_known=known)
            for found, (ended, known) in zip(arrays, ends, strict=False)
        ]
        self.changes = int(state["changes"])
