"""Adapted layers as one step of autograd, against `peft`'s modules; products by oneDNN."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft.tuners.lora import Linear as Adapted
from torch.testing import assert_close

from turnwise.data.batch import pack_tokens
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.learning.adapted import QuickAdapted, bytes_kept
from turnwise.models.lm.lora import dropouts_of, merged, with_lora
from turnwise.models.lm.replies import actions_logp
from turnwise.models.products import kept_in, product


def by_modules(model: Any) -> Any:
    """A copy whose adapted layers are `peft`'s own."""
    plain = copy.deepcopy(model)
    for layer in plain.modules():
        if type(layer) is QuickAdapted:
            layer.__class__ = Adapted
    return plain


def adapted(dtype: torch.dtype, **settings: Any) -> Any:
    torch.manual_seed(0)
    lm: Any = llama(23, width=8, layers=2, heads=2, context=64, eos=1, pad=0)
    for layer in lm.model.layers:  # some families have biases
        layer.self_attn.q_proj.bias = torch.nn.Parameter(torch.randn(8))
    lm = with_lora(lm, 3, alpha=5.0, **settings)
    for name, p in lm.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p, std=0.2)
    return lm.to(dtype)


def loss_and_gradients(lm: Any, row: Any, dtype: torch.dtype) -> tuple[Any, ...]:
    batch = pack_tokens([row("7 3|1 2 9"), row("5 3|4 9 8 1"), row("4|2")], gamma=1.0, dtype=dtype)
    loss = -actions_logp(lm, batch).sum() / batch.mask.sum()
    return loss.detach(), *torch.autograd.grad(loss, [p for p in lm.parameters() if p.requires_grad])


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_an_adapted_layer_computes_what_modules_do(row: Any, dtype: torch.dtype, close: float) -> None:
    """Loss, and gradients of all adapters relative to the largest of them; no module is passed by."""
    lm = adapted(dtype)
    assert sum(type(m) is QuickAdapted for m in lm.modules()) == 2 * 7
    found, wanted = (loss_and_gradients(m, row, dtype) for m in (lm, by_modules(lm)))
    largest = max(float(x.abs().max()) for x in wanted)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, rtol=0.0, atol=close * largest)


@pytest.mark.parametrize("rows", [2, 40])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@torch.no_grad()
def test_without_gradients_adapters_are_folded_in_for_many_rows(
    rows: int, dtype: torch.dtype, close: float
) -> None:
    """The same products, by few rows and by many, with a bias and without; weights stay as they were."""
    lm = adapted(dtype)
    plain, ids = by_modules(lm), torch.arange(rows * 12).reshape(rows, 12) % 23
    before = [p.clone() for p in lm.parameters()]
    wanted = plain(input_ids=ids).logits
    assert_close(lm(input_ids=ids).logits, wanted, rtol=0.0, atol=close * float(wanted.abs().max()))
    assert all(torch.equal(a, b) for a, b in zip(before, lm.parameters(), strict=True))


@torch.no_grad()
def test_in_half_precision_an_adapter_that_adds_little_is_not_lost() -> None:
    """Weights are 1, what is read is +-1, so that they give 0. An adapter that adds +-.001 to each gives
    8 (.001); folded in, 1.001 and .999 would both be 1 in bfloat16, and all of it gone."""
    lm = adapted(torch.float32)
    layer: Any = lm.base_model.model.model.layers[0].self_attn.k_proj
    signs = torch.tensor([1.0, -1.0]).repeat(4)
    layer.get_base_layer().weight.fill_(1.0)
    layer.lora_A["default"].weight.copy_(signs.expand(3, 8))
    layer.lora_B["default"].weight.fill_(0.001 / 3 / layer.scaling["default"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        added = layer(signs.expand(64, 8))
    assert_close(added.float(), torch.full((64, 8), 0.008), rtol=0.02, atol=0.0)


def test_below_an_autocast_gradients_are_as_near_the_exact_ones_as_those_of_modules(row: Any) -> None:
    lm = adapted(torch.float32)
    exact = torch.cat([x.flatten() for x in loss_and_gradients(lm, row, torch.float32)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pairs = [loss_and_gradients(m, row, torch.float32) for m in (lm, by_modules(lm))]
    ours, theirs = (torch.cat([x.flatten() for x in each]) for each in pairs)
    assert {x.dtype for each in pairs for x in each} == {torch.float32}
    off = [float((x - exact).norm() / exact.norm()) for x in (ours, theirs)]
    assert 0 < off[0] < 1.2 * off[1] < 0.06  # bfloat16 has 8 bits; two layers and a softmax


def test_weights_kept_in_another_precision_follow_those_that_were_written() -> None:
    """Another precision is kept until the weight is written to or has another place; its own is itself. Two
    layers of width 8 have 4 products of 8 x 8 and 3 of 8 x the inner width, 2 bytes a weight."""
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]), requires_grad=False)
    assert kept_in(weight, torch.float32) is weight
    before = kept_in(weight, torch.bfloat16)
    assert kept_in(weight, torch.bfloat16) is before
    with torch.no_grad():
        weight.mul_(3.0)
    assert kept_in(weight, torch.bfloat16).tolist() == [3.0, 6.0]
    weight.data = torch.tensor([5.0, 7.0])
    assert kept_in(weight, torch.bfloat16).tolist() == [5.0, 7.0]
    lm = adapted(torch.float32)
    wide = lm.config.intermediate_size
    assert bytes_kept(lm, torch.bfloat16) == 2 * 2 * (4 * 64 + 3 * 8 * wide)
    assert bytes_kept(lm, torch.float32) == 0


def test_what_the_formula_has_not_is_left_to_the_modules() -> None:
    """Dropout while it learns, weights in a precision of their own, adapters that are switched off or folded
    in: to the bit what `peft` gives."""
    ids = torch.tensor([[5, 6, 7, 8]])
    lm = adapted(torch.float32, dropout=0.5)
    found = []
    for m in (lm, by_modules(lm)):
        for dropout in dropouts_of(m):
            dropout.train()
        torch.manual_seed(1)
        found.append(m(input_ids=ids).logits)
    assert torch.equal(*found)
    for m in (lm, by_modules(lm)):
        for dropout in dropouts_of(m):
            dropout.eval()
        with m.disable_adapter():
            found.append(m(input_ids=ids).logits)
    assert torch.equal(*found[2:])
    wanted = lm(input_ids=ids).logits
    assert_close(merged(copy.deepcopy(lm))(input_ids=ids).logits, wanted, rtol=1e-4, atol=1e-5)
    half = lm.to(torch.bfloat16)
    for name, p in half.named_parameters():
        if "lora_" in name:
            p.data = p.data.float()
    assert torch.equal(half(input_ids=ids).logits, by_modules(half)(input_ids=ids).logits)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_products_of_any_strides(kind: torch.dtype) -> None:
    """x W' + b against sums by hand; the weight as it is, turned, and of no row."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(5, 4, dtype=kind), torch.randn(3, 4, dtype=kind), torch.randn(3, dtype=kind)
    by_hand = (x[:, None] * weight).sum(-1)
    assert_close(product(x, weight), by_hand)
    assert_close(product(x, weight, bias), by_hand + bias)
    assert_close(product(by_hand, weight.t()), (by_hand[:, None] * weight.t()).sum(-1))
    assert product(x[:0], weight).shape == (0, 3)
