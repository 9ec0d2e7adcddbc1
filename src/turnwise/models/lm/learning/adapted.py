"""A linear layer with a low-rank adapter as one step of autograd: what it adds is added in place.

    y = x W' + b + s (x A') B'          W, b frozen; A [r, K], B [N, r] learn; s = alpha / rank

By modules (`peft`), three results as large as y come and go on the way, and two as large as x on the way
back. Here there is y alone, and the small x A' [M, r] is kept beside x.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as Adapted
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from turnwise.models.products import computing, kept_in, product

ONE = "default"
"""name of the one adapter that a layer has"""


class QuickAdapted(Adapted):
    """`peft`'s layer, with another way through it. Names of weights, merging and saving are `peft`'s."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """y; by `peft` itself where something is asked for that is not in the formula, as dropout."""
        base: Any = self.get_base_layer()
        weights: Any = (base.weight, self.lora_A[ONE].weight, self.lora_B[ONE].weight)
        dtype = computing(x)
        alike = torch.is_autocast_enabled(x.device.type) or all(w.dtype is dtype for w in weights)
        if args or kwargs or not alike or not self._is_plain(base):
            return super().forward(x, *args, **kwargs)
        if not torch.is_grad_enabled() and _worth_folding(x, weights[0], dtype):
            weight, a, b = weights
            flat = x.reshape(-1, x.shape[-1])
            y = product(flat, torch.addmm(weight, b, a, alpha=self.scaling[ONE]), base.bias)
            return y.view(*x.shape[:-1], -1)
        return _AdaptedProduct.apply(x, base.bias, *weights, self.scaling[ONE], dtype)  # pyright: ignore

    def _is_plain(self, base: Any) -> bool:
        dropout = self.lora_dropout[ONE]
        return not (
            self.disable_adapters
            or self.merged
            or self.active_adapters != [ONE]
            or self.lora_variant
            or self.lora_bias[ONE]
            or base.weight.requires_grad
            or (isinstance(dropout, nn.Dropout) and dropout.training)
        )


def _worth_folding(x: Tensor, weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether W + s B A is formed for this product: if x has more rows, M, than columns, K.

    To form it goes through [N, K] once; to add what the adapter gives goes through [M, N] a second time. Not
    in half precision, where W + s B A would lose what an
    adapter adds as long as that is small; nor under gradients, which A and B need apart.
    """
    many = x.shape[:-1].numel() >= weight.shape[1]
    return many and weight.dtype is dtype and x.dtype is dtype and dtype in (torch.float32, torch.float64)


def quicken_(model: nn.Module) -> None:
    """Let adapted linear layers take the quick way from now on; what they compute stays, to rounding."""
    for layer in model.modules():
        if type(layer) is Adapted and type(layer.get_base_layer()) is nn.Linear:
            layer.__class__ = QuickAdapted


def bytes_kept(model: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of the copies of frozen weights that are kept for products in that precision (`kept_in`)."""
    layers: list[Any] = [m for m in model.modules() if isinstance(m, QuickAdapted)]
    weights = {layer.get_base_layer().weight for layer in layers}
    return sum(w.numel() * dtype.itemsize for w in weights if w.dtype is not dtype and w.device.type == "cpu")


class _AdaptedProduct(torch.autograd.Function):
    """The formula; gradients to x, A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor | None,
        weight: Tensor,
        a: Tensor,
        b: Tensor,
        scale: float,
        dtype: torch.dtype,
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(dtype)  # [M, K]
        low = product(flat, a.to(dtype))  # [M, r]
        y = product(flat, kept_in(weight, dtype), None if bias is None else bias.to(dtype))
        y.addmm_(low, b.to(dtype).t(), alpha=scale)
        ctx.save_for_backward(flat, low, weight, a, b)
        ctx.scale, ctx.given = scale, x.dtype
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, low, weight, a, b = ctx.saved_tensors
        dy = up.reshape(-1, up.shape[-1])  # [M, N]
        down = product(dy, b.to(dy.dtype).t()).mul_(ctx.scale)  # [M, r], the gradient of x A'
        of_a = (down.t() @ x).to(a.dtype)
        of_b = (low.t() @ dy).mul_(ctx.scale).t().to(b.dtype)  # in this order MKL is seven times as fast
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = product(dy, kept_in(weight, dy.dtype).t()).addmm_(down, a.to(dy.dtype))
            of_x = of_x.view(*up.shape[:-1], -1).to(ctx.given)
        return of_x, None, None, of_a, of_b, None, None
