"""Fitted Q evaluation per act: the loss against a slow twin, and values of a world that is known exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from turnwise.algorithms.acts import fqe
from turnwise.algorithms.acts.fqe import Config, Row, fit, pack, played
from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.models.agents.act_critic import act_q_of
from turnwise.models.agents.settings import MemorySpec
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun

f64 = torch.float64
GAMMA, ACTS = 0.9, 3


def row(seed: int, n: int, terminated: bool = True, next_known: bool = True) -> Row:
    rng = np.random.default_rng(seed)
    e = Episode(
        observations=rng.integers(0, 4, n + 1),
        actions=rng.integers(0, ACTS, n),
        rewards=rng.normal(size=n),
        terminated=terminated,
        truncated=not terminated,
        next_known=next_known,
    )
    return Row(e, rng.dirichlet(np.ones(ACTS), n + 1))


ROWS: list[Row] = [
    row(0, 3),
    row(1, 2, terminated=False),
    row(2, 4, terminated=False, next_known=False),
    row(3, 1),
]
for number in (0, 2, 3):  # what the target would do after a true end, or after words that nobody logged
    ROWS[number].target[-1] = np.nan


class Given(nn.Module):
    """A network whose output is its parameter."""

    def __init__(self, seed: int, batch: Batch):
        super().__init__()
        B, A = batch.mask.shape
        generator = torch.Generator().manual_seed(seed)
        self.q = nn.Parameter(torch.randn((B, A + 1, ACTS), dtype=f64, generator=generator))

    def forward(self, batch: Batch) -> Tensor:
        return self.q


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_loss(lam: float) -> None:
    """One act at a time: targets bootstrap from the slow copy under the target, but after a true end; an act
    whose next state is unknown has no target. The gradient is -2 (G - Q) at what was done and 0 elsewhere."""
    packed = pack(ROWS, GAMMA, f64)
    net, slow = Given(0, packed.batch), Given(1, packed.batch)
    total, sums = fqe.loss(net, slow, packed, 7.0, lam)
    total.backward()
    error, gradient = 0.0, np.zeros(net.q.shape)
    for b, (e, pi) in enumerate(ROWS):
        n = len(e)
        v = [float(pi[k] @ slow.q.detach().numpy()[b, k]) for k in range(n + 1)]
        last = n if e.next_known else n - 1
        goal = 0.0
        for k in reversed(range(last)):
            after = v[k + 1] if k == last - 1 else (1 - lam) * v[k + 1] + lam * goal
            goal = float(e.rewards[k]) + (0.0 if e.terminated and k == n - 1 else GAMMA * after)
            short = goal - float(net.q.detach()[b, k, e.actions[k]])
            error += short**2
            gradient[b, k, e.actions[k]] = -2 * short / 7
    assert sums["td"].item() == pytest.approx(error, abs=1e-10)
    assert total.item() == pytest.approx(error / 7, abs=1e-10) and sums["decisions"] == 9
    assert net.q.grad is not None and slow.q.grad is None
    np.testing.assert_allclose(net.q.grad.numpy(), gradient, atol=1e-10)


def desk(conversations: int, seed: int) -> tuple[list[Row], float]:
    """A fault, 0 or 1, that the first question tells; then act 0 or 1 names it and earns 10 or -10, and act 2
    asks again for -1, which is a true end at the third decision. What was told is seen once: a memory of the
    last answer alone knows it no more after another question, which is answered by symbol 3.

    The target asks first, and then names what it was told (.7), the other (.1) or asks (.2): exactly
    -1 + .7 * 10 - .1 * 10 + .2 (-1 + .7 * 10 - .1 * 10 - .2) = 5.96. The logs draw acts evenly.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(conversations):
        fault, told = int(rng.integers(2)), None
        seen, acts, rewards, target = [0], [], [], []
        while True:
            if told is None:
                target.append([0.0, 0.0, 1.0])
            else:
                target.append([0.7, 0.1, 0.2] if told == 0 else [0.1, 0.7, 0.2])
            act = int(rng.integers(3))
            acts.append(act)
            rewards.append(-1.0 if act == 2 else 10.0 if act == fault else -10.0)
            seen.append(0 if act != 2 else 1 + fault if told is None else 3)
            told = fault if act == 2 else told
            if act != 2 or len(acts) == 3:
                break
        episode = Episode(np.array(seen), np.array(acts), np.array(rewards), True, False)
        rows.append(Row(episode, np.array([*target, [0.0, 0.0, 0.0]])))
    return rows, -1 + 6 + 0.2 * (-1 + 6 - 0.2)


QUICK = Config(epochs=10.0, batch_size=32, optimizer=AdamW(lr=1e-2, warmup=0.04))


def test_values_of_a_policy_that_the_logs_never_followed() -> None:
    """On 500 random talks, valued on others: the target within .5 of its value, where the logs earn less by
    5, in the first state and after the fault was told; and the same values whatever the unit of rewards."""
    rows, true = desk(500, 0)
    others, _ = desk(200, 1)
    fitted = fit(QUICK, rows, 4, ACTS, memory=MemorySpec(width=16), seed=0)
    found = fitted.values(others)
    earned = np.mean([r.episode.rewards.sum() for r in rows])
    assert abs(earned - true) > 5
    assert found.v[:, 0].mean() == pytest.approx(true, abs=0.5)
    told = np.array([len(r.episode) > 1 for r in others])
    assert found.v[told, 1].mean() == pytest.approx(6 + 0.2 * (-1 + 6 - 0.2), abs=0.5)
    assert (found.final == 0).all()
    named = [(r.episode.actions[1] == r.episode.observations[1] - 1) for r in others if len(r.episode) == 2]
    q = found.q[[len(r.episode) == 2 for r in others], 1]
    assert np.abs(q - np.where(named, 10, -10)).max() < 2

    cheap = [Row(replace(r.episode, rewards=r.episode.rewards / 1024), r.target) for r in rows[:300]]
    few = replace(QUICK, epochs=1.0)
    a, b = (fit(few, x, 4, ACTS, memory=MemorySpec(width=16), seed=0) for x in (rows[:300], cheap))
    np.testing.assert_allclose(a.values(others).q, 1024 * b.values(others).q, rtol=1e-4, atol=1e-4)


def test_a_fit_is_a_function_of_its_seed_and_leaves_the_generator_alone() -> None:
    rows, _ = desk(40, 0)
    few = replace(QUICK, epochs=1.0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, other = (fit(few, rows, 4, ACTS, seed=s).values(rows).q for s in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_values_of_rows_one_by_one_are_those_of_rows_side_by_side() -> None:
    """Whatever stands beside a conversation in its batch; and `final` follows a cut, known or unknown."""
    fitted = fit(Config(epochs=1.0, batch_size=2), ROWS, 4, ACTS, memory=MemorySpec(width=8))
    together = fitted.values(ROWS)
    for b, r in enumerate(ROWS):
        n, alone = len(r.episode), fitted.values([r])
        np.testing.assert_allclose(alone.q[0], together.q[b, :n], atol=1e-5)
        np.testing.assert_allclose(alone.v[0], together.v[b, :n], atol=1e-5)
        assert not together.q[b, n:].any() and not together.v[b, n:].any()
        assert alone.final[0] == pytest.approx(together.final[b], abs=1e-5)
    q = fitted.q([r.episode for r in ROWS], at_once=1)
    np.testing.assert_allclose(q, fitted.q([r.episode for r in ROWS]), atol=1e-5)
    assert together.final[1] == pytest.approx(ROWS[1].target[2] @ q[1, 2], abs=1e-5)
    assert together.final[2] == pytest.approx(together.q[2, 3] - ROWS[2].episode.rewards[3], abs=1e-5)


def test_the_clock_tells_turns_apart() -> None:
    """Of a memory that sees the same at every turn: alike at first, apart with a clock that has learnt, and
    alike from its last turn on."""
    e = Episode(np.zeros(6, int), np.zeros(5, int), np.zeros(5), True, False)
    batch = pack([Row(e, np.full((6, ACTS), 1 / ACTS))], GAMMA).batch
    q = act_q_of(MemorySpec("none", 8), 4, ACTS, turns=3, initial=1.0)
    with torch.no_grad():
        nn.init.normal_(q.head.out.weight)
        alike = q(batch)[0]
        nn.init.normal_(q.clock.weight)
        apart = q(batch)[0]
    np.testing.assert_allclose(alike, alike[:1].expand(6, ACTS), atol=1e-6)
    np.testing.assert_allclose(apart[2:], apart[2:3].expand(4, ACTS), atol=1e-6)
    assert (apart[:2] - apart[1:3]).abs().amax(1).min() > 0.1


def test_odd_logs(tmp_path) -> None:
    """One conversation; rewards that are all alike; a run whose folder stays, with held-out losses."""
    one = [row(7, 1)]
    assert np.isfinite(fit(Config(epochs=1.0), one, 4, ACTS).values(one).q).all()
    for reward in (0.0, 0.1):  # alike, but for rounding where talks are of one length
        flat = [
            Row(replace(r.episode, rewards=np.full(len(r.episode), reward)), r.target) for r in ROWS[:1] * 3
        ]
        found = fit(Config(epochs=1.0), flat, 4, ACTS).values(flat).v
        assert np.abs(found - 3 * reward).max() < 0.3
    run = TrainingRun(tmp_path, log_every=1, quiet=True)
    fit(Config(epochs=1.0), ROWS, 4, ACTS, heldout=ROWS[:2], run=run)
    assert "heldout/td" in (tmp_path / "metrics.jsonl").read_text()


def test_what_is_no_target_is_refused() -> None:
    short = [Row(ROWS[0].episode, ROWS[0].target[:3])]
    with pytest.raises(ValueError, match=r"target of conversation 0 has shape \(3, 3\); expected \(4, 3\)"):
        played(short)
    with pytest.raises(ValueError, match=r"target\[0, 0\] sums to 2"):
        fit(Config(), [Row(ROWS[0].episode, 2 * ROWS[0].target)], 4, ACTS)
