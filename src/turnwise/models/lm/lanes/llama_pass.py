"""A Llama's pass over packed lanes on a CPU, in a few calls a layer.

Sampling reads one id a lane at a time. The arithmetic of a small layer then takes half a millisecond, and
the calls of its modules, some sixty, take as long again. Here a layer is a dozen calls on the trunk's own
weights: sums are made in place, and norms and rotations are compiled.

Letters of the shapes: M packed ids (all lanes together), D features, H heads, K heads of keys, d numbers of
a head, F features of the perceptron, N lanes, P positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaMLP,
    LlamaModel,
    LlamaRMSNorm,
)

from turnwise.models.lm.lanes.attention import Places, attend, attend_all, compiled
from turnwise.models.lm.lanes.prepacked import plain_product

PARTS = (LlamaDecoderLayer, LlamaAttention, LlamaMLP, LlamaRMSNorm, nn.Linear, nn.SiLU, SiLUActivation)
"""what a layer consists of; anything else, an adapter say, does something of its own"""


class LlamaPass:
    """What `LlamaModel` computes, to rounding, for ids of many lanes in one packed row."""

    def __init__(self, trunk: Any):
        config = trunk.config
        self.trunk = trunk
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = int(trunk.layers[0].self_attn.head_dim)
        self.scale = self.width**-0.5
        self.attend, self.normalise, self.rotate = (compiled(f) for f in (attend, normalise, rotate))

    def read(
        self,
        ids: np.ndarray,
        at: Places,
        memory: Iterable[Any],
        product: Callable[..., Tensor] = plain_product,
    ) -> Tensor:
        """Features [M, D] of `ids` [M], whose keys and values are written into each layer of `memory`.

        The ids stand `at` their places; `product` multiplies with matrices side by side. The lines follow
        `LlamaDecoderLayer.forward` one by one.
        """
        x = self.trunk.embed_tokens(torch.from_numpy(ids))  # [M, D], the residual stream
        # Angles depend on positions alone: [M, d] each, computed once for all layers.
        cos, sin = (
            a[0].numpy() for a in self.trunk.rotary_emb(x, torch.from_numpy(at.positions).unsqueeze(0))
        )
        heads = self.key_heads, self.width
        seen = x.new_empty(len(ids), self.heads, self.width)  # [M, H, d], written anew by each layer
        for layer, held in zip(self.trunk.layers, memory, strict=True):
            attention, mlp = layer.self_attn, layer.mlp
            held.make_room(heads, heads, like=x)
            keys, values = held.keys.numpy(), held.values.numpy()  # [N, P, K, d], views of the cache
            # 1. Attention reads the normalised stream: queries [M, H, d], keys and values [M, K, d].
            read = self._normal(x, layer.input_layernorm)
            qkv = product(read, *(p.weight for p in (attention.q_proj, attention.k_proj, attention.v_proj)))
            turned = qkv.view(len(ids), -1, self.width).numpy()  # [M, H + K + K, d]
            # 2. Queries are turned in place; turned keys, and values, go straight into the cache.
            self.rotate(turned, cos, sin, at.lanes, at.positions, keys, values)
            # 3. Each id attends to its own lane. All keys are in the cache by now, those of ids that were
            # packed together too, and an id looks no further than its own position: so this is causal.
            attend_all(self.attend, turned, keys, values, at, self.scale, seen.numpy())
            # 4. The first residual sum, x + W_o seen.
            x.add_(product(seen.flatten(1), attention.o_proj.weight))
            # 5. The gated perceptron (Shazeer 2020, arXiv:2002.05202, eq. 6): silu(W_g x) * (W_u x), [M, F].
            read = self._normal(x, layer.post_attention_layernorm)
            gated = silu(product(read, mlp.gate_proj.weight), inplace=True).mul_(
                product(read, mlp.up_proj.weight)
            )
            # 6. The second residual sum, x + W_d gated.
            x.add_(product(gated, mlp.down_proj.weight))
        return self._normal(x, self.trunk.norm)

    def _normal(self, x: Tensor, norm: Any) -> Tensor:
        out = torch.empty_like(x)
        self.normalise(x.numpy(), norm.weight.detach().numpy(), norm.variance_epsilon, out.numpy())
        return out


def is_plain_llama(trunk: Any) -> bool:
    """Whether a trunk is a `LlamaModel` on a CPU, in float32, with layers as they are built: no adapters, no
    hooks, no other `forward`.
    """
    return (
        type(trunk) is LlamaModel
        and trunk.config.num_hidden_layers == len(trunk.layers)
        and not (trunk.config.attention_bias or trunk.config.mlp_bias)
        and all(p.dtype is torch.float32 and p.device.type == "cpu" for p in trunk.parameters())
        and all(type(m) in PARTS for layer in (*trunk.layers, trunk.norm) for m in layer.modules())
        and not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in trunk.modules())
    )


def normalise(x: np.ndarray, weight: np.ndarray, eps: float, out: np.ndarray) -> None:
    """Write x / rms(x) times `weight` to `out` (Zhang and Sennrich 2019, eq. 4); x, out [M, D]."""
    rows, width = x.shape
    number = x.dtype.type
    for m in range(rows):
        square = number(0)  # of x's own type: a Python 0.0 would make the sum double precision
        for d in range(width):
            square += x[m, d] * x[m, d]
        scale = number(1 / math.sqrt(square / width + eps))
        for d in range(width):
            out[m, d] = x[m, d] * scale * weight[d]


def rotate(
    qkv: np.ndarray,
    cos: np.ndarray,
    sin: np.ndarray,
    lanes: np.ndarray,
    positions: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
) -> None:
    """Turn queries by their position, in place; write keys, turned too, and values where their lanes stand.

    qkv [M, heads + 2 key heads, D], queries first and values last; cos, sin [M, D], whose halves are equal;
    keys, values [N, positions, key heads, D]. Number d turns with number D/2 + d (Su et al. 2021, eq. 34, in
    the order of the published weights).
    """
    ids, rows, width = qkv.shape
    half, key_heads = width // 2, keys.shape[2]
    heads = rows - 2 * key_heads
    for m in range(ids):
        lane, position = lanes[m], positions[m]
        for head in range(heads + key_heads):
            plain = qkv[m, head]
            turned = plain if head < heads else keys[lane, position, head - heads]
            for d in range(half):
                a, b = plain[d], plain[half + d]
                turned[d] = a * cos[m, d] - b * sin[m, d]
                turned[half + d] = b * cos[m, d] + a * sin[m, d]
        for head in range(key_heads):
            values[lane, position, head] = qkv[m, heads + key_heads + head]
