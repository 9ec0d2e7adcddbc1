"""The replies in rows of ids, as an encoder-decoder reads them: what was said before, and the reply."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class Turns:
    """U replies of B rows, and where their decoder is at each decision of the batch.

    One row, with x for the agent's tokens, and its two replies:

        position    0  1  2  3  4  5  6  7  8  9          the encoder reads    the decoder reads
        action            x  x        x  x  x             0 1                  start 2 3
                                                          0 1 2 3 4 5          start 6 7 8 9

    A reply is a run of neighbouring tokens of the agent: what was read in between begins another one. The
    decoder is at its first place where the first token is chosen. Behind the last reply of a row it reads on
    to the row's end, so that there is a place for the final state: a reward model's, whose reply the limit on
    new tokens may have cut before its stop token.
    """

    row: np.ndarray
    """[U], the row of each reply"""
    begin: np.ndarray
    """[U], the position of its first token: what is before is its history"""
    end: np.ndarray
    """[U], behind the last position that its decoder reads"""
    turn: np.ndarray
    """[B, A1], the reply that each decision belongs to"""
    place: np.ndarray
    """[B, A1], the place of its decoder where the decision is taken"""

    @classmethod
    def of(cls, decisions: Int[np.ndarray, "B A1"]) -> Turns:
        """Replies of a batch, by the positions of its decisions; those at the final position are padding."""
        final = decisions[:, -1]
        real = np.less(decisions[:, :-1], final[:, None])  # [B, A]
        before = np.pad(decisions[:, :-2], ((0, 0), (1, 0)), constant_values=-2)[:, : real.shape[1]]
        opens = real & (decisions[:, :-1] != before + 1)  # [B, A]
        silent = real.sum(1) == 0  # rows without a decision have the final state alone
        row = np.concatenate([np.nonzero(opens)[0], np.flatnonzero(silent)])
        begin = np.concatenate([decisions[:, :-1][opens], final[silent]]) + 1
        order = np.argsort(row, kind="stable")
        row, begin = row[order], begin[order]
        first = np.searchsorted(row, np.arange(len(decisions)))  # [B], the first reply of each row
        last = np.searchsorted(row, np.arange(len(decisions)), side="right") - 1
        turn = first[:, None] + np.cumsum(opens, 1) - ~silent[:, None]  # [B, A]
        turn = np.concatenate([np.where(real, turn, last[:, None]), last[:, None]], 1)  # [B, A1]
        end = np.zeros(len(row), np.int64)
        np.maximum.at(end, turn, decisions + 1)
        return cls(row, begin, end, turn, decisions - (begin[turn] - 1))

    def histories(self, ids: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "U H"], Bool[Tensor, "U H"]]:
        """Ids before each reply, padded on the right, and which of them are real."""
        begin = torch.as_tensor(self.begin, device=ids.device)
        at = torch.arange(int(self.begin.max()), device=ids.device)
        real = at < begin.unsqueeze(1)
        return ids[self._rows(ids), : len(at)].masked_fill(~real, 0), real

    def replies(self, ids: Int[Tensor, "B T"], start: int) -> Int[Tensor, "U L"]:
        """What the decoder reads: `start`, and the tokens of the reply; none sees the padding behind it."""
        begin = torch.as_tensor(self.begin, device=ids.device)
        longest = int((self.end - self.begin).max()) + 1
        at = begin.unsqueeze(1) + torch.arange(longest, device=ids.device) - 1  # [U, L]
        read = ids[self._rows(ids)].gather(1, at.clamp(0, ids.shape[1] - 1))
        read[:, 0] = start
        return read

    def _rows(self, ids: Tensor) -> Tensor:
        return torch.as_tensor(self.row, device=ids.device)
