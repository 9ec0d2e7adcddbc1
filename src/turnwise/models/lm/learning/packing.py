"""Rows read one after another, as one row without padding; each attends to itself alone."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from turnwise.run.errors import SettingError

ROWS = "turnwise_rows"
"""name under which `transformers` knows the attention of packed rows"""
MARK = "packs_rows"
"""name of the mark on trunks that are to read so"""


@torch.no_grad()
def pack_rows_(trunk: Any) -> None:
    """From now on `packed_features_at` may read rows with this trunk.

    SettingError for one that gives a row other features if another one stands before it: one whose attention
    cannot be replaced, or whose layers look at neighbours in another way (convolutions, recurrences).
    """
    if not _reads_alone(trunk):
        kind = trunk.config.model_type
        raise SettingError(
            "pack_rows", True, f"False: a {kind} model reads rows that follow each other as one"
        )
    setattr(trunk, MARK, True)


def packs_rows(trunk: Any) -> bool:
    """Whether the trunk reads rows without padding."""
    return getattr(trunk, MARK, False)


def packed_features_at(
    trunk: Any, ids: Int[Tensor, "B T"], places: Int[Tensor, "B A"]
) -> Float[Tensor, "B A D"]:
    """Features at these places of each row. What stands behind the last of them is not read."""
    lengths = places.amax(1) + 1  # [B]
    position = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)  # [B, T]
    real = position < lengths.unsqueeze(1)
    with attending(trunk.config, ROWS):
        features = trunk(
            input_ids=ids[real].unsqueeze(0),  # [1, M], M = the sum of lengths
            position_ids=position[real].unsqueeze(0),
            use_cache=False,
            row_lengths=lengths.tolist(),
        ).last_hidden_state[0]
    first = lengths.cumsum(0) - lengths  # where each row begins in the packed one
    chosen = (first.unsqueeze(1) + places).flatten()
    return features.index_select(0, chosen).view(*places.shape, -1)


@contextlib.contextmanager
def attending(config: Any, name: str) -> Iterator[None]:
    """Give models of this config another attention inside the block."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def _reads_alone(trunk: Any) -> bool:
    """Whether two short rows that are read at once have the features that each has by itself."""
    if (
        not getattr(trunk, "_supports_attention_backend", False)
        or trunk.config._attn_implementation != "sdpa"
    ):
        return False
    if getattr(trunk.config, "sliding_window", None) is not None:
        return False
    device = next(trunk.parameters()).device
    ids = torch.tensor([[0, 1, 2, 1], [2, 0, 1, 0]], device=device)
    places = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 2]], device=device)
    try:
        found = packed_features_at(trunk, ids, places)
    except (RuntimeError, TypeError, ValueError):  # positions or attention that it does not take
        return False
    alone = [trunk(input_ids=x, use_cache=False).last_hidden_state for x in (ids[:1], ids[1:, :3])]
    pairs = ((found[:1], alone[0]), (found[1:, :3], alone[1]))
    size = max(float(x.abs().max()) for x in alone)
    near = 1e-4 if alone[0].dtype in (torch.float32, torch.float64) else 0.1
    return all(torch.allclose(a, b, rtol=0.0, atol=near * size) for a, b in pairs)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    row_lengths: Sequence[int],
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The attention that `transformers` calls in place of its own: [1, H, M, d] to [1, M, H, d].

    Rows of one length that follow each other are one block. No mask is made, and nothing is computed between
    rows.
    """
    if any(options.get(name) is not None for name in ("softcap", "position_bias")):
        raise ValueError("attention with a softcap or a bias of positions")
    runs = [(n, len(list(same))) for n, same in itertools.groupby(row_lengths)]
    blocks = zip(*(x[0].split([n * many for n, many in runs], 1) for x in (query, key, value)), strict=True)
    found = []
    for (n, many), block in zip(runs, blocks, strict=True):
        q, k, v = (x.unflatten(1, (many, n)).transpose(0, 1) for x in block)  # [many, heads, n, d]
        out = scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        found.append(out.transpose(1, 2).flatten(0, 1))  # [many n, H, d]
    return torch.cat(found).unsqueeze(0), None


AttentionInterface.register(ROWS, _attend)
