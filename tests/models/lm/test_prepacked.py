"""Products from copies of weights: the same numbers, of the weights as they are, where there is room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from turnwise.models.lm.lanes import prepacked
from turnwise.models.lm.lanes.prepacked import (
    LEAST,
    WORTH,
    Prepacked,
    plain_product,
    prepacked_for,
    whole_blocks,
)

WIDE = 192
ROOM = 2**30

if not prepacked.can_prepack():
    pytest.skip("this PyTorch, or this processor, has no such products", allow_module_level=True)


def matrices(*rows: int) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(n, WIDE)) for n in rows]


@torch.inference_mode()
def multiplied(products: Prepacked, x: Tensor, *weights: Tensor) -> Tensor:
    products.refresh()
    return products.product(x, *weights)


@pytest.mark.parametrize("rows", [1, 3, 17, 32, 200])
def test_products_side_by_side(rows: int) -> None:
    """Within float32's rounding of sums of 192 numbers of order 1, copied and not."""
    weights, products = matrices(192, 64, 65), Prepacked(ROOM)
    x = torch.randn(rows, WIDE)
    expected = torch.cat([x.double() @ w.double().t() for w in weights], 1)
    for copied in (False, True):
        found = multiplied(products, x, *weights)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
        assert bool(products._copies) == (copied or rows >= WORTH)
        multiplied(products, torch.randn(WORTH, WIDE), *weights)


def test_products_are_asked_for_few_numbers_of_rows() -> None:
    """1 to 16 as they are, then multiples of 16, of 32 from 256, of 64 from 512: never fewer than there are,
    and at most 15 or an eighth more. 10,000 numbers become 73."""
    pairs = [(n, whole_blocks(n)) for n in range(1, 10_001)]
    assert all(n <= m <= max(n + 15, n * 9 / 8) for n, m in pairs)
    assert [whole_blocks(n) for n in (16, 17, 255, 257, 1000)] == [16, 32, 256, 288, 1024]
    assert len({m for _, m in pairs}) == 73


def test_copies_are_of_the_weights_as_they_are() -> None:
    """After a step of an optimizer, a loaded state, writing behind PyTorch's back, and of a new parameter."""
    layer, products, x = nn.Linear(WIDE, 96), Prepacked(ROOM), torch.randn(WORTH, WIDE)

    def stepped() -> None:
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
        layer(x).square().sum().backward()
        optimizer.step()

    def loaded() -> None:
        layer.load_state_dict(nn.Linear(WIDE, 96).state_dict())

    def written() -> None:
        layer.weight.data.mul_(2)

    def seen_by_numpy() -> None:
        layer.weight.detach().numpy()[:] += 1

    def replaced() -> None:
        layer.weight = nn.Parameter(torch.randn(96, WIDE))

    multiplied(products, x, layer.weight)
    for change in (stepped, loaded, written, seen_by_numpy, replaced):
        before = layer.weight.detach().clone()
        assert products._copies
        change()
        assert not torch.equal(layer.weight, before)
        found = multiplied(products, x, layer.weight)
        torch.testing.assert_close(found, x @ layer.weight.detach().t(), rtol=0, atol=2e-3)


def test_what_is_not_copied() -> None:
    """Small matrices, those there is no room for, those of other precisions, and any while gradients flow."""
    x, (wide, small) = torch.randn(WORTH, WIDE), matrices(96, LEAST // WIDE - 1)
    products = Prepacked(4 * 96 * WIDE)
    multiplied(products, x, small)
    multiplied(products, x.double(), nn.Parameter(wide.detach().double()))
    products.product(x, wide).sum().backward()
    assert wide.grad is not None and not products._copies
    multiplied(products, x, wide)
    assert len(products._copies) == 1
    other = nn.Parameter(wide.detach() + 1)
    torch.testing.assert_close(multiplied(products, x, other), x @ other.detach().t())
    assert len(products._copies) == 1  # no room for a second one
    with torch.no_grad():
        wide.add_(1)
    products.refresh()
    assert not products._copies and products._left == 4 * 96 * WIDE


def adapted(layer: nn.Module) -> nn.Module:
    """The layer with an adapter of rank 2, whose matrices are too small to be copied."""
    from peft import LoraConfig
    from peft.tuners.lora import Linear

    from turnwise.models.lm.learning.adapted import quicken_

    made = Linear(layer, "default", LoraConfig(), r=2, lora_alpha=4)
    nn.init.normal_(made.lora_B["default"].weight)
    quicken_(made)
    assert type(made) is not Linear
    return made


@pytest.mark.parametrize("kind", ["linear", "no bias", "GPT-2's", "adapted", "bfloat16 by autocast"])
def test_modules_multiply_so_in_a_block(kind: str) -> None:
    from transformers.pytorch_utils import Conv1D

    layer = Conv1D(96, WIDE) if kind == "GPT-2's" else nn.Linear(WIDE, 96, bias=kind != "no bias")
    nn.init.normal_(layer.weight)
    if kind == "adapted":
        layer = adapted(layer)
    x, products = torch.randn(4, WORTH // 4, WIDE), Prepacked(ROOM)
    with torch.inference_mode(), torch.autocast("cpu", enabled=kind.startswith("bfloat16")):
        expected = layer(x)
        with products:
            found = layer(x)
    assert bool(products._copies) == (not kind.startswith("bfloat16"))
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_where_operators_are_missing_or_wrong_nothing_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(WIDE, WIDE)
    assert prepacked_for(model) is not None and prepacked_for(model.double()) is None

    def tried(change: Callable[..., Any] | None) -> bool:
        class Operators:
            _reorder_linear_weight = staticmethod(torch.ops.mkldnn._reorder_linear_weight)
            if change is not None:
                _linear_pointwise = staticmethod(change)

        with monkeypatch.context() as m:
            m.setattr(torch.ops, "mkldnn", Operators)
            prepacked.can_prepack.cache_clear()
            return prepacked.can_prepack()

    right = torch.ops.mkldnn._linear_pointwise
    try:
        assert tried(right)
        assert not tried(None)
        assert not tried(lambda *a: right(*a) + 0.01)
        assert not tried(lambda x, w: x)  # called in another way
    finally:
        prepacked.can_prepack.cache_clear()
    assert torch.equal(plain_product(torch.eye(WIDE), model.float().weight), model.weight.t())
