"""Gradient checkpointing: a layer's activations are formed again when gradients come back to it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from turnwise.models.lm.learning.packing import attending
from turnwise.run.errors import InputError


def recompute_layers_(trunk: Any) -> None:
    """From now on each layer keeps what it was given and nothing else, and forms the rest twice.

    Chen et al. 2016, arXiv:1604.06174. Losses and gradients stay as they are. `transformers` does the same,
    but in training mode alone, which would switch dropout on as well.
    """
    count = len(layers_of(trunk))
    for layers in trunk.modules():  # an encoder-decoder has two lists of them
        if not isinstance(layers, nn.ModuleList) or len(layers) != count:
            continue
        for layer in layers:
            if "forward" not in vars(layer):
                layer.forward = functools.partial(_recomputed, layer, layer.forward, trunk.config)


def recomputes(trunk: Any) -> bool:
    """Whether layers of the trunk form their activations again: then none may change a cache as it reads."""
    return any(isinstance(vars(m).get("forward"), functools.partial) for m in trunk.modules())


@contextlib.contextmanager
def kept_once(trunk: Any) -> Iterator[None]:
    """Inside, layers keep what they form."""
    changed = [(m, vars(m).pop("forward")) for m in trunk.modules() if "forward" in vars(m)]
    try:
        yield
    finally:
        for module, forward in changed:
            module.forward = forward


def layers_of(trunk: Any) -> nn.ModuleList:
    """The layers, in order. InputError if there is no such list of them."""
    count = trunk.config.get_text_config().num_hidden_layers
    for module in trunk.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise InputError(
        f"{trunk.config.model_type}: its layers are no list of {count}, so that they cannot be formed again"
    )


def _recomputed(layer: nn.Module, forward: Callable[..., Any], config: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    now = config._attn_implementation  # the second reading attends as the first did, whenever it comes

    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), attending(config, now)

    # The generator's state is kept only where the second reading draws what the first drew: on a CPU these
    # few KB between large blocks split what a layer frees, and the next one finds holes that are too small.
    drawn = _drops_out(layer, config)
    return checkpoint(
        forward, *args, use_reentrant=False, context_fn=contexts, preserve_rng_state=drawn, **kwargs
    )


def _drops_out(layer: nn.Module, config: Any) -> bool:
    """Whether a pass through the layer draws anything at random: by a module, or by a share in the config."""
    if any(m.training and m.p > 0 for m in layer.modules() if isinstance(m, nn.Dropout)):
        return True
    shares = (v for k, v in config.to_dict().items() if "drop" in k and isinstance(v, int | float))
    return layer.training and any(shares)
