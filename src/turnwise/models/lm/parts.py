"""The parts of a causal LM of `transformers`, and its sizes."""

from __future__ import annotations

from typing import Any

from torch import nn


def trunk_of(model: Any) -> nn.Module:
    """The part of a causal LM that maps ids to features, adapters included."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    return inner.base_model


def lm_head_of(model: Any) -> nn.Module:
    """The map from features to logits over the vocabulary."""
    return model.get_output_embeddings()


def width_of(model: Any) -> int:
    """Features per position, D."""
    return int(model.get_output_embeddings().weight.shape[1])


def context_of(model: Any) -> int:
    """The longest history that the model can read, in tokens."""
    return int(model.config.max_position_embeddings)


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
