"""Products with weights that do not learn, outside of autograd."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear


def product(x: Float[Tensor, "M K"], weight: Float[Tensor, "N K"], bias: Tensor | None = None) -> Tensor:
    """x W' + b. In float32 on a CPU by oneDNN, whatever the strides of the weight.

    MKL, which `linear` calls, is a tenth slower on processors that are not Intel's, and a third of the speed
    for the narrow products of adapters.
    """
    ours = x.device.type == "cpu" and x.dtype is torch.float32 and x.numel() > 0
    if ours and torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return linear(x, weight, bias)


NARROW = "in_another_precision"
"""name of the note on a weight that does not learn, by which `kept_in` finds what it made"""


def kept_in(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight that does not learn, in the precision of a product: itself, or a copy.

    On a CPU the copy is kept beside the weight as long as nobody writes to that: to convert it at each
    product, forward and back, takes a thirtieth of a step. All who share the weight share its copy.
    """
    if weight.dtype is dtype or weight.device.type != "cpu":
        return weight.to(dtype)
    now = weight._version, weight.data_ptr(), dtype
    kept: tuple[object, Tensor] | None = getattr(weight, NARROW, None)
    if kept is None or kept[0] != now:
        kept = now, weight.detach().to(dtype)
        setattr(weight, NARROW, kept)
    return kept[1]


def computing(x: Tensor) -> torch.dtype:
    """The precision in which products with `x` are computed: its own, or that of the autocast around it."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
