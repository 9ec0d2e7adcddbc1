"""GiGPO per act: what acts are compared with, exact gradients, and that it learns."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import turnwise as tw
from turnwise.algorithms.acts import gigpo
from turnwise.data.acts.pack import ActSymbols, pack_acts
from turnwise.data.episode import Episode
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.models.agents.act_actor import ActActor
from turnwise.models.agents.act_critic import ActCritic, ActNetwork
from turnwise.models.agents.settings import MemorySpec
from turnwise.rollout.acts.anchors import BeliefAnchors
from turnwise.rollout.acts.network import ActActing, NetworkChooser
from turnwise.rollout.acts.partners import ModelPartner
from turnwise.run.errors import SettingError
from turnwise.run.training import TrainingRun

SYMBOLS = ActSymbols(acts=2, answers=3, openings=1)
NETWORK = ActNetwork(MemorySpec(width=8), SYMBOLS.seen, SYMBOLS.acts, ensemble=1, v=True)


def talk(acts: list[int], answers: list[int], rewards: list[float]) -> Episode:
    """`answers` between the acts; silence (0) after the last one."""
    seen = SYMBOLS.observations(0, np.array([*answers, 0]))
    return Episode(seen, np.array(acts), np.array(rewards), True, False, np.full(len(acts), np.log(0.5)))


ROWS = [
    talk([1, 0], [1], [-1.0, 3.0]),
    talk([1, 1], [1], [-1.0, 7.0]),
    talk([1, 1], [2], [-1.0, 4.0]),
    talk([0], [], [1.0]),
]


def test_advantages_by_hand() -> None:
    """Returns 2, 6, 3 and 1. At the first turn all are at one state: 2 - (6 + 3 + 1) / 3, and so on.

    At the second turn the first two are at one state: 3 - 7 and 7 - 3. The third one is alone: what the
    others earned in all is 3 on average, and it had earned -1 before, so that its baseline is 3 + 1 = 4. With
    lambda 0 what follows a first turn is the value of its second: 7 for the first, 3 for the second, 4 for
    the third.
    """
    by_hand = {
        1.0: [[2 - 10 / 3, -4.0], [6 - 2, 4.0], [0.0, 0.0], [1 - 11 / 3]],
        0.0: [[6 - 10 / 3, -4.0], [2 - 2, 4.0], [0.0, 0.0], [1 - 11 / 3]],
    }
    for lam, expected in by_hand.items():
        found, shared = gigpo.make_advantages(ROWS, gigpo.history, gigpo.Config(lam=lam))
        for own, want in zip(found, expected, strict=True):
            assert own.tolist() == pytest.approx(want, abs=1e-12)
        assert shared == pytest.approx(6 / 7)
    assert np.concatenate(gigpo.scaled(found)).std() == pytest.approx(1)


@pytest.mark.parametrize("anchors", [gigpo.history, lambda e: [0] * len(e)], ids=["history", "nothing"])
def test_the_expected_gradient_is_that_of_the_return(anchors: gigpo.Anchors) -> None:
    """All pairs of talks of a policy that stops with probability .3 and else goes on to an answer drawn
    fairly: two talks at a time, the sum of A d log pi is twice the gradient of J, whatever stands for a
    state."""
    z = torch.tensor([np.log(7 / 3), 0.2, -0.4], dtype=torch.float64, requires_grad=True)
    pays = {(1, 0): 0.5, (1, 1): 2.0, (2, 0): 1.5, (2, 1): -1.0}
    ways = [(talk([0], [], [0.6]), [(0, 0)], 1.0)] + [
        (talk([1, b], [a], [-0.1, pays[a, b]]), [(0, 1), (a, b)], 0.5) for a in (1, 2) for b in (0, 1)
    ]

    def logp(steps: list[tuple[int, int]]) -> torch.Tensor:
        return torch.stack([torch.nn.functional.logsigmoid(z[s] if a else -z[s]) for s, a in steps])

    chance = [float(w * logp(steps).sum().exp().detach()) for _, steps, w in ways]
    assert sum(chance) == pytest.approx(1)
    each = [w * logp(steps).sum().exp() * float(e.rewards.sum()) for e, steps, w in ways]
    (truth,) = torch.autograd.grad(torch.stack(each).sum(), z)
    total = torch.zeros((), dtype=torch.float64)
    for i, j in itertools.product(range(len(ways)), repeat=2):
        rows = [ways[i][0], ways[j][0]]
        found, _ = gigpo.make_advantages(rows, anchors, gigpo.Config())
        for k, a in zip((i, j), found, strict=True):
            total = total + chance[i] * chance[j] * (torch.from_numpy(a) * logp(ways[k][1])).sum() / 2
    (got,) = torch.autograd.grad(total, z)
    torch.testing.assert_close(got, truth, rtol=0, atol=1e-10)


def stopping(first: float, second: float) -> LearntModel:
    """Act 0 ends the talk and pays `first`, act 1 goes on; the second turn ends whatever is done and pays
    `second`."""
    means = np.zeros((3, 2, 2))  # kind, act, state: the state is the turn
    means[1, 0, 0] = first
    means[1:, :, 1] = second
    pay = Pay(np.zeros(0), np.ones((3, 2, 2, 1)), means, np.zeros(2))
    step = np.tile([[0.0, 1.0], [0.0, 1.0]], (2, 1, 1))
    ends = np.array([[1.0, 1.0], [0.0, 1.0]])
    return LearntModel(
        np.array([1.0, 0.0]), np.ones((2, 1)), step, np.tile([0.0, 1.0, 0.0], (2, 2, 1)), ends,
        np.tile([0.0, 1.0, 0.0], (2, 2, 2, 1)), 2, pay,
    )  # fmt: skip


@pytest.mark.parametrize("lam", [1.0, 0.0])
def test_it_learns_to_go_on(lam: float, tmp_path: Path) -> None:
    """Stopping pays .6, going on 1: with a mean over turns it would stop."""
    torch.manual_seed(0)
    critic = NETWORK.build()
    assert isinstance(critic, ActCritic)
    agent = ActActor(critic.policy, critic.memory, torch.tensor([True, True]))
    chooser = NetworkChooser(agent.policy, NETWORK, SYMBOLS, ActActing(), (True, True))
    partner = ModelPartner((stopping(0.6, 1.0),), chooser)
    c = gigpo.Config(talks=600, batch=60, entropy_weight=0.0, lam=lam)
    run = TrainingRun(tmp_path, quiet=True)
    gigpo.train(c, partner, agent, agent.policy, run, 0)
    rows, _ = partner.talks(agent.policy, 200, (9,))
    assert np.mean([e.rewards.sum() for e in rows]) > 0.97
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < x["shared"] <= 1 for x in lines)


def test_a_belief_is_an_equal_state_for_other_ways_to_it() -> None:
    """In a model whose state is the turn alone, every second turn has the same belief."""
    anchors = BeliefAnchors(stopping(0.6, 1.0), SYMBOLS)
    a, b = anchors(talk([1, 0], [1], [0, 0])), anchors(talk([1, 1], [1], [0, 0]))
    assert a == b and a[0] != a[1]
    assert pack_acts([talk([1, 0], [1], [0, 0])], gamma=1.0).mask.sum() == 2


LOGS = list(tw.HelpDesk(acts=True).rows(150, 3))


def test_through_the_door(tmp_path: Path) -> None:
    """From a clone, and again with the belief of a plan in the state's place."""
    tw.fit(tw.Acts(), LOGS, out=tmp_path / "acts", quiet=True)
    given = {"acts": tmp_path / "acts", "estimate": False, "quiet": True}
    tw.fit(tw.ActBC(epochs=2), LOGS, out=tmp_path / "clone", **given)
    tw.fit(
        tw.LearntPomdp(
            states=3,
            smoothing=1.0,
            resamples=0,
            plan="main",
            starts=1,
            iterations=20,
            trials=5,
            simulations=20,
            longest=8,
        ),
        LOGS,
        out=tmp_path / "plan",
        **given,
    )
    c = tw.ActGiGPO(talks=200, batch=100)
    shared = {}
    for name, belief in (("acts", None), ("belief", tmp_path / "plan")):
        out = tmp_path / f"live-{name}"
        found = tw.fit(c, "helpdesk", policy=tmp_path / "clone", belief=belief, out=out, quiet=True)
        assert found.reply([{"role": "user", "content": "Hi! I need help."}], seed=1)
        shared[name] = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["shared"]
    assert 0.3 < shared["acts"] < shared["belief"] <= 1
    with pytest.raises(SettingError, match=r"belief .* expected the run of a plan"):
        tw.fit(c, "helpdesk", policy=tmp_path / "clone", belief=tmp_path / "clone", quiet=True)
    with pytest.raises(
        SettingError, match="critic_sees is 'fault'; expected none: GiGPO per act has no critic"
    ):
        tw.fit(c, "helpdesk", policy=tmp_path / "clone", critic_sees=("fault",), quiet=True)
    with pytest.raises(SettingError, match="expected none: PPO per act has a critic"):
        tw.fit(tw.ActPPO(), "helpdesk", policy=tmp_path / "clone", belief=tmp_path / "plan", quiet=True)
