"""Functions of single rows that are as wide as a vocabulary, a part of the rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from turnwise.models.products import computing, product

MOST = 2**24
"""numbers as wide as a vocabulary that exist at a time (64 MiB in float32)"""
NEAR = 2**22
"""the same where they are gone through again and again, by a processor that keeps 16 MiB near: for two heads
over 49,152 tokens, from 64 numbers each, a third of the time that `MOST` takes"""


def in_chunks(
    function: Callable[..., tuple[Tensor, ...]], width: int, *rows: Tensor, most: int = MOST
) -> tuple[Tensor, ...]:
    """`function(*rows)`, which forms `width` numbers for each row on its way, `most` of them at a time.

    `rows` are tensors [n, ...] of the same n, and so are the results. Where there is more than one chunk, the
    wide numbers are formed again when gradients come back, so that memory does not grow with n (Hsu et al.
    2024, arXiv:2410.10989, section 3.2, chunk the loss likewise).
    """
    at_once = max(1, most // width)
    if len(rows[0]) <= at_once:
        return function(*rows)
    parts = [
        checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False)
        for part in zip(*(x.split(at_once) for x in rows), strict=True)
    ]
    return tuple(torch.cat(x) for x in zip(*parts, strict=True))


def with_own_gradients(
    function: Callable[..., Tensor],
    width: int,
    features: Float[Tensor, "n D"],
    *rows: Tensor,
    most: int = MOST,
) -> Float[Tensor, "n"]:
    """The same for one number a row, where only `features` learn: nothing wide is formed twice.

    Row i of the result depends on row i of the features alone. So its gradient [D] is known before what comes
    back is: it is computed beside the result, and multiplied by what comes back.
    """
    at_once = max(1, most // width)
    if not (torch.is_grad_enabled() and features.requires_grad):
        (found,) = in_chunks(lambda *x: (function(*x),), width, features, *rows, most=most)
        return found
    return _OwnGradients.apply(function, at_once, features, *rows)


class _OwnGradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, function: Callable[..., Tensor], at_once: int, features: Tensor, *rows: Tensor
    ) -> Tensor:
        found, gradients = [], []
        for part, *others in zip(*(x.split(at_once) for x in (features, *rows)), strict=True):
            with torch.enable_grad():
                leaf = part.detach().requires_grad_()
                out = function(leaf, *others)
                # The gradient of a sum over rows: in each row that of the row's own number.
                (gradient,) = torch.autograd.grad(out.sum(), leaf)
            found.append(out.detach())
            gradients.append(gradient)
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(found)

    @staticmethod
    def backward(ctx, *up: Tensor) -> tuple[Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        back = up[0].unsqueeze(-1).to(gradients.dtype) * gradients
        return (None, None, back, *(None for _ in ctx.needs_input_grad[3:]))


def logp_of_linear(
    features: Float[Tensor, "n D"],
    tokens: Int[Tensor, "n"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"] | None,
    most: int = MOST,
) -> Float[Tensor, "n"]:
    """log softmax(W h + b)_a of one token for each h, where W and b do not learn.

    As `with_own_gradients`, by the closed form d/dh = W_a - sum_v p_v W_v: what is as wide as the vocabulary
    is written once and changed in place.
    """
    return _LinearLogp.apply(features, tokens, weight, bias, max(1, most // len(weight)))  # pyright: ignore


class _LinearLogp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, tokens: Tensor, weight: Tensor, bias: Tensor | None, at_once: int
    ) -> Tensor:
        narrow = computing(features)
        wide = torch.promote_types(features.dtype, torch.float32)  # a sum over the vocabulary wants its bits
        table, shift = weight.to(narrow), None if bias is None else bias.to(narrow)
        found, gradients = [], []
        for h, a in zip(features.split(at_once), tokens.split(at_once), strict=True):
            z = product(h.to(narrow), table, shift).to(wide)  # [m, V]
            top = z.amax(-1, keepdim=True)
            chosen = z.gather(-1, a.unsqueeze(-1)) - top
            total = z.sub_(top).exp_().sum(-1, keepdim=True)  # [m, 1]; z / total are probabilities now
            found.append((chosen - total.log()).squeeze(-1))
            if ctx.needs_input_grad[0]:
                mean = product(z.to(narrow), table.t()).to(wide) / total  # sum_v p_v W_v, [m, D]
                gradients.append(weight[a].to(wide) - mean)
        ctx.save_for_backward(*([torch.cat(gradients)] if gradients else []))
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        (gradients,) = ctx.saved_tensors
        return up.unsqueeze(-1) * gradients, None, None, None, None


def one_and_soft_max(
    features: Float[Tensor, "n D"],
    index: Int[Tensor, "n"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"],
    most: int | None = None,
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """One number of z = W h + b for each h, that at `index`; and log sum exp over all of them.

    Everything may learn. With p = softmax(z), and what comes back to both, g and s:
    dz = g 1[index] + s p. So z is formed again where gradients come back, `most` numbers at a time, and
    changed in place.
    """
    if most is None:
        most = NEAR if features.device.type == "cpu" else MOST
    return _OneAndSoftMax.apply(features, index, weight, bias, max(1, most // len(weight)))  # pyright: ignore


class _OneAndSoftMax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, index: Tensor, weight: Tensor, bias: Tensor, at_once: int
    ) -> tuple[Tensor, Tensor]:
        ones, soft = [], []
        for h, a in zip(features.split(at_once), index.split(at_once), strict=True):
            z = torch.addmm(bias, h, weight.t())  # [m, V]
            top = z.amax(-1, keepdim=True)
            ones.append(z.gather(-1, a.unsqueeze(-1)).squeeze(-1))
            soft.append((z.sub_(top).exp_().sum(-1, keepdim=True).log_() + top).squeeze(-1))
        one, soft_max = torch.cat(ones), torch.cat(soft)
        ctx.save_for_backward(features, index, weight, bias, soft_max)
        ctx.at_once = at_once
        return one, soft_max

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_one: Tensor, to_soft: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        features, index, weight, bias, soft_max = ctx.saved_tensors
        of_weight, of_bias, of_features = torch.zeros_like(weight), torch.zeros_like(bias), []
        columns = index, to_one, soft_max, to_soft
        for h, *rest in zip(*(x.split(ctx.at_once) for x in (features, *columns)), strict=True):
            a, g, top, s = (x.unsqueeze(-1) for x in rest)  # [m, 1]
            dz = torch.addmm(bias, h, weight.t()).sub_(top).exp_().mul_(s).scatter_add_(-1, a, g)
            of_features.append(dz @ weight)
            of_weight.addmm_(dz.t(), h)
            of_bias += dz.sum(0)
        return torch.cat(of_features), None, of_weight, of_bias, None
