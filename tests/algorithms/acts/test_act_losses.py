"""The losses of algorithms per act against slow twins that go through talks one act at a time, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from turnwise.algorithms.acts import bc, cql, iql, mc
from turnwise.data.acts.pack import pack_acts
from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.models.agents.act_critic import ActValues
from turnwise.models.agents.settings import MemorySpec
from turnwise.models.target import slow_copy

f64 = torch.float64
GAMMA, ACTS = 0.9, 4


def talk(acts: list[int], terminated: bool = True, next_known: bool = True) -> Episode:
    """Rewards .5, -.25, .75, ...."""
    n = len(acts)
    return Episode(
        observations=np.arange(n + 1) % 5,
        actions=np.array(acts),
        rewards=np.resize([0.5, -0.25, 0.75], n),
        terminated=terminated,
        truncated=not terminated,
        next_known=next_known,
    )


ROWS = [talk([1, 3, 0]), talk([2, 2], terminated=False), talk([0, 1, 3, 2], False, next_known=False)]
"""ended; cut behind an answer; cut behind the agent's own words"""


class Given(nn.Module):
    """A network whose outputs are its parameters: a loss's gradient says what it wants of each of them."""

    def __init__(self, seed: int, batch: Batch, ensemble: int, v: bool = True):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        B, A = batch.mask.shape
        self.logits, self.q, self.head = (
            nn.Parameter(torch.randn(shape, dtype=f64, generator=generator))
            for shape in ((B, A + 1, ACTS), (ensemble, B, A + 1, ACTS), (B, A + 1))
        )
        self.has_v = v

    def forward(self, batch: Batch) -> ActValues:
        return ActValues(self.logits, self.q, self.head if self.has_v else self.q.amin(0).amax(-1))

    def q_of(self, batch: Batch) -> Tensor:
        return self.q


def steps_of(e: Episode) -> list[dict[str, Any]]:
    """Reward, discount, act and whether it is learnt from, of each act of a talk."""
    n = len(e)
    return [
        {
            "reward": float(e.rewards[k]),
            "discount": 0.0 if e.terminated and k == n - 1 else GAMMA,
            "act": int(e.actions[k]),
            "learnt": e.next_known or k < n - 1,
        }
        for k in range(n)
    ]


def lambda_twin(steps: list[dict[str, Any]], v: list[float], lam: float) -> list[float]:
    """G_k, from the last act on: bootstrap from V where the next act has no target."""
    goals = [0.0] * len(steps)
    for k in reversed(range(len(steps))):
        follows = k + 1 < len(steps) and steps[k + 1]["learnt"]
        after = (1 - lam) * v[k + 1] + lam * goals[k + 1] if follows else v[k + 1]
        goals[k] = steps[k]["reward"] + steps[k]["discount"] * after
    return goals


def nll(net: Given, b: int, k: int, act: int) -> float:
    row = net.logits.detach()[b, k].numpy()
    return float(np.log(np.exp(row).sum()) - row[act])


@pytest.fixture
def batch() -> Batch:
    return pack_acts(ROWS, gamma=GAMMA, dtype=f64)


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_iql(batch: Batch, lam: float) -> None:
    net, target = Given(0, batch, 2), slow_copy(Given(1, batch, 2))
    c = iql.Config(tau=0.8)
    total, sums = iql.loss(net, target, batch, 7.0, c, lam)
    td = value = clone = 0.0
    q, slow, v = net.q.detach().numpy(), target.q.numpy(), net.head.detach().numpy()
    for b, e in enumerate(ROWS):
        steps = steps_of(e)
        goals = lambda_twin(steps, v[b].tolist(), lam)
        for k, s in enumerate(steps):
            if s["learnt"]:
                td += sum((goals[k] - q[i, b, k, s["act"]]) ** 2 for i in range(2))
                u = min(slow[i, b, k, s["act"]] for i in range(2)) - v[b, k]
                value += (0.2 if u < 0 else 0.8) * u * u
                clone += nll(net, b, k, s["act"])
    found = [sums[name].item() for name in ("td", "expectile", "clone")]
    assert found == pytest.approx([td, value, clone], abs=1e-10)
    assert total.item() == pytest.approx((td + value + clone) / 7, abs=1e-10)
    assert sums["decisions"] == 8


def test_mc(batch: Batch) -> None:
    """Returns to the end; a cut talk has V of its final state, or of the last state that is known."""
    net = Given(0, batch, 1)
    total, sums = mc.loss(net, batch, 7.0)
    q, v = net.q.detach().numpy()[0], net.head.detach().numpy()
    loss = v_loss = clone = 0.0
    for b, e in enumerate(ROWS):
        steps = steps_of(e)
        for k, (s, g) in enumerate(zip(steps, lambda_twin(steps, v[b].tolist(), 1.0), strict=True)):
            if s["learnt"]:
                loss += (g - q[b, k, s["act"]]) ** 2
                v_loss += (g - v[b, k]) ** 2
                clone += nll(net, b, k, s["act"])
    found = [sums[name].item() for name in ("loss", "v_loss", "clone")]
    assert found == pytest.approx([loss, v_loss, clone], abs=1e-10)
    assert total.item() == pytest.approx((loss + v_loss + clone) / 7, abs=1e-10)
    assert sums["return_to_go"].item() == pytest.approx(
        sum(
            g
            for b, e in enumerate(ROWS)
            for s, g in zip(steps_of(e), lambda_twin(steps_of(e), v[b].tolist(), 1.0), strict=True)
            if s["learnt"]
        ),
        abs=1e-10,
    )


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_cql(batch: Batch, weight: float) -> None:
    """At weight 0 it is double Q-learning: the slow copy values what the online values choose."""
    net, target = Given(0, batch, 1, v=False), slow_copy(Given(1, batch, 1, v=False))
    total, sums = cql.loss(net, target, batch, 7.0, cql.Config(cql_weight=weight))
    q, slow = net.q.detach().numpy()[0], target.q.numpy()[0]
    td = low = clone = 0.0
    for b, e in enumerate(ROWS):
        for k, s in enumerate(steps_of(e)):
            if s["learnt"]:
                goal = s["reward"] + s["discount"] * slow[b, k + 1, q[b, k + 1].argmax()]
                td += (goal - q[b, k, s["act"]]) ** 2
                low += np.log(np.exp(q[b, k]).sum()) - q[b, k, s["act"]]
                clone += nll(net, b, k, s["act"])
    assert [sums["td"].item(), sums["cql"].item()] == pytest.approx([td, low], abs=1e-10)
    assert total.item() == pytest.approx((td + weight * low + clone) / 7, abs=1e-10)


def test_a_clone_learns_from_all_acts_also_where_their_answer_is_unknown(batch: Batch) -> None:
    net = Given(0, batch, 1)

    def logits(batch: Batch) -> Tensor:
        return net.logits

    total, sums = bc.loss(logits, batch, 7.0)  # type: ignore[arg-type]
    clone = sum(nll(net, b, k, int(a)) for b, e in enumerate(ROWS) for k, a in enumerate(e.actions))
    assert sums["clone"].item() == pytest.approx(clone, abs=1e-10) and sums["decisions"] == 9
    assert total.item() == pytest.approx(clone / 7, abs=1e-10)


LOSSES = {
    "iql": (iql, lambda net, target, batch: iql.loss(net, target, batch, 7.0, iql.Config(), 0.5)[0]),
    "mc": (mc, lambda net, target, batch: mc.loss(net, batch, 7.0)[0]),
    "cql": (cql, lambda net, target, batch: cql.loss(net, target, batch, 7.0, cql.Config())[0]),
    "bc": (bc, lambda net, target, batch: bc.loss(net, batch, 7.0)[0]),
}


@pytest.mark.parametrize("memory", ["gru", "window", "linear", "transformer"])
@pytest.mark.parametrize("name", LOSSES)
def test_padding_changes_nothing(name: str, memory: Any) -> None:
    """Beside a longer talk, a talk's loss and its gradient are what they were, to 1e-10."""
    module, loss = LOSSES[name]
    torch.manual_seed(0)
    net = module.network(MemorySpec(memory, width=8), 5, ACTS).build(0.3).double()
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    target = slow_copy(net)
    long = talk([0] * 7)

    def gradient(*rows: Episode) -> tuple[float, list[Tensor]]:
        net.zero_grad()
        total = loss(net, target, pack_acts(rows, gamma=GAMMA, dtype=f64))
        total.backward()
        return total.item(), [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]

    (one, g1), (other, g2), (both, g3) = gradient(*ROWS), gradient(long), gradient(*ROWS, long)
    assert both == pytest.approx(one + other, abs=1e-10)
    for a, b, c in zip(g1, g2, g3, strict=True):
        assert_close(a + b, c, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["iql", "mc", "cql"])
def test_what_is_masked_has_no_gradient(name: str, batch: Batch) -> None:
    """Beyond a row's end, and at the act whose answer was never logged."""
    _, loss = LOSSES[name]
    ensemble = 2 if name == "iql" else 1
    net, target = Given(0, batch, ensemble, name != "cql"), slow_copy(Given(1, batch, ensemble))
    loss(net, target, batch).backward()
    out = torch.cat([~batch.loss_mask, torch.ones(3, 1, dtype=torch.bool)], 1)  # [B, A+1]
    assert net.logits.grad is not None and not net.logits.grad[out].any()
    assert net.q.grad is not None and not net.q.grad[:, out].any()
    assert net.logits.grad[~out].abs().sum(-1).all()


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_v_moves_no_memory_but_its_own(memory: Any, batch: Batch) -> None:
    """In one memory with Q, which learns from V, values of long talks rose above all that can be earned."""
    critic = iql.network(MemorySpec(memory, width=8), seen=5, acts=ACTS).build().double()
    generator = torch.Generator().manual_seed(0)
    for p in critic.parameters():  # heads begin at 0, and would let no gradient through
        nn.init.normal_(p, std=0.3, generator=generator)
    critic(batch).v.square().sum().backward()
    moved = {
        name.split(".")[0]
        for name, p in critic.named_parameters()
        if p.grad is not None and bool(p.grad.any())
    }
    assert moved == {"v", "v_memory"}
