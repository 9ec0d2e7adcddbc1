"""The scan of the linear recurrence against the loop that it stands for, and where floats are short."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from turnwise.models.memory.linear_recurrence import LinearRecurrence, scan

f64 = torch.float64


def looped(decay: Tensor, new: Tensor, h: Tensor) -> Tensor:
    """Slow twin."""
    found = []
    for t in range(decay.shape[1]):
        h = decay[:, t] * h + new[:, t]
        found.append(h)
    return torch.stack(found, 1)


def drawn(b: int, t: int, d: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Decays from 0 to 1, both included."""
    g = torch.Generator().manual_seed(seed)
    decay = (1.5 * torch.rand(b, t, d, dtype=f64, generator=g) - 0.25).clamp(0, 1)
    new, h0 = (torch.randn(*shape, dtype=f64, generator=g) for shape in ((b, t, d), (b, d)))
    return decay, new, h0


@given(b=st.integers(1, 3), t=st.integers(1, 70), d=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_scan_is_the_loop_and_so_are_its_gradients(b: int, t: int, d: int, seed: int) -> None:
    inputs = [x.requires_grad_() for x in drawn(b, t, d, seed)]
    weights = torch.randn(b, t, d, dtype=f64, generator=torch.Generator().manual_seed(seed + 1))
    fast, slow = scan(*inputs), looped(*inputs)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-10)
    for a, b_ in zip(
        torch.autograd.grad((fast * weights).sum(), inputs),
        torch.autograd.grad((slow * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b_, rtol=0, atol=1e-10)


@pytest.mark.parametrize("t", [1, 2, 7, 9])
def test_gradients_are_differences(t: int) -> None:
    decay, new, h0 = drawn(2, t, 3, 0)
    inputs = (0.05 + 0.9 * decay, new, h0)
    assert torch.autograd.gradcheck(scan, [x.requires_grad_() for x in inputs])


def test_by_hand() -> None:
    """h: 1 -> .5*1+2 = 2.5 -> 0*2.5+3 = 3 -> 1*3-1 = 2."""
    decay, new = (torch.tensor([x], dtype=f64).unsqueeze(-1) for x in ([0.5, 0.0, 1.0], [2.0, 3.0, -1.0]))
    assert scan(decay, new, torch.ones(1, 1, dtype=f64)).flatten().tolist() == [2.5, 3.0, 2.0]


@pytest.mark.parametrize("decay", [1e-30, 0.01, 0.5, 0.999, 1.0])
def test_strong_and_weak_decay_in_single_precision(decay: float) -> None:
    """4096 steps: products of the decays underflow (0.01^64 already does), and nothing else happens."""
    decays, new, h0 = drawn(2, 4096, 3, 0)
    decays = torch.full_like(decays, decay).float()
    fast = scan(decays, new.float(), h0.float())
    slow = looped(decays.double(), new, h0)
    error = (fast - slow).abs().max() / slow.abs().max()
    assert error < 1e-5


def test_long_rows_in_single_precision() -> None:
    torch.manual_seed(0)
    core = LinearRecurrence(16, 2)
    x, weights = torch.randn(2, 2, 4096, 16)
    found = []
    for dtype in (torch.float32, f64):
        xs = x.to(dtype).requires_grad_()
        y = core.to(dtype).unroll(xs)
        parameters = [*core.parameters()]
        found.append([y, *torch.autograd.grad((y * weights).sum(), [xs, *parameters])])
    for single, double in zip(*found, strict=True):
        assert (single - double).norm() < 1e-4 * double.norm()


def test_a_fresh_layer_remembers_from_2_to_1000_steps() -> None:
    """At inputs of 0 the gates are their biases: decays 1 - 1/2 to 1 - 1/1000."""
    seen: list[Tensor] = []

    def recurrence(decay: Tensor, new: Tensor, h: Tensor) -> Tensor:
        seen.append(decay)
        return h

    nothing = torch.zeros(16, dtype=f64)
    LinearRecurrence(16).to(f64).layers[0](nothing, nothing, recurrence)
    steps = 1 / (1 - seen[0])
    torch.testing.assert_close(steps[[0, -1]], torch.tensor([2.0, 1000.0], dtype=f64), rtol=1e-4, atol=0)
    torch.testing.assert_close(steps[1:] / steps[:-1], (steps[1] / steps[0]).expand(15), rtol=1e-3, atol=0)
