"""The parts of a language model of `transformers`, and its sizes; how its trunk reads rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from turnwise.models.decisions import at_decisions
from turnwise.models.lm.encoder_decoder.trunk import (
    EncoderDecoder,
    context_of_encoder_decoder,
    is_encoder_decoder,
)
from turnwise.models.lm.learning.packing import packed_features_at, packs_rows


def trunk_of(model: Any) -> nn.Module:
    """The part of a language model that maps ids to features, adapters included."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    return EncoderDecoder.of(inner) if is_encoder_decoder(inner) else inner.base_model


def features_at(
    trunk: Any, ids: Int[Tensor, "B T"] | Float[Tensor, "B T D"], decisions: Int[Tensor, "B A1"]
) -> Float[Tensor, "B A1 D"]:
    """What a trunk of either kind makes of the history at each decision and at the final state.

    Of a causal trunk any places of a row will do. If it `packs_rows`, padding is not read. A trunk that is
    frozen is given the features that it made once, in place of ids.
    """
    if isinstance(trunk, EncoderDecoder):
        return trunk(ids, decisions)
    if packs_rows(trunk):
        return packed_features_at(trunk, ids, decisions)
    return at_decisions(trunk(input_ids=ids, use_cache=False).last_hidden_state, decisions)


def lm_head_of(model: Any) -> Callable[[Tensor], Tensor]:
    """The map from features to logits over the vocabulary, with the scale and the cap of the model's family.

    Some families multiply what the output layer gives (Cohere, Granite, Falcon-H1), some bound it by
    cap tanh(x / cap) (Gemma 2 and later). `load_lm` refuses a model whose logits are none of these.
    """
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    scale, cap = _scale(model.config), _cap(config)
    if scale == 1.0 and cap is None:
        return head

    def logits(features: Tensor) -> Tensor:
        found = head(features) * scale
        return found if cap is None else cap * torch.tanh(found / cap)

    return logits


def _scale(config: Any) -> float:
    """What the output layer's logits are multiplied by. Families use the same name in opposite senses."""
    if getattr(config, "scale_decoder_outputs", False):  # T5 of 2019, whose embedding is its output layer
        return float(config.d_model**-0.5)
    config = config.get_text_config()
    kind = config.model_type
    if kind.startswith("cohere"):
        return float(config.logit_scale)
    if kind.startswith(("granite", "minicpm3")):
        return 1.0 / config.logits_scaling
    if kind == "hyperclovax":
        return float(config.logits_scaling)
    return float(config.lm_head_multiplier) if kind == "falcon_h1" else 1.0


def _cap(config: Any) -> float | None:
    names = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    return next((cap for name in names if (cap := getattr(config, name, None)) is not None), None)


def width_of(model: Any) -> int:
    """Features per position, D."""
    return int(model.get_output_embeddings().weight.shape[1])


def context_of(model: Any) -> int:
    """The longest history that the model can read, in tokens."""
    if is_encoder_decoder(model):
        return context_of_encoder_decoder(model.config)
    return int(model.config.get_text_config().max_position_embeddings)


def window_of(trunk: Any) -> int | None:
    """How many positions back the most short-sighted layer attends; None if all layers see everything."""
    config = trunk.config
    spans = [getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)]
    if "local" in getattr(config, "attention_layers", ()):  # GPT-Neo
        spans.append(config.window_size)
    return min((span for span in spans if span is not None), default=None)


def parameter_count(module: nn.Module) -> int:
    """Numbers in all parameters, shared ones once."""
    return sum(p.numel() for p in module.parameters())
