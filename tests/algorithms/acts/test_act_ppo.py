"""PPO per act: exact gradients where the policy decides when to stop, partners, and what it begins with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import turnwise as tw
from turnwise.algorithms.acts import ppo
from turnwise.data.acts.pack import ActSymbols, pack_acts
from turnwise.data.episode import Episode
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.losses.policy import action_logp
from turnwise.losses.reduce import sum_over_decisions
from turnwise.models.agents.act_actor import ActActor
from turnwise.models.agents.act_critic import ActCritic, ActNetwork
from turnwise.models.agents.settings import MemorySpec
from turnwise.rollout.acts.facts import Fact, HiddenFacts
from turnwise.rollout.acts.network import ActActing, NetworkChooser
from turnwise.rollout.acts.partners import ModelPartner
from turnwise.run.errors import InputError, SettingError
from turnwise.run.training import TrainingRun

SYMBOLS = ActSymbols(acts=2, answers=2, openings=1)
NETWORK = ActNetwork(MemorySpec(width=8), SYMBOLS.seen, SYMBOLS.acts, ensemble=1, v=True)
STOP, GO_ON = 0, 1


def actor_of(seed: int = 0, allowed: tuple[bool, ...] = (True, True)) -> ActActor:
    torch.manual_seed(seed)
    critic = NETWORK.build()
    assert isinstance(critic, ActCritic)
    return ActActor(critic.policy, critic.memory, torch.tensor(allowed))


def stopping(first: float, second: float) -> LearntModel:
    """Act 0 ends the talk and pays `first`, act 1 goes on; the second turn ends whatever is done and pays
    `second`."""
    means = np.zeros((3, 2, 2))  # kind, act, state: the state is the turn
    means[1, STOP, 0] = first
    means[1:, :, 1] = second
    pay = Pay(np.zeros(0), np.ones((3, 2, 2, 1)), means, np.zeros(2))
    step = np.tile([[0.0, 1.0], [0.0, 1.0]], (2, 1, 1))
    ends = np.array([[1.0, 1.0], [0.0, 1.0]])
    return LearntModel(
        np.array([1.0, 0.0]), np.ones((2, 1)), step, np.tile([0.0, 1.0], (2, 2, 1)), ends,
        np.tile([0.0, 1.0], (2, 2, 2, 1)), 2, pay,
    )  # fmt: skip


def talk(acts: list[int], rewards: list[float], logp: list[float] | None = None) -> Episode:
    answers = [1] * (len(acts) - 1) + [0]
    return Episode(
        SYMBOLS.observations(0, np.array(answers)), np.array(acts), np.array(rewards), True, False,
        np.zeros(len(acts)) if logp is None else np.array(logp),
    )  # fmt: skip


def test_a_sum_over_turns_is_the_gradient_where_the_policy_stops_and_a_mean_is_not() -> None:
    """It stops with 1 - p and earns a, or goes on and earns b whatever it does then: J = (1-p) a + p b.

    With z the logit of going on, dJ/dz = p (1-p) (b-a). A sum over the turns of a talk has that expectation.
    A mean over its turns has p (1-p) (b/2 - a), which is off by p (1-p) b/2: with a = .6 and b = 1 it learns
    to stop, where going on is worth more.
    """
    a, b, z = 0.6, 1.0, torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    p = float(torch.sigmoid(z.detach()))
    ways = [
        (1 - p, talk([STOP], [a])),
        (p / 2, talk([GO_ON, STOP], [0, b])),
        (p / 2, talk([GO_ON, GO_ON], [0, b])),
    ]
    gradients = {"sum": 0.0, "mean": 0.0}
    for chance, way in ways:
        batch = pack_acts([way], gamma=1.0, dtype=torch.float64)
        logits = torch.stack([torch.zeros(()), z, torch.zeros(()), torch.zeros(())]).double()
        at = logits.view(2, 2)[: len(way)].unsqueeze(0)  # the second turn is a fair coin
        returns = torch.full((1, len(way)), float(way.rewards.sum()), dtype=torch.float64)
        j = sum_over_decisions(action_logp(at, batch.actions) * returns, batch.loss_mask)
        (g,) = torch.autograd.grad(j, z)
        gradients["sum"] += chance * float(g)
        gradients["mean"] += chance * float(g) / len(way)
    assert gradients["sum"] == pytest.approx(p * (1 - p) * (b - a), abs=1e-12)
    assert gradients["mean"] == pytest.approx(p * (1 - p) * (b / 2 - a), abs=1e-12)
    assert gradients["mean"] < 0 < gradients["sum"]


def test_the_first_gradient_is_that_of_the_return() -> None:
    """All talks of the stopping model, each as often as the policy holds it (200 of 1,000 stop): the gradient
    of the surrogate at ratio 1, without a critic, is that of J per talk up to the spread of advantages."""
    agent = actor_of().double()
    with torch.no_grad():
        agent.policy.head.bias.copy_(torch.tensor([0.0, float(np.log(4.0))]))
    p = [0.2, 0.8]
    rows = [talk([STOP], [0.6], [np.log(0.2)])] * 200
    rows += [talk([GO_ON, STOP], [0.0, 1.0], [np.log(0.8), np.log(0.2)])] * 160
    rows += [talk([GO_ON, GO_ON], [0.0, 1.0], [np.log(0.8), np.log(0.8)])] * 640
    c = ppo.Config(lam=1.0, entropy_weight=0.0)
    batch = pack_acts(rows, gamma=1.0, dtype=torch.float64)
    (targets,) = ppo.make_targets(agent, agent.policy, [batch], c)
    raw = targets.returns[batch.loss_mask]
    assert float(targets.advantages[batch.loss_mask].mean()) == pytest.approx(0, abs=1e-12)
    policy = [*agent.policy.parameters()]
    total, _ = ppo.loss(agent, batch, targets, len(rows), c, 0.0)
    got = torch.autograd.grad(total, policy, retain_graph=True)
    # J at the first turn, by its own logits; what is done at the second changes nothing.
    first = agent(pack_acts([rows[0]], gamma=1.0, dtype=torch.float64)).logits[0, 0].softmax(-1)
    assert first.tolist() == pytest.approx(p)
    want = torch.autograd.grad(first @ torch.tensor([0.6, 1.0], dtype=torch.float64), policy)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(-g * raw.std(correction=0), w, rtol=0, atol=1e-10)


def test_models_answer_alike_for_the_same_seed_and_say_how_probable_acts_were() -> None:
    agent = actor_of(1)
    chooser = NetworkChooser(agent.policy, NETWORK._replace(ensemble=0, v=False), SYMBOLS, ActActing())
    partner = ModelPartner((stopping(0.6, 1.0), stopping(0.0, 2.0)), chooser)
    rows, left_out = partner.talks(agent.policy, 41, (3, 0))
    again, _ = partner.talks(agent.policy, 41, (3, 0))
    other, _ = partner.talks(agent.policy, 41, (3, 1))
    assert left_out == 0 and len(rows) == 41
    assert [e.actions.tolist() for e in rows] == [e.actions.tolist() for e in again]
    assert [e.actions.tolist() for e in rows] != [e.actions.tolist() for e in other]
    batch = pack_acts(rows, gamma=1.0)
    logp = action_logp(agent(batch).logits[:, :-1], batch.actions)
    torch.testing.assert_close(logp[batch.mask], batch.behavior_logp[batch.mask], rtol=0, atol=1e-5)  # pyright: ignore[reportOptionalSubscript]
    earned = {(len(e), float(e.rewards.sum())) for e in rows}
    assert earned == {(1, 0.6), (2, 1.0), (1, 0.0), (2, 2.0)}  # both models, each by its own rules
    assert all(e.terminated for e in rows)


def test_it_learns_to_go_on_and_never_says_what_it_may_not(tmp_path: Path) -> None:
    """Going on pays 1 and stopping .6; where going on is not allowed it stops."""
    for allowed, want in (((True, True), 1.0), ((True, False), 0.6)):
        agent = actor_of(allowed=allowed)
        network = NETWORK._replace(ensemble=0, v=False)
        partner = ModelPartner(
            (stopping(0.6, 1.0),), NetworkChooser(agent.policy, network, SYMBOLS, ActActing(), allowed)
        )
        c = ppo.Config(talks=600, batch=60, entropy_weight=0.0)
        run = TrainingRun(tmp_path / str(want), quiet=True)
        (tmp_path / str(want)).mkdir()
        begun = actor_of().policy
        ppo.train(c, partner, agent, begun, run, 0)
        rows, _ = partner.talks(agent.policy, 200, (9,))
        assert np.mean([e.rewards.sum() for e in rows]) == pytest.approx(want, abs=0.03)


def test_v_of_a_critic_comes_along_in_the_units_of_the_task() -> None:
    torch.manual_seed(3)
    critic = NETWORK.build(0.2)
    assert isinstance(critic, ActCritic) and critic.v is not None
    critic.scale_(50.0)
    batch = pack_acts([talk([GO_ON, STOP], [0, 1])], gamma=1.0)
    agent = ActActor(critic.policy, NETWORK.build().memory, torch.tensor([True, True]))  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    agent.warm_(critic.memory, critic.v, 50.0)
    torch.testing.assert_close(agent(batch).values, critic(batch).v)
    before = agent(batch).values
    agent.begin_(torch.tensor([1000.0, 3000.0]))  # returns do not move what a critic has brought
    torch.testing.assert_close(agent(batch).values, before)
    fresh = actor_of()
    fresh.begin_(torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(fresh(batch).values, torch.full((1, 3), 2.0))


# --- through the public door ---

LOGS = list(tw.HelpDesk(acts=True).rows(150, 3))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Codebooks and a clone."""
    out = tmp_path_factory.mktemp("runs")
    tw.fit(tw.Acts(), LOGS, out=out / "acts", quiet=True)
    tw.fit(tw.ActMC(epochs=2), LOGS, acts=out / "acts", out=out / "mc", estimate=False, quiet=True)
    return out


def test_live_talk_goes_on_from_a_clone_and_begins_its_schedule_anew(runs: Path, tmp_path: Path) -> None:
    """Weights of a saved policy learn again (they are frozen where it acts). Steps, rate and optimizer
    are those of a new run. (From this clone 1,500 conversations lead from -.48 to -.08.)"""
    c = tw.ActPPO(talks=250, batch=50)
    given = {"policy": runs / "mc", "out": tmp_path / "live", "quiet": True, "log_every": 1}
    found = tw.fit(c, "helpdesk acts=true", **given)
    lines = [json.loads(x) for x in (tmp_path / "live" / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines] == [*range(5)] and lines[-1]["talks"] == 250
    assert lines[0]["lr"] == c.optimizer.lr > lines[-1]["lr"]
    assert lines[0]["kl"] < 0.05 and lines[-1]["kl_begun"] > 0.01
    assert found.task == "helpdesk acts=true"
    assert found.reply([{"role": "user", "content": "Hi! I need help."}], seed=1)
    learnt = tw.load(tmp_path / "live")
    assert isinstance(learnt, tw.ActPolicy) and learnt.held is not None
    assert "PPO per act" in (tmp_path / "live" / "report.html").read_text(encoding="utf-8")


def test_a_stopped_run_comes_to_the_same(runs: Path, tmp_path: Path) -> None:
    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return tw.load(folder).agent.chooser.module.state_dict()  # pyright: ignore

    short, long = tw.ActPPO(talks=100, batch=50), tw.ActPPO(talks=200, batch=50)
    schedule = {"optimizer": tw.Adam(lr=1e-3, schedule="constant")}
    short, long = (replace(x, **schedule, entropy_weight=0.0) for x in (short, long))
    tw.fit(long, "helpdesk", policy=runs / "mc", out=tmp_path / "whole", quiet=True)
    tw.fit(short, "helpdesk", policy=runs / "mc", out=tmp_path / "parts", quiet=True)
    tw.fit(long, "helpdesk", policy=runs / "mc", out=tmp_path / "parts", quiet=True, resume=True)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-6)


def test_what_it_cannot_begin_with_is_refused(runs: Path) -> None:
    with pytest.raises(SettingError, match="partner is 'nobody'; expected a task, the run of a plan"):
        tw.fit(tw.ActPPO(), "nobody", policy=runs / "mc", quiet=True)
    with pytest.raises(SettingError, match="partner"):
        tw.fit(tw.ActPPO(), runs / "mc", policy=runs / "mc", quiet=True)
    with pytest.raises(SettingError, match=r"policy .* expected an agent with a network of acts"):
        tw.fit(tw.ActPPO(), "helpdesk", policy=runs / "acts", quiet=True)
    with pytest.raises(InputError, match="begins with a policy"):
        tw.fit(tw.ActPPO(), "helpdesk", quiet=True)
    with pytest.raises(SettingError, match=r"acts .* expected none beside policy"):
        tw.fit(tw.ActPPO(), "helpdesk", policy=runs / "mc", acts=runs / "acts", quiet=True)
    with pytest.raises(TypeError, match="its partner says what a talk earned"):
        tw.fit(tw.ActPPO(), "helpdesk", policy=runs / "mc", reward="x", quiet=True)


# --- a V that sees hidden facts ---


def test_hidden_facts_as_numbers() -> None:
    """Text and few numbers become a 1 at their kind, many numbers a distance from their mean."""
    facts = HiddenFacts.of(tw.HelpDesk(), ["fault"], 0)
    assert facts.numbers({"fault": "camera"}).tolist() == [0, 1, 0, 0]  # battery, camera, screen, speaker
    dealer = HiddenFacts.of(tw.CarDealer(), ["persona", "budget"], 0)
    assert dealer.size == sum(len(f.kinds) for f in dealer.facts) and dealer.size >= 4
    number = Fact("x", (), 5.0, 2.0)
    assert number.size == 1 and number.numbers(9) == [2.0]
    with pytest.raises(
        SettingError, match="critic_sees is 'colour'; expected hidden facts of the task: fault"
    ):
        HiddenFacts.of(tw.HelpDesk(), ["colour"], 0)


def test_v_sees_them_and_the_policy_does_not() -> None:
    """At first V is what it was without them. Then V differs by the fact alone, and the policy never does."""
    plain = actor_of()
    agent = plain.seeing(2)
    assert agent.told is not None
    rows = [replace(talk([GO_ON, STOP], [0, 1]), states=np.tile(z, (3, 1))) for z in ([1.0, 0.0], [0.0, 1.0])]
    batch = pack_acts(rows, gamma=1.0)
    with torch.no_grad():
        plain.value.out.weight.normal_()
        torch.testing.assert_close(agent(batch).values, plain(batch).values)
        agent.told.weight.normal_()
        found = agent(batch)
    assert torch.equal(found.logits[0], found.logits[1])
    assert (found.values[0] - found.values[1]).abs().min() > 1e-3


def test_a_v_that_is_told_explains_what_nobody_says(tmp_path: Path) -> None:
    """Talks that earn 1 or -1 by a coin which only their hidden fact shows: V explains
    nothing of that without it, and all of it with it."""
    coins = [z for z in (0, 1) for _ in range(20)]
    rows = [
        replace(talk([STOP], [2.0 * z - 1], [float(np.log(0.5))]), states=np.eye(2)[[z, z]]) for z in coins
    ]
    c = ppo.Config(batch=40, minibatches=2, optimizer=tw.Adam(lr=1e-2))
    explained = {}
    for sees in (0, 2):
        agent = actor_of().seeing(sees)
        run = TrainingRun(tmp_path / str(sees), quiet=True)
        learner = run.learner(agent, c.optimizer)
        for i in range(25):
            rng = np.random.default_rng(i)
            sums = ppo.update(learner, agent, agent.policy, rows, c, 1.0, run, rng)
        explained[sees] = float(sums["explained_variance"] / sums["decisions"])
    assert explained[0] < 0.05 and explained[2] > 0.95


def test_a_run_with_a_critic_that_knows_the_fault(runs: Path, tmp_path: Path) -> None:
    """It is told in training alone: the agent that is saved has nothing of it, and speaks."""
    c = tw.ActPPO(talks=100, batch=50)
    given = {"policy": runs / "mc", "quiet": True}
    found = tw.fit(c, "helpdesk acts=true", out=tmp_path / "told", critic_sees=("fault",), **given)
    assert found.reply([{"role": "user", "content": "Hi! I need help."}], seed=1)
    assert not any("told" in name for name in tw.load(tmp_path / "told").agent.chooser.module.state_dict())  # pyright: ignore
    with pytest.raises(
        SettingError, match="critic_sees is 'colour'; expected hidden facts of the task: fault"
    ):
        tw.fit(c, "helpdesk", critic_sees=("colour",), **given)
