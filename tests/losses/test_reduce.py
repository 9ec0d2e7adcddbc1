"""What is masked counts for nothing; and why the denominator is a constant."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from turnwise.data.batch import pack_tokens
from turnwise.data.order import BatchOrder
from turnwise.losses.reduce import sum_over_decisions, sums_over_decisions, sums_over_items
from turnwise.losses.value import squared_error


def test_sum_by_hand() -> None:
    """1 + 2 + 8 = 11 where the mask is True; an ensemble of two copies sums to 22."""
    x, mask = torch.tensor([[1.0, 2.0], [4.0, 8.0]]), torch.tensor([[True, True], [False, True]])
    assert sum_over_decisions(x, mask).item() == 11.0
    assert sum_over_decisions(torch.stack([x, x]), mask).item() == 22.0


def test_what_is_logged_has_no_gradient_and_its_number_of_decisions() -> None:
    """Of 1, 2, 4 and 8 the first, second and fourth count: 11 of three decisions."""
    x = torch.tensor([[1.0, 2.0], [4.0, 8.0]], requires_grad=True)
    found = sums_over_decisions({"x": x, "double": 2 * x}, torch.tensor([[True, True], [False, True]]))
    assert {name: value.item() for name, value in found.items()} == {
        "x": 11.0,
        "double": 22.0,
        "decisions": 3,
    }
    assert not found["double"].requires_grad


def test_sums_over_items_by_hand() -> None:
    """Three pairs: 1 + 2 + 4 = 7, and 14; neither has a gradient."""
    x = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    found = sums_over_items({"x": x, "double": 2 * x})
    assert {name: value.item() for name, value in found.items()} == {"x": 7.0, "double": 14.0, "decisions": 3}
    assert not found["x"].requires_grad and not found["double"].requires_grad


def test_gradient_is_exactly_zero_off_the_mask() -> None:
    """Even where a masked entry is infinite or no number."""
    x = torch.tensor([[1.0, torch.inf], [torch.nan, 8.0]], requires_grad=True)
    total = sum_over_decisions(x, torch.tensor([[True, False], [False, True]]))
    total.backward()
    assert total.item() == 9.0
    assert x.grad.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_gradcheck(rng) -> None:
    x = torch.tensor(rng.normal(size=(2, 3, 4)), requires_grad=True)
    mask = torch.tensor(rng.random((3, 4)) < 0.5)
    assert torch.autograd.gradcheck(lambda y: sum_over_decisions(y**2, mask), (x,))
    assert_close(sum_over_decisions(x, mask), x[:, mask].sum())


def test_means_per_batch_are_biased_and_a_constant_denominator_is_not(row) -> None:
    """Eight conversations of one decision with target 1, eight of three decisions with target 0.

    The mean over the 32 decisions is 8/32 = 1/4, so at v = 1/4 the squared error of the whole data is at
    its minimum: the gradient 2 (8 (v - 1) + 24 v) is 0. Batches of 4 alike conversations (two of either
    kind) have means whose gradients are 2 (v - 1) = -3/2 and 2 v = 1/2: on average -1/2, which pulls v to
    1/2. Divided by the 8 decisions of an average batch they are 2 * 4 (v - 1) / 8 = -3/4 and
    2 * 12 v / 8 = 3/4: on average 0.
    """
    rows = [row("5|9", [1.0])] * 8 + [row("5|1 1 9", [0.0])] * 8
    order = BatchOrder([len(t) for t in rows], batch_size=4, seed=0)
    constant = sum(len(t.decisions) for t in rows) / order.batches_per_epoch
    assert (order.batches_per_epoch, constant) == (4, 8.0)
    per_batch, by_constant = [], []
    for step in range(order.batches_per_epoch):
        batch = pack_tokens([rows[i] for i in order.rows(step)], gamma=1.0)
        v = torch.full_like(batch.rewards, 0.25, requires_grad=True)
        # A conversation's target: what it earns at its end, the same for all of its decisions.
        targets = batch.rewards.sum(1, keepdim=True).expand_as(v)
        total = sum_over_decisions(squared_error(v, targets), batch.loss_mask)
        (gradient,) = torch.autograd.grad(total, v)
        per_batch.append(gradient.sum().item() / int(batch.loss_mask.sum()))
        by_constant.append(gradient.sum().item() / constant)
    assert sorted(per_batch) == pytest.approx([-1.5, -1.5, 0.5, 0.5])
    assert np.mean(per_batch) == pytest.approx(-0.5)
    assert np.mean(by_constant) == pytest.approx(0.0, abs=1e-7)
