"""Products with weights that stay as they are for a while, from copies that oneDNN reads fastest.

Sampling multiplies few rows with the same matrices again and again. PyTorch's product then spends a third of
its time on reading the matrix in an order that suits vectors. oneDNN, which PyTorch brings along, has layouts
of its own for that; PyTorch uses them where it compiles a model whose weights are frozen
(`torch._inductor.fx_passes.mkldnn_fusion`), by the two operators that are called here. They are no public
part of PyTorch. So they are tried once, against the plain product, and whatever goes wrong, the plain product
is what there is.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from turnwise.models.room import free

WORTH = 128
"""rows that a matrix is multiplied with before it is copied: copying takes as long as they save"""
LEAST = 2**14
"""numbers of the smallest matrix that is copied: calls of smaller ones take longer than their arithmetic"""
SHARE = 0.5
"""of the memory that is free when sampling begins, the most that copies take"""
BLOCK = 16
"""rows of which larger numbers of rows are multiples (`whole_blocks`)"""
PROBES = 8
"""numbers of a matrix that are looked at to see whether it was written to behind PyTorch's back"""


class _Copy(NamedTuple):
    """The matrices that were copied, one under the other, as they were then, and the copy."""

    weights: tuple[Tensor, ...]
    state: tuple[Any, ...]
    packed: Tensor


class Prepacked(TorchFunctionMode):
    """x W' on a CPU, in float32 and without gradients, as fast as weights that stay the same allow.

    The copies take as much memory as the weights themselves. `refresh` has to be called before the first
    product after weights may have changed. In a `with` block the modules of any model multiply so, if their
    products are `linear` or `addmm` of a parameter.
    """

    def __init__(self, most: int | None = None):
        """`most`: bytes that the copies may take; None: half of what is free now."""
        super().__init__()
        self._left = int((free() or 0) * SHARE) if most is None else most
        self._copies: dict[tuple[int, ...], _Copy] = {}
        self._rows: dict[tuple[int, ...], int] = {}

    def refresh(self) -> None:
        """Forget copies of weights that have changed since."""
        for key in [k for k, copy in self._copies.items() if copy.state != _state(copy.weights)]:
            self._left += self._copies.pop(key).packed.numel() * 4

    def product(self, x: Tensor, *weights: Tensor) -> Tensor:
        """[M, in] times matrices [out, in]: their products side by side, [M, all out]."""
        packed = self._packed(x, weights)
        if packed is not None:
            return _product_with_copy(x, packed, None)
        return plain_product(x, *weights)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not kwargs:
            found = None
            if func is linear:
                found = self._in_place_of_linear(*args)
            elif func is torch.ops.mkldnn._linear_pointwise and args[3] == "none":  # `models.products`
                found = self._in_place_of_linear(*args[:3])
            elif func is torch.addmm:  # GPT-2's layers, whose matrices are [in, out]
                bias, x, weight = args
                found = self._in_place_of_linear(x, weight, bias, transposed=True)
            if found is not None:
                return found
        return func(*args, **(kwargs or {}))

    def _in_place_of_linear(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, transposed: bool = False
    ) -> Tensor | None:
        if type(weight) is not nn.Parameter or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return None
        packed = self._packed(x, (weight,), transposed)
        return None if packed is None else _product_with_copy(x, packed, bias)

    def _packed(self, x: Tensor, weights: Sequence[Tensor], transposed: bool = False) -> Tensor | None:
        """The copy; None before it is worth its making, and for what is not to be copied."""
        key = (*map(id, weights), int(transposed))
        held = self._copies.get(key)
        if held is not None:
            return held.packed
        rows = self._rows[key] = self._rows.get(key, 0) + x.numel() // x.shape[-1]
        if rows < WORTH or torch.is_grad_enabled() or not all(map(_can_be_copied, weights)):
            return None
        size = sum(w.numel() for w in weights)
        if size < LEAST or 4 * size > self._left:
            return None
        whole = torch.cat([w.detach() for w in weights]) if len(weights) > 1 else weights[0].detach()
        packed = torch.ops.mkldnn._reorder_linear_weight(whole.t().contiguous() if transposed else whole, 32)
        self._left -= 4 * size
        # The copy keeps its weights: while they are held, no other tensor has their identities.
        self._copies[key] = _Copy(tuple(weights), _state(weights), packed)
        return packed


def prepacked_for(trunk: Any) -> Prepacked | None:
    """Products for sampling from a model; None where they would be no faster, or not what they should."""
    weights = next(trunk.parameters())
    fits = weights.device.type == "cpu" and weights.dtype == torch.float32
    return Prepacked() if fits and torch.backends.mkldnn.enabled and can_prepack() else None


@functools.cache
def can_prepack() -> bool:
    """Whether this PyTorch, on this processor, multiplies with copies as it does without."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.linspace(-1, 1, 3 * 64).view(3, 64), torch.linspace(-1, 2, 48 * 64).view(48, 64)
    try:
        with torch.inference_mode():
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, 32)
            found = torch.ops.mkldnn._linear_pointwise(x, packed, x.new_ones(48), "none", [], "")
            return bool(torch.allclose(found, torch.mm(x, weight.t()) + 1, rtol=1e-5, atol=1e-5))
    except (AttributeError, RuntimeError, TypeError):
        return False


def whole_blocks(rows: int) -> int:
    """Rows that a product takes in the place of so many: at most 16 more, or an eighth of them.

    oneDNN compiles a product for each number of rows, and keeps a thousand of them. How many ids the lanes
    read at a time is another number each time, so that a run of conversations grew by hundreds of megabytes,
    and spent a sixth of its time there.
    """
    step = max(BLOCK, 1 << max(0, rows.bit_length() - 4))
    return rows if rows <= BLOCK else -(-rows // step) * step


def _product_with_copy(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """x W' + b, for any leading axes of x."""
    rows = x.numel() // x.shape[-1]
    asked = whole_blocks(rows)
    if asked == rows:
        return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    more = x.new_zeros(asked, x.shape[-1])
    more[:rows] = x.reshape(rows, -1)
    found = torch.ops.mkldnn._linear_pointwise(more, packed, bias, "none", [], "")
    return found[:rows].view(*x.shape[:-1], -1)


def plain_product(x: Tensor, *weights: Tensor) -> Tensor:
    """The same as `Prepacked.product`, with the weights where they are."""
    if len(weights) == 1:
        return torch.mm(x, weights[0].t())
    out, at = x.new_empty(len(x), sum(map(len, weights))), 0
    for weight in weights:
        torch.mm(x, weight.t(), out=out[:, at : at + len(weight)])
        at += len(weight)
    return out


def _can_be_copied(weight: Tensor) -> bool:
    # Tensors made in inference mode do not count their changes.
    plain = weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.layout == torch.strided
    return plain and weight.is_contiguous() and not weight.is_inference()


def _state(weights: Sequence[Tensor]) -> tuple[Any, ...]:
    """What differs once a weight was replaced or written to: by the count that PyTorch keeps of changes, or,
    if they were made to its `data`, by a few of its numbers.
    """
    state: list[Any] = []
    for weight in weights:
        numbers = weight.detach().view(-1).numpy()
        probes = numbers[:: max(1, len(numbers) // PROBES)].tobytes()
        state += [weight.data_ptr(), weight._version, probes]
    return tuple(state)
