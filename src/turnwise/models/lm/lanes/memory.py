"""Keys and values of many conversations at once, each lane with a length of its own."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from turnwise.models.lm.lanes.attention import (
    Places,
    attend,
    attend_all,
    can_compile,
    compiled,
    places_of,
)
from turnwise.models.lm.lanes.llama_pass import LlamaPass, is_plain_llama
from turnwise.models.lm.lanes.prepacked import Prepacked, plain_product
from turnwise.models.lm.parts import window_of
from turnwise.run.errors import InputError

GROWTH = 64
"""positions by which a memory grows: rows hardly longer than what they hold are read faster"""
PACKED = "turnwise_lanes"
"""name under which `transformers` knows the attention of packed lanes"""


@dataclass(frozen=True)
class _Attending:
    """Lanes that read equally many ids at a time, as one padded block of queries.

    `rows` [n] are their places in the memory, None for all of it in place; `taken` [n, t] the packed ids that
    are the block's queries; `filled` the packed ids that the block answers, found at `answers` in its n * t
    rows; `mask` [n, 1, t, positions] is added to attention scores.
    """

    rows: Tensor | None
    taken: Tensor
    filled: Tensor
    answers: Tensor
    mask: Tensor


class _LaneLayer(CacheLayerMixin):
    """One layer's keys and values [N, positions, heads, head width], written where the lanes stand."""

    is_sliding = False
    keys: Any
    values: Any

    def __init__(self, memory: LaneMemory):
        super().__init__()
        self.memory = memory

    # The names from here to the end are those that `transformers` calls on a layer of a cache.
    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.make_room(*((x.shape[1], x.shape[3]) for x in (key_states, value_states)), like=key_states)

    def make_room(self, keys: tuple[int, int], values: tuple[int, int], like: Tensor) -> None:
        """Make room for as many positions as the memory has; keys and values are (heads, head width) each."""
        if not self.is_initialized:
            self.keys, self.values = (like.new_zeros(self.memory.lanes, 0, *x) for x in (keys, values))
            self.is_initialized = True
        if self.keys.shape[1] != self.memory.capacity:
            self.keys, self.values = (_grown(x, self.memory.capacity) for x in (self.keys, self.values))

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        self.lazy_initialization(key_states, value_states)
        # New keys [n, heads, t, d] become n t rows; `slots` [n t] says which (lane, position) each is.
        for whole, new in ((self.keys, key_states), (self.values, value_states)):
            flat = whole.view(-1, whole.shape[2] * whole.shape[3])
            flat.index_copy_(0, self.memory.slots, new.transpose(1, 2).reshape(-1, flat.shape[1]))
        if self.memory.packed:  # what attends finds its lanes itself
            return self.keys, self.values
        return self._seen(self.keys), self._seen(self.values)

    def _seen(self, whole: Any) -> Tensor:
        return whole[:, : self.memory.longest].index_select(0, self.memory.rows).transpose(1, 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.memory.longest, 0

    def get_seq_length(self) -> int:
        return self.memory.longest

    def get_max_length(self) -> int:
        return self.memory.context


class LaneMemory(Cache):
    """The memory of a trunk over `lanes` conversations of up to `context` positions.

    It grows with the longest conversation. If the trunk lets its attention be replaced, ids of all lanes are
    read as one packed row, so that lanes that read one id and lanes that read fifty share a pass without
    padding (on a CPU by compiled code, unless `may_compile` is False). Other trunks read a padded block.
    Lanes made by `copy_lane` share a beginning. Compiled attention reads it from the source lane for as long
    as that lane still holds it.
    The memory belongs to the trunk as it is now: weights may change, adapters and hooks may not come or go.
    InputError for a trunk that forgets (sliding-window attention) within the context, since nothing that was
    read is dropped here.
    """

    def __init__(
        self,
        trunk: Any,
        lanes: int,
        context: int,
        may_compile: bool = True,
        products: Prepacked | None = None,
    ):
        window = window_of(trunk)
        if window is not None and window < context:
            raise InputError(
                f"a {trunk.config.model_type} model that attends to the last {window} of {context} positions "
                f"only; expected attention to all of them, or a context of at most {window}"
            )
        self.trunk, self.lanes, self.context, self.products = trunk, lanes, context, products
        self.packed = trunk._supports_attention_backend and trunk.config._attn_implementation == "sdpa"
        weights = next(trunk.parameters())
        self.device, self.dtype = weights.device, weights.dtype
        on_cpu = self.device.type == "cpu" and self.dtype in (torch.float32, torch.float64)
        may_compile = may_compile and self.packed and on_cpu and can_compile()
        self.kernel = compiled(attend) if may_compile else None
        self.llama = LlamaPass(trunk) if may_compile and is_plain_llama(trunk) else None
        self.origins, self.shared = np.arange(lanes), np.zeros(lanes, np.int64)
        self.capacity = self.longest = 0
        self.slots = self.rows = torch.zeros(0, dtype=torch.long)
        self.attending: tuple[_Attending, ...] = ()
        self.places: Places | None = None
        # Layers must not keep their memory alive: in a ring, all that was read stays until Python looks for
        # rings, and a run that talks grows by tens of megabytes an iteration.
        own = weakref.proxy(self)
        super().__init__(layers=[_LaneLayer(own) for _ in range(trunk.config.num_hidden_layers)])

    def read(
        self,
        ids: Sequence[Sequence[int]],
        rows: np.ndarray,
        start: np.ndarray,
        begins: Sequence[bool] | None = None,
    ) -> Tensor:
        """Let lane `rows[i]` read `ids[i]` from position `start[i]` on; features of each last id [n, D].

        Where replies begin makes no difference here: a causal model reads all words alike.
        What lies behind a lane's own ids is overwritten by whatever it reads next and never attended to.
        """
        counts = np.array([len(x) for x in ids])  # [n], ids that each lane reads now
        self.longest = int((start + counts).max())
        if self.longest >= self.capacity:  # the position behind the longest is a bin for padding
            self.capacity = self.longest + GROWTH
        self._overwrite(rows, start)
        if self.llama is not None:
            return self._read_packed(ids, rows, start, counts)
        with self.products or contextlib.nullcontext():
            return (self._read_packed if self.packed else self._read_padded)(ids, rows, start, counts)

    def copy_lane(self, source: int, lanes: list[int], length: int) -> None:
        """Overwrite the memory of `lanes` with that of `source`, which has read `length` ids."""
        # The bytes are copied although compiled attention reads a shared beginning from `source`: when the
        # source moves on to another conversation, its copies must still have what they remember.
        layers: list[Any] = self.layers
        for layer in layers:
            if layer.is_initialized:
                layer.keys[lanes, :length] = layer.keys[source, :length].clone()
                layer.values[lanes, :length] = layer.values[source, :length].clone()
        self._overwrite(np.array(lanes, np.int64), 0)
        self.origins[lanes], self.shared[lanes] = source, length

    def _overwrite(self, lanes: np.ndarray, start: np.ndarray | int) -> None:
        """From position `start` on, `lanes` no longer hold what they have in common with others."""
        kept = np.full(self.lanes, self.context)  # [N], positions of each lane that stay as they are
        kept[lanes] = start
        # What is shared ends where the copy is overwritten or where its origin is, whichever comes first.
        self.shared = np.minimum(self.shared, np.minimum(kept, kept[self.origins]))

    def _read_packed(
        self, ids: Sequence[Sequence[int]], rows: np.ndarray, start: np.ndarray, counts: np.ndarray
    ) -> Tensor:
        # Ids of all lanes in one row [M], lane after lane. first [n]: where each lane's ids begin in it.
        first = np.cumsum(counts) - counts
        packed = np.concatenate([np.asarray(x, np.int64) for x in ids])
        self.places = at = places_of(rows, start, counts, self.origins, self.shared)
        if self.llama is not None:
            product = plain_product if self.products is None else self.products.product
            return self.llama.read(packed, at, self.layers, product)[first + counts - 1]
        self.slots = self._on(at.lanes * self.capacity + at.positions)
        if self.kernel is None:
            # PyTorch's attention takes blocks. Lanes that speak read one id each and lanes that listen read
            # many: in one block the former would be padded to the longest message.
            groups = [g for g in (counts == 1, counts > 1) if g.any()]
            self.attending = tuple(self._group(rows[g], start[g], counts[g], first[g]) for g in groups)
        with _attention(self.trunk, PACKED):
            features = self.trunk(
                input_ids=self._on(packed).unsqueeze(0),
                position_ids=self._on(at.positions).unsqueeze(0),
                past_key_values=self,
                use_cache=True,
                lane_memory=self,
            ).last_hidden_state
        return features[0, self._on(first + counts - 1)]

    def _group(
        self, rows: np.ndarray, start: np.ndarray, counts: np.ndarray, first: np.ndarray
    ) -> _Attending:
        """The lanes `rows` as one block; the whole memory is read in place if most lanes take part."""
        longest, width = int((start + counts).max()), int(counts.max())  # width: t, queries of a lane
        # Gathering rows of the cache copies it. If most lanes take part, all of it is read where it is, and
        # the block has a row for each of the N lanes; else it has n rows, gathered.
        in_place = 2 * len(rows) > self.lanes
        places = rows if in_place else np.arange(len(rows))
        offset = np.arange(width)
        read = offset < counts[:, None]  # [n, t], False at padding
        taken = np.zeros((self.lanes if in_place else len(rows), width), np.int64)
        taken[places] = np.where(read, first[:, None] + offset, 0)
        # The last position that each query sees. Padding, and lanes that do not take part, may see anything:
        # what they answer is dropped.
        until = np.full(taken.shape, longest)
        until[places] = start[:, None] + offset
        answers = places[:, None] * width + offset
        on = self._on
        return _Attending(
            rows=None if in_place else on(rows),
            taken=on(taken),
            filled=on(taken[places][read]),
            answers=on(answers[read]),
            mask=self._mask(on(until), longest).unsqueeze(1),
        )

    def attend(
        self, module: Any, query: Tensor, keys: Tensor, values: Tensor, scaling: float | None
    ) -> Tensor:
        """Attention of packed queries [1, heads, M, head width] to their own lanes: [1, M, heads, width]."""
        q = query[0].transpose(0, 1)
        out = q.new_empty(q.shape)
        if self.kernel is not None:
            assert self.places is not None
            scale = q.shape[-1] ** -0.5 if scaling is None else scaling
            arrays = q.contiguous().numpy(), keys.numpy(), values.numpy()
            attend_all(self.kernel, *arrays, self.places, scale, out.numpy())
            return out.unsqueeze(0)
        inner = AttentionInterface()["sdpa"]
        for g in self.attending:
            length = g.mask.shape[-1]
            k, v = (
                (x[:, :length] if g.rows is None else x[:, :length].index_select(0, g.rows)).transpose(1, 2)
                for x in (keys, values)
            )
            block = inner(module, q[g.taken].transpose(1, 2), k, v, g.mask, scaling=scaling)[0]
            out[g.filled] = block.flatten(0, 1)[g.answers]
        return out.unsqueeze(0)

    def _read_padded(
        self, ids: Sequence[Sequence[int]], rows: np.ndarray, start: np.ndarray, counts: np.ndarray
    ) -> Tensor:
        padded = np.zeros((len(ids), int(counts.max())), np.int64)  # [n, t], ids on the left
        for row, x in zip(padded, ids, strict=True):
            row[: len(x)] = x
        positions = start[:, None] + np.arange(padded.shape[1])
        # Padding is written too: behind the lane's own ids, where whatever it reads next takes its place, and
        # beyond the longest lane into the bin at position `longest`, which no query attends to.
        self.slots = self._on((rows[:, None] * self.capacity + np.minimum(positions, self.longest)).ravel())
        self.rows = self._on(rows)
        features = self.trunk(
            input_ids=self._on(padded),
            position_ids=self._on(np.minimum(positions, self.context - 1)),
            attention_mask=self._mask(self._on(positions), self.longest).unsqueeze(1),
            past_key_values=self,
            use_cache=True,
        ).last_hidden_state
        return features[self._on(np.arange(len(ids))), self._on(counts - 1)]

    def _mask(self, positions: Tensor, longest: int) -> Tensor:
        """[n, t, longest], added to attention scores: a query sees up to its own position."""
        hidden = torch.arange(longest, device=self.device) > positions.unsqueeze(-1)
        return torch.zeros_like(hidden, dtype=self.dtype).masked_fill_(hidden, torch.finfo(self.dtype).min)

    def _on(self, x: np.ndarray) -> Tensor:
        return torch.as_tensor(x, device=self.device)


def _grown(whole: Tensor, positions: int) -> Tensor:
    """A longer array, filled up with zeros: a weight of 0 would not silence NaN in fresh memory."""
    bigger = whole.new_zeros(whole.shape[0], positions, *whole.shape[2:])
    bigger[:, : whole.shape[1]] = whole
    return bigger


@contextlib.contextmanager
def _attention(trunk: Any, name: str) -> Iterator[None]:
    """Give the trunk another attention inside the block; afterwards it has its own again."""
    before = trunk.config._attn_implementation
    trunk.config._attn_implementation = name
    try:
        yield
    finally:
        trunk.config._attn_implementation = before


def _packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    lane_memory: LaneMemory,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The attention that `transformers` calls in place of its own: [1, heads, M, d] to [1, M, heads, d]."""
    for name in ("softcap", "position_bias"):
        if options.get(name) is not None:
            kind = module.config.model_type
            raise InputError(f"a {kind} model's attention has a {name}; expected attn_implementation='eager'")
    return lane_memory.attend(module, query, key, value, scaling), None


AttentionInterface.register(PACKED, _packed_attention)
