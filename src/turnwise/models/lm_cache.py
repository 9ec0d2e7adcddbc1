"""Keys and values of many conversations at once, each lane with a length of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from turnwise.run.errors import InputError

GROWTH = 64
"""positions by which a memory grows: rows hardly longer than what they hold are read faster"""


class _LaneLayer(CacheLayerMixin):
    """One layer's keys and values [N, heads, positions, head width], written where the lanes stand."""

    is_sliding = False

    def __init__(self, memory: LaneMemory):
        super().__init__()
        self.memory = memory

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        n = self.memory.lanes
        self.keys, self.values = (
            x.new_zeros(n, x.shape[1], 0, x.shape[3]) for x in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._written(self.keys, key_states)
        self.values = self._written(self.values, value_states)
        return self._seen(self.keys), self._seen(self.values)

    def _written(self, whole: Any, new: Tensor) -> Tensor:
        m = self.memory
        if whole.shape[2] <= m.longest:
            whole = _grown(whole, m.longest + GROWTH)
        heads, positions = whole.shape[1], whole.shape[2]
        first = (m.rows.view(-1, 1) * heads + torch.arange(heads, device=whole.device)) * positions
        slots = first.unsqueeze(-1) + m.positions.unsqueeze(1)
        whole.view(-1, whole.shape[3]).index_copy_(0, slots.flatten(), new.reshape(-1, new.shape[3]))
        return whole

    def _seen(self, whole: Any) -> Tensor:
        seen = whole[:, :, : self.memory.longest]
        return seen if self.memory.all_rows else seen.index_select(0, self.memory.rows)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.memory.longest, 0

    def get_seq_length(self) -> int:
        return self.memory.longest

    def get_max_length(self) -> int:
        return self.memory.context


class LaneMemory(Cache):
    """The memory of a trunk over `lanes` conversations of up to `context` positions.

    It grows with the longest conversation. The position behind the longest is a bin for padding: it is
    written and never attended to. InputError for a trunk that forgets (sliding-window attention) within the
    context: all that was read stays here.
    """

    def __init__(self, trunk: Any, lanes: int, context: int):
        window = getattr(trunk.config, "sliding_window", None)
        if window is not None and window < context:
            raise InputError(
                f"a {trunk.config.model_type} model that attends to the last {window} of {context} positions "
                f"only; expected attention to all of them, or a context of at most {window}"
            )
        self.trunk, self.lanes, self.context = trunk, lanes, context
        self.rows = torch.arange(lanes)
        self.positions = torch.zeros(lanes, 1, dtype=torch.long)
        self.longest, self.all_rows = 0, True
        super().__init__(layers=[_LaneLayer(self) for _ in range(trunk.config.num_hidden_layers)])

    def read(self, ids: Tensor, rows: Tensor, start: Tensor, longest: int) -> Tensor:
        """Read `ids` [n, t] in lanes `rows` [n], ascending, from positions `start` [n]; features [n, t, D].

        `longest` is the greatest length of these lanes afterwards, right padding not counted. What lies
        behind a lane's own ids is overwritten by whatever it reads next and is never attended to before.
        """
        positions = start.unsqueeze(-1) + torch.arange(ids.shape[1], device=ids.device)
        self.rows, self.positions = rows, positions.clamp(max=longest)
        self.longest, self.all_rows = longest, len(rows) == self.lanes
        return self.trunk(
            input_ids=ids,
            position_ids=positions.clamp(max=self.context - 1),
            attention_mask=self._mask(positions).unsqueeze(1),
            past_key_values=self,
            use_cache=True,
        ).last_hidden_state

    def _mask(self, positions: Tensor) -> Tensor:
        """[n, t, longest], added to attention scores (every attention of `transformers` understands that)."""
        hidden = torch.arange(self.longest, device=positions.device) > positions.unsqueeze(-1)
        dtype = next(self.trunk.parameters()).dtype
        return torch.zeros_like(hidden, dtype=dtype).masked_fill_(hidden, torch.finfo(dtype).min)

    def copy_lane(self, source: int, lanes: list[int]) -> None:
        """Overwrite the memory of `lanes` with that of `source`."""
        layers: list[Any] = self.layers
        for layer in layers:
            if layer.is_initialized:
                layer.keys[lanes] = layer.keys[source].clone().clone()
                layer.values[lanes] = layer.values[source].clone().clone()


def _grown(whole: Tensor, positions: int) -> Tensor:
    """Room for more; zeros, because a weight of 0 does not silence what is not a number."""
    bigger = whole.new_zeros(*whole.shape[:2], positions, whole.shape[3])
    bigger[:, :, : whole.shape[2]] = whole
    return bigger
