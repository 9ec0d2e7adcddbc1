"""Keys and values of many conversations at once, each lane with a length of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin


class _LaneLayer(CacheLayerMixin):
    """One layer's keys and values [N, heads, positions, head width], written where the lanes stand."""

    is_sliding = False

    def __init__(self, memory: LaneMemory):
        super().__init__()
        self.memory = memory

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        m = self.memory
        self.keys, self.values = (
            x.new_zeros(m.lanes, x.shape[1], m.context + 1, x.shape[3]) for x in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        m = self.memory
        rows = m.rows.unsqueeze(-1)
        self.keys[rows, :, m.positions] = key_states.transpose(1, 2)
        self.values[rows, :, m.positions] = value_states.transpose(1, 2)
        keys, values = self.keys[:, :, : m.longest], self.values[:, :, : m.longest]
        if m.all_rows:
            return keys, values
        return keys[m.rows], values[m.rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.memory.longest, 0

    def get_seq_length(self) -> int:
        return self.memory.longest

    def get_max_length(self) -> int:
        return self.memory.context


class LaneMemory(Cache):
    """The memory of a trunk over `lanes` conversations of up to `context` positions.

    Position `context` is a bin for padding: it is written and never attended to.
    """

    def __init__(self, trunk: nn.Module, lanes: int, context: int):
        self.trunk, self.lanes, self.context = trunk, lanes, context
        self.rows = torch.arange(lanes)
        self.positions = torch.zeros(lanes, 1, dtype=torch.long)
        self.longest, self.all_rows = 0, True
        super().__init__(layers=[_LaneLayer(self) for _ in range(trunk.config.num_hidden_layers)])

    def read(self, ids: Tensor, rows: Tensor, start: Tensor, longest: int) -> Tensor:
        """Read `ids` [n, t] in lanes `rows` [n] from positions `start` [n] on; features [n, t, D].

        What lies behind a lane's own ids (right padding) is overwritten by whatever it reads next and is
        never attended to before.
        """
        positions = start.unsqueeze(-1) + torch.arange(ids.shape[1], device=ids.device)
        self.rows, self.positions = rows, positions.clamp(max=self.context)
        self.longest, self.all_rows = longest, len(rows) == self.lanes
        keys = torch.arange(longest, device=ids.device)
        return self.trunk(
            input_ids=ids,
            position_ids=positions.clamp(max=self.context - 1),
            attention_mask=(keys <= positions.unsqueeze(-1)).unsqueeze(1),
            past_key_values=self,
            use_cache=True,
        ).last_hidden_state

    def copy_lane(self, source: int, lanes: list[int]) -> None:
        """Overwrite the memory of `lanes` with that of `source`."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys[lanes] = layer.keys[source]
                layer.values[lanes] = layer.values[source]
