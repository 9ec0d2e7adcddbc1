"""R2D2's targets, priorities and masks by hand; exact resumption, replay included."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from turnwise.algorithms.acting import r2d2, sac
from turnwise.algorithms.acting.r2d2 import Config
from turnwise.data.episode import Episode
from turnwise.data.replay import Replay
from turnwise.data.steps import joined, pack_steps
from turnwise.envs.problems.classics import t_maze, tiger
from turnwise.envs.protocol import Discrete
from turnwise.envs.tabular import TabularEnv
from turnwise.models.agents.q_network import EpsilonGreedy, QHead, QNetwork, greedy_table, spread
from turnwise.models.agents.soft_actor_critic import soft_actor_critic_of
from turnwise.models.memory.base import LearnedMemory
from turnwise.models.memory.encoders import Encoder, ObservationEncoder
from turnwise.models.memory.recurrent import GRU
from turnwise.models.memory.window import Window
from turnwise.models.target import slow_copy
from turnwise.run.errors import Interrupted
from turnwise.run.files.checkpoint import Checkpoints
from turnwise.run.training import TrainingRun

f64 = torch.float64


def memory(observations: int, actions: int, width: int = 8) -> LearnedMemory:
    return LearnedMemory(Encoder(Discrete(observations), Discrete(actions), width), GRU(width))


def network(seed: int = 0, observations: int = 5, actions: int = 3) -> QNetwork:
    """Q that is not constant: the last layer is drawn too."""
    torch.manual_seed(seed)
    agent = QNetwork(memory(observations, actions), actions).double()
    torch.nn.init.normal_(agent.head.value.out.weight)
    return agent


def episode(n: int, seed: int, terminated: bool = False, age: int = 0, memory: Any = None) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        observations=rng.integers(0, 5, n + 1),
        actions=rng.integers(0, 3, n),
        rewards=rng.normal(size=n),
        terminated=terminated,
        truncated=not terminated,
        age=age,
        previous_action=1 if age else None,
        memory=memory,
    )


class Told:
    """A target network that says what it is told to."""

    def __init__(self, q: list[Any]):
        self.q = torch.tensor(q, dtype=f64)

    def __call__(self, batch: Any) -> torch.Tensor:
        return self.q


def test_double_q_targets_by_hand() -> None:
    """Two steps, gamma 1/2, rewards 1 and 2. The online argmax at decisions 1, 2 is action 1, 0.

    There the slow copy says 10 (not its own best, 30) and 8. Cut: n = 1: 1 + 10/2 = 6, 2 + 8/2 = 6;
    n = 2: 1 + (2 + 8/2)/2 = 4, and the row ends: 6. Ended: n = 1: 6, 2; n = 2: 1 + 2/2 = 2, 2.
    """
    online = torch.tensor([[[0.0, 1.0], [3.0, 5.0], [7.0, 2.0]]], dtype=f64)
    target: Any = Told([[[50.0, 60.0], [30.0, 10.0], [8.0, 90.0]]])
    rows = {
        ended: Episode(np.zeros(3, np.int64), np.zeros(2, np.int64), np.array([1.0, 2.0]), ended, not ended)
        for ended in (False, True)
    }
    expected = {(False, 1): [6, 6], (False, 2): [4, 6], (True, 1): [6, 2], (True, 2): [2, 2]}
    for (ended, n), values in expected.items():
        batch = pack_steps([rows[ended]], gamma=0.5, dtype=f64)
        found = r2d2.targets(target, online, batch, Config(n=n))
        assert found.tolist() == [values], (ended, n)


def test_priorities_by_hand() -> None:
    """|td| = 1, 3 and then padding: .9 * 3 + .1 * 2 + .01; one decision of 2 after burn-in of 9: 2 + .01."""
    td = torch.tensor([[1.0, -3.0, 99.0], [9.0, 2.0, 99.0]], dtype=f64)
    mask = torch.tensor([[True, True, False], [False, True, False]])
    found = r2d2.priorities(td, mask, Config(eta=0.9, priority_floor=0.01))
    assert found.tolist() == pytest.approx([2.91, 2.01], abs=1e-12)


def loss_of(rows: list[Episode], pad: int = 0) -> tuple[torch.Tensor, QNetwork]:
    """The loss of rows, with `pad` positions more than they need."""
    agent = network()
    if pad:
        longest = episode(max(len(r) for r in rows) + pad, 99)
        batch = pack_steps([*rows, longest], gamma=0.9, dtype=f64)
        keep = batch.loss_mask.clone()
        keep[-1] = False
        batch = replace(batch, loss_mask=keep)
    else:
        batch = pack_steps(rows, gamma=0.9, dtype=f64)
    weights = torch.ones(len(batch.rewards), dtype=f64)
    total, _, _ = r2d2.loss(agent, slow_copy(network(1)), batch, weights, 3.0, Config(n=3))
    total.backward()
    return total.detach(), agent


def test_padding_changes_neither_loss_nor_gradient() -> None:
    rows = [episode(4, 1), episode(7, 2, terminated=True), episode(2, 3, age=5, memory=np.full(8, 0.3))]
    (a, one), (b, other) = loss_of(rows), loss_of(rows, pad=5)
    assert abs(float(a - b)) < 1e-10
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        torch.testing.assert_close(p.grad, q.grad, atol=1e-10, rtol=0)


def test_burn_in_is_read_and_not_learnt_from() -> None:
    """Gradients at Q of burn-in are exactly 0, of what follows not; its rewards change no loss."""
    before, after = episode(3, 4), episode(4, 5, age=3)
    row = joined(before, after)
    batch = pack_steps([row], gamma=0.9, dtype=f64)
    assert batch.loss_mask.tolist() == [[False] * 3 + [True] * 4]
    agent, seen = network(), []
    agent.head.register_forward_hook(lambda m, i, o: (o.retain_grad(), seen.append(o))[1])
    total, _, _ = r2d2.loss(agent, slow_copy(network(1)), batch, torch.ones(1, dtype=f64), 1.0, Config())
    total.backward()
    grad = seen[0].grad[0]
    assert (grad[:3] == 0).all() and (grad[3:7].abs().sum(-1) > 0).all() and (grad[7] == 0).all()
    # Its rewards enter the memory as inputs; with that reading fixed, they are in no target.
    richer = replace(batch, rewards=batch.rewards + 100.0 * (~batch.loss_mask))
    again, _, _ = r2d2.loss(agent, slow_copy(network(1)), richer, torch.ones(1, dtype=f64), 1.0, Config(n=3))
    same, _, _ = r2d2.loss(agent, slow_copy(network(1)), batch, torch.ones(1, dtype=f64), 1.0, Config(n=3))
    assert float(again.detach()) == float(same.detach())


def test_staleness_is_zero_for_memories_of_the_same_weights() -> None:
    """A stored memory that these weights made is not stale; one that is off is, unless burn-in forgets it."""
    agent = network()
    whole = episode(9, 6)
    before = replace(
        whole, observations=whole.observations[:6], actions=whole.actions[:5], rewards=whole.rewards[:5]
    )
    batch = pack_steps([before], gamma=1.0, dtype=f64)
    features = agent.memory.unroll(batch.inputs)
    fresh = features[0, 4].detach().numpy()  # a GRU's state is its output: after five observations
    after = Episode(
        whole.observations[5:], whole.actions[5:], whole.rewards[5:], False, True, age=5,
        previous_action=whole.actions[4], previous_reward=float(whole.rewards[4]), memory=fresh,
    )  # fmt: skip
    for row, stale in ((after, False), (replace(after, memory=fresh + 0.5), True)):
        replay = Replay(100, 1)
        replay.add([before], 5)
        replay.add([row], 4)
        found = r2d2.staleness(agent, replay, np.array([0, 1]), 0, Config())
        assert found is not None and (found > 1e-3 if stale else found < 1e-12)
        assert r2d2.staleness(agent, replay, np.array([0, 1]), 1, Config()) is None


def test_dueling_head() -> None:
    """Q = v + a - mean a with v = 2, a = 1, 2, 6: mean 3, so 0, 1, 5. Rescaling changes no Q."""
    head = QHead(4, 3).double()
    torch.nn.init.zeros_(head.value.hidden.weight)
    with torch.no_grad():
        head.value.out.bias.copy_(torch.tensor([2.0, 1.0, 2.0, 6.0]))
    assert head(torch.zeros(1, 4, dtype=f64)).tolist() == [[0.0, 1.0, 5.0]]
    agent = network()
    batch = pack_steps([episode(5, 1)], gamma=1.0, dtype=f64)
    before = agent(batch)
    agent.head.value.update_scale_(torch.tensor([-100.0, 40.0], dtype=f64), 0.3)
    torch.testing.assert_close(agent(batch), before, atol=1e-12, rtol=0)


def test_spread_and_epsilon_greedy() -> None:
    """.4^(1 + 7 i / 2) = .4, .4^4.5, .4^8; of 3 x 20,000 actions as many are best as should be."""
    torch.testing.assert_close(spread(0.4, 7.0, 3), torch.tensor([0.4, 0.4**4.5, 0.4**8]))
    assert spread(0.3, 7.0, 1).tolist() == pytest.approx([0.3])
    assert spread(1.0, 7.0, 4).tolist() == [1.0] * 4
    agent = network()
    n = 20_000
    epsilons = torch.tensor([0.0, 0.3, 1.0]).repeat_interleave(n)
    batch = pack_steps([episode(2, 1)] * (3 * n), gamma=1.0, dtype=f64)
    inputs = type(batch.inputs)(*(x[:, 0] for x in batch.inputs))
    acted = EpsilonGreedy(agent, epsilons).act(inputs, agent.initial_state(3 * n))
    best = acted.actions == agent.act(inputs, agent.initial_state(3 * n)).actions
    np.testing.assert_allclose(best.view(3, n).double().mean(1), [1.0, 0.8, 1 / 3], atol=0.012)
    p = acted.logp.exp().view(3, n)
    expected = [[1.0, 1.0], [0.8, 0.1], [1 / 3, 1 / 3]]
    for lane in range(3):
        np.testing.assert_allclose(p[lane][best.view(3, n)[lane]], expected[lane][0])
        np.testing.assert_allclose(p[lane][~best.view(3, n)[lane]], expected[lane][1])


def test_greedy_table_of_a_memoryless_agent() -> None:
    """It is the argmax of Q at each observation, whatever happened before it."""
    torch.manual_seed(5)
    agent = QNetwork(LearnedMemory(ObservationEncoder(Discrete(5), 8), Window(8, 1)), 3).double()
    for p in agent.parameters():
        torch.nn.init.normal_(p)
    batch = pack_steps([episode(30, 2)], gamma=1.0, dtype=f64)
    table = greedy_table(agent, 5)
    assert torch.equal(agent(batch).argmax(-1)[0], table[batch.inputs.observation[0]])
    assert len(set(table.tolist())) > 1


SMALL: Any = {
    "steps": 1280,
    "lanes": 4,
    "rollout": 8,
    "warmup": 60,
    "updates": 2,
    "batch_size": 5,
    "capacity": 150,
}
"""40 collections; the replay is full after 5, and episodes of 20 steps are longer than rows"""


def train(algorithm: str, folder: Path, stop: int | None = None) -> None:
    """Every checkpoint and metric of a small run; stopped by Ctrl-C in its step `stop`."""
    problem = tiger() if algorithm == "r2d2" else t_maze(2)
    env = TabularEnv(problem, 20)
    observations, actions = env.symbols, len(problem.actions)
    torch.manual_seed(3)
    run = TrainingRun(folder, quiet=True, log_every=1, checkpoint_every=7)
    if stop is not None:
        due = run.due

        def press(step: int) -> bool:
            if step == stop:
                os.kill(os.getpid(), signal.SIGINT)
            return due(step)

        run.due = press  # type: ignore[method-assign]
    with contextlib.suppress(Interrupted):
        if algorithm == "r2d2":
            agent = QNetwork(memory(observations, actions), actions)
            r2d2.train(r2d2.Config(**SMALL), env, agent, run, 5)
        else:
            twin = soft_actor_critic_of(
                Discrete(actions), memory(observations, actions), memory(observations, actions)
            )
            sac.train(sac.Config(**SMALL), env, twin, run, 5)


def assert_identical(a: Any, b: Any, where: str = "") -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds", "lanes"}:
            assert_identical(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, list | tuple):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_identical(x, y, f"{where}/{i}")
    else:
        assert a == b, where


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("algorithm", ["r2d2", "sac"])
def test_stopped_and_resumed_equals_whole(algorithm: str, tmp_path: Path) -> None:
    """Stopped in step 17 of 40, when rows are being dropped: weights, targets, replay, metrics to the bit."""
    train(algorithm, tmp_path / "whole")
    train(algorithm, tmp_path / "parts", stop=17)
    half = Checkpoints(tmp_path / "parts").latest()
    assert half["step"] == 18 and half["experience"]["replay"]["dropped"] > 0
    train(algorithm, tmp_path / "parts")
    whole, parts = (Checkpoints(tmp_path / x).latest() for x in ("whole", "parts"))
    assert whole["step"] == 40
    assert_identical(whole, parts)
    lines = []
    for x in ("whole", "parts"):
        text = (tmp_path / x / "metrics.jsonl").read_text().splitlines()
        lines.append([line.split(", ", 2)[0] + line.split(", ", 2)[2] for line in text])
    assert len(lines[0]) == 40 and lines[0] == lines[1]
