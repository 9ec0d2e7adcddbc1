"""Low-rank adapters: put on, and folded into the weights that they adapt."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn


def with_lora(model: Any, rank: int) -> Any:
    """Freeze the model and add trainable low-rank adapters to its linear layers (Hu et al. 2021)."""
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
    )
    with warnings.catch_warnings():
        # peft asks transformers for a name that transformers is about to rename.
        warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated")
        return get_peft_model(model, config)


def merged(model: Any) -> Any:
    """A plain model with its adapters folded into the weights (itself, if it has none)."""
    return model.merge_and_unload() if hasattr(model, "peft_config") else model


def merge_adapters_(trunk: nn.Module) -> None:
    """Fold LoRA adapters into the layers that they were put on, in place; plain layers remain."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(trunk.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent = trunk.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], layer.get_base_layer())
