"""A language model learns from whole conversations: what it learns from, that it learns, and resumption."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import turnwise as tw
from turnwise.algorithms.talk import archer, ppo, rloo
from turnwise.data.batch import pack_tokens, pack_turns, turn_of_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.data.talk_replay import TalkReplay
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.envs.dialogue import Message, Response
from turnwise.models.lm.critics import TurnValues
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.talk_actor import TalkActor
from turnwise.rollout.live import LiveTalk
from turnwise.run.errors import InputError, SettingError
from turnwise.run.training import TrainingRun

CPU = torch.device("cpu")


def said(*parts: tuple[list[int], list[int], float], terminated: bool = True) -> Tokens:
    """A conversation of (what is read, what is said, what it earns)."""
    writer = TokenWriter()
    for heard, words, reward in parts:
        writer.read(heard)
        writer.act(words, reward, -1.0, [-0.5] * len(words))
    if not terminated:
        writer.read([3, 3])
    return writer.tokens(terminated=terminated, next_known=True, id="")


@pytest.fixture
def agent() -> TalkActor:
    """Whose V is 2 everywhere, in units of 4."""
    torch.manual_seed(0)
    agent = TalkActor(LmPolicy(llama(20, width=16, layers=1, heads=2, context=64, eos=0, pad=1)))
    agent.begin_(torch.tensor([-2.0, 6.0]))
    return agent


def experience(agent: TalkActor, rows: list[Tokens], c: ppo.Config) -> ppo.Minibatch:
    (found,) = ppo.experience(agent, Reference(agent.policy.lm), [rows], c, CPU)
    return found


def test_gae_over_turns_by_hand(agent: TalkActor) -> None:
    """V is 2; turns earn 0, -1 and 5; gamma .5, lambda .5, no discount inside a turn.

    delta = (0 + 1 - 2, -1 + 1 - 2, 5 - 2) = (-1, -2, 3); A_2 = 3, A_1 = -2 + .25 3 = -1.25,
    A_0 = -1 + .25 (-1.25) = -1.3125. The deviation of the three is that of one number for all.
    """
    row = said(([4, 4], [5, 6, 0], 0.0), ([7], [8, 0], -1.0), ([7, 7, 7], [9, 0], 5.0))
    m = experience(agent, [row], ppo.Config(gamma=0.5, lam=0.5, credit="turns", beta=0.0))
    by_hand = torch.tensor([-1.3125, -1.25, 3.0])
    torch.testing.assert_close(m.returns, (by_hand + 2).unsqueeze(0))
    spread = by_hand.std(correction=0)
    torch.testing.assert_close(m.advantages[0], by_hand[[0, 0, 0, 1, 1, 2, 2]] / spread)


def test_gae_over_tokens_by_hand(agent: TalkActor) -> None:
    """The same turns: inside a turn delta = 0 and lambda .5 is paid at each token."""
    row = said(([4, 4], [5, 0], -1.0), ([7], [8, 0], 5.0))
    m = experience(agent, [row], ppo.Config(gamma=0.5, lam=0.5, credit="tokens", beta=0.0))
    by_hand = [0.0, 0.0, 0.0, 3.0]  # A_3 = 5 - 2
    by_hand[2] = 0 + 0.5 * by_hand[3]
    by_hand[1] = (-1 + 0.5 * 2 - 2) + 0.5 * 0.5 * by_hand[2]
    by_hand[0] = 0 + 0.5 * by_hand[1]
    torch.testing.assert_close(m.returns[0] - 2, torch.tensor(by_hand))


@pytest.mark.parametrize("credit", ["turns", "tokens"])
def test_what_partners_and_tools_insert_changes_no_advantage(agent: TalkActor, credit: str) -> None:
    """A hundred more tokens of the partner, a tool's message of its own, and a turn that earns 0, which stays
    a turn: the advantages of what the agent said are the same to the bit."""
    plain = [said(([4], [5, 0], 0.0), ([7], [8, 9, 0], 2.0)), said(([4], [5, 0], 1.0))]
    longer = [
        said(([4] * 30, [5, 0], 0.0), ([7] + [11] * 20 + [12] * 5, [8, 9, 0], 2.0)),
        said(([6, 4, 4], [5, 0], 1.0)),
    ]
    c = ppo.Config(lam=0.9, credit=credit, beta=0.0)  # pyright: ignore[reportArgumentType]
    one, two = (experience(agent, rows, c) for rows in (plain, longer))
    assert torch.equal(one.advantages, two.advantages) and torch.equal(one.returns, two.returns)
    assert turn_of_tokens(plain).tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]
    r = rloo.Config(group=2, batch=2, minibatches=1, beta=0.0)
    groups = [
        rloo.experience(Reference(agent.policy.lm), [rows], r, CPU)[0].advantages for rows in (plain, longer)
    ]
    assert groups[0].tolist() == groups[1].tolist() == [1.0, -1.0]


def test_a_conversation_that_was_cut_is_worth_what_v_says_of_its_end(agent: TalkActor) -> None:
    """Cut behind the partner's answer: G = -1 + 1 * 2. Ended there: G = -1."""
    cut, ended = said(([4], [5, 0], -1.0), terminated=False), said(([4], [5, 0], -1.0))
    m = experience(agent, [cut, ended], ppo.Config(lam=1.0, credit="turns", beta=0.0))
    torch.testing.assert_close(m.returns, torch.tensor([[1.0], [-1.0]]))


def test_the_kl_of_a_turn_is_that_of_its_tokens(agent: TalkActor) -> None:
    """It is taken off the rewards in standard deviations of the return, 4 here; V is 2."""
    rows = [said(([4], [5, 6, 0], 1.0), ([7], [8, 0], 0.0))]
    c = ppo.Config(lam=0.0, beta=0.1, credit="turns")
    m = experience(agent, rows, c)
    ref = Reference(agent.policy.lm).logp(m.batch)[0]
    kl = -0.5 - ref  # of each token, which was recorded with -.5
    torch.testing.assert_close(m.returns[0, 0], 1.0 - 0.4 * kl[:3].sum() + 2.0)
    torch.testing.assert_close(m.returns[0, 1], -0.4 * kl[3:].sum())
    torch.testing.assert_close(m.kl_begun[0], kl.sum())


# --- a critic of utterances ---


def test_the_critic_of_utterances_by_hand() -> None:
    """Two turns that earn -1 and 4, in units of 2; slow values are .5 (Q) and 3 (V); gamma .5.

    Q's targets: -1/2 + .5 3 = 1, and 4/2 = 2 at the end. Both Q are 1.5, so each error is .25. V is 1 and its
    target .5: .25 again, weighted with the ratio of what was said, 1.5 for the first turn and 2 at most for
    the second one.
    """
    row = said(([4], [5, 0], -1.0), ([7], [8, 0], 4.0))
    batch = pack_turns([row], gamma=0.5)
    agent, target = FixedTurns(1.5, 1.0), FixedTurns(0.5, 3.0)
    m = archer.Replayed(batch, torch.tensor([[1.5, 2.0]]))
    total, sums = archer.critic_loss(agent, target, m, 2.0, torch.tensor([2.0]))
    assert float(sums["td"]) == pytest.approx(0.5) and float(sums["v_loss"]) == pytest.approx(0.875)
    assert float(total) == pytest.approx((0.5 + 0.875) / 2)


class FixedTurns(torch.nn.Module):
    """Values that do not depend on what was said."""

    def __init__(self, q: float, v: float) -> None:
        super().__init__()
        self.q, self.v = q, v

    def forward(self, *given: Any) -> Any:
        """As the agent (None, turns), or as the slow critic (ids, decisions, ends)."""
        ends = given[1].ends if given[0] is None else given[2]
        B, K = ends.shape
        found = TurnValues(torch.full((2, B, K), self.q), torch.full((B, K + 1), self.v))
        return (None, found) if given[0] is None else found


def test_ratios_of_what_is_in_replay(policy: LmPolicy) -> None:
    """exp of the sum over a turn's tokens of log pi - log pi_old, which was -.5 for each, and at most 1.2."""
    rows = [said(([4], [5, 6, 0], 1.0), ([7], [8, 0], 0.0)), said(([4], [5, 0], 1.0))]
    rows = [replace(r, message_logp=np.full(len(r), np.nan)) for r in rows]  # as of one that was cut short
    m = archer.replayed(policy, rows, archer.Config(most_ratio=1.2), CPU)
    logp = policy.logp(pack_tokens(rows, gamma=1.0))
    by_hand = [[logp[0, :3].sum() + 1.5, logp[0, 3:].sum() + 1], [logp[1, :2].sum() + 1]]
    for found, expected in zip(m.ratio, by_hand, strict=True):
        want = torch.stack(expected).exp().clamp(max=1.2)
        torch.testing.assert_close(found[: len(want)], want)
    assert float(m.ratio[1, 1]) == 0.0


def test_logged_conversations_stay_among_what_the_critic_learns_from(policy: LmPolicy) -> None:
    """A quarter of 8 draws from 3 logged conversations is 2, however many were held. Their tokens count as
    said by the policy that it began with, so that all ratios are 1 while it is that one."""
    held = [replace(said(([4], [5, 0], 1.0)), id="held") for _ in range(20)]
    rows = said(([4], [5, 6, 0], 1.0), ([7], [8, 0], 0.0)), said(([4], [6, 0], 1.0)), said(([4], [0], 0.0))
    logged = [replace(row, id="log", token_logp=np.full(len(row), np.nan)) for row in rows]
    replay, c = TalkReplay(20), archer.Config(critic_batch=8, logged=0.25)
    replay.add(held)
    reference, rng = Reference(policy.lm), np.random.default_rng(0)
    both = archer.drawn(replay, logged, reference, c, CPU, rng)
    assert [row.id for row in both] == ["held"] * 6 + ["log"] * 2
    assert [row.id for row in archer.drawn(replay, [], reference, c, CPU, rng)] == ["held"] * 8
    of_logs = archer.as_if_spoken(logged, reference, c, CPU)
    assert all((np.isnan(row.token_logp) == ~row.action).all() for row in of_logs)
    m = archer.replayed(policy, of_logs, c, CPU)
    torch.testing.assert_close(m.ratio, m.batch.mask.to(m.ratio.dtype))


def test_replay_keeps_the_latest_and_comes_back_whole() -> None:
    rows = [said(([4] * n, [5, 0], float(n))) for n in (1, 2, 3)]
    replay = TalkReplay(2)
    replay.add(rows[:1])
    replay.add(rows[1:])
    assert [float(r.rewards.sum()) for r in replay.rows] == [2.0, 3.0]
    other = TalkReplay(2)
    other.load(replay.state())
    assert other.changes == 2
    for a, b in zip(replay.rows, other.rows, strict=True):
        for name in ("ids", "action", "turn_end", "rewards", "message_logp", "token_logp"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert (a.terminated, a.next_known) == (b.terminated, b.next_known)
    drawn = replay.draw(2, np.random.default_rng(0))
    assert {float(r.rewards.sum()) for r in drawn} == {2.0, 3.0}
    empty = TalkReplay(2)
    empty.load(TalkReplay(2).state())
    assert empty.rows == []


# --- a task of two turns ---


class Stop:
    """A word that begins with a letter up to m ends the talk and earns .6; another one goes on, and the next
    turn earns 1 whatever is said. Every third partner breaks down at the second turn if it is asked to."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.lanes: dict[int, list[int]] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        self.lanes |= {lane: [seed, 0] for lane, seed in zip(lanes, seeds, strict=True)}
        return [(Message("user", "hello"),) for _ in lanes]

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        return [self._one(lane, text) for lane, text in zip(lanes, replies, strict=True)]

    def _one(self, lane: int, text: str) -> Response:
        seed, turn = self.lanes[lane]
        self.lanes[lane][1] += 1
        if turn and self.fails and seed % 3 == 0:
            return Response((), 0.0, truncated=True, failed=True)
        if turn:
            return Response((), 1.0, terminated=True)
        if text[:1] <= "m":
            return Response((), 0.6, terminated=True)
        return Response((Message("user", "now"),), 0.0)

    def hidden(self, lane: int) -> Mapping[str, Any]:
        return {"seed": self.lanes[lane][0]}


@pytest.fixture(scope="module")
def chat(tokenizers: dict[str, Any]) -> ChatFormat:
    return ChatFormat(tokenizers["own"])


@pytest.fixture
def policy(chat: ChatFormat) -> LmPolicy:
    torch.manual_seed(0)
    size, pad = len(chat.tokenizer), chat.tokenizer.pad_token_id
    return LmPolicy(llama(size, width=16, layers=1, heads=2, context=32, eos=chat.stop, pad=pad))


@pytest.mark.parametrize("name", ["ppo turns", "ppo tokens", "rloo", "archer"])
def test_it_learns_to_go_on(name: str, policy: LmPolicy, chat: ChatFormat, tmp_path: Path) -> None:
    """From a policy that stops in about half of its talks (mean return .8) to 1; a mean over the tokens or
    turns of a talk would learn to stop (.6)."""
    talk = LiveTalk(Stop(), chat, max_new_tokens=3)
    run = TrainingRun(tmp_path, quiet=True, log_every=1)
    speed = {"optimizer": tw.AdamW(lr=1e-2), "talks": 1200}
    if name == "rloo":
        rloo.train(rloo.Config(batch=64, group=4, minibatches=8, beta=0.0, **speed), talk, policy, run, 0)
    elif name == "archer":
        a = archer.Config(batch=60, critic_first=2, beta=0.0, **speed)
        archer.train(a, talk, archer.new_agent(policy), run, 0)
    else:
        c = ppo.Config(batch=60, credit=name.split()[1], **speed)  # pyright: ignore[reportArgumentType]
        ppo.train(c, talk, TalkActor(policy), run, 0)
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert 0.7 < lines[0]["episode_return"] < 0.9
    assert talk.hold(policy, 200, (9,)).returns.mean() > 0.97
    assert lines[0]["kl_begun"] == pytest.approx(0, abs=1e-4) and lines[-1]["kl_begun"] > 0.1


def test_partners_that_fail_are_left_out_with_their_group_and_counted(
    policy: LmPolicy, chat: ChatFormat, tmp_path: Path
) -> None:
    """Nobody earned their 0: what is left has a return of .6 or 1 alone."""
    talk = LiveTalk(Stop(fails=True), chat, max_new_tokens=3)
    held = talk.hold(policy, 60, (1,))
    assert 5 < held.left_out < 25 and len(held.rows) + held.left_out == 60
    assert set(held.returns.round(3)) == {0.6, 1.0}
    grouped = talk.hold(policy, 60, (1,), group=4)
    assert grouped.left_out % 4 == 0 and len(grouped.rows) + grouped.left_out == 60
    partners = [c.hidden["seed"] for c in grouped.conversations]
    assert all(len(set(partners[i : i + 4])) == 1 for i in range(0, len(partners), 4))
    assert len(set(partners)) == len(partners) // 4
    run = TrainingRun(tmp_path, quiet=True)
    rloo.train(rloo.Config(talks=64, batch=32, group=4), talk, policy, run, 0)
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["left_out"] > 0
    with pytest.raises(InputError, match="the partner failed in all of 4 conversations"):
        LiveTalk(Broken(), chat, max_new_tokens=3).hold(policy, 4, (1,))


class Broken(Stop):
    """Nobody is there."""

    def _one(self, lane: int, text: str) -> Response:
        return Response((), 0.0, truncated=True, failed=True)


class Endless(Stop):
    """Says more and more."""

    def _one(self, lane: int, text: str) -> Response:
        return Response((Message("user", "it works now my friend"),), 0.1)


def test_a_lane_that_fills_the_context_is_cut_and_learnt_from(
    policy: LmPolicy, chat: ChatFormat, tmp_path: Path
) -> None:
    """What the partner says beyond the context is not read; what the agent said before is an action."""
    talk = LiveTalk(Endless(), chat, max_new_tokens=3)
    held = talk.hold(policy, 20, (1,))
    assert all(not c.dialogue.terminated and not c.failed for c in held.conversations)
    assert all(len(row) <= policy.context and row.action.sum() > 0 for row in held.rows)
    agent = TalkActor(policy)
    agent.begin_(torch.tensor(held.returns, dtype=torch.float32))
    m = experience(agent, held.rows, ppo.Config(lam=1.0))
    alone = [experience(agent, [row], ppo.Config(lam=1.0)) for row in held.rows]
    for row, whole in zip(alone, m.returns, strict=True):
        n = int(row.states.mask.sum())
        torch.testing.assert_close(row.returns[0, :n], whole[:n], rtol=1e-4, atol=1e-5)


# --- through the public door ---

LOGS = list(tw.HelpDesk().rows(120, 3))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("talk") / "clone"
    tw.fit(tw.BC(epochs=1), LOGS, out=out, width=16, layers=1, heads=2, context=160, quiet=True)
    return out


RUNS = [
    tw.TalkPPO(talks=48, batch=16),
    tw.TalkRLOO(talks=48, batch=16, group=4),
    tw.ArCHer(talks=48, batch=16, critic_first=1, critic_updates=2, critic_batch=8, replay=40),
]


@pytest.mark.parametrize(
    ("config", "more"),
    [*((c, {}) for c in RUNS), (RUNS[-1], {"replay_logs": LOGS})],
    ids=["ppo", "rloo", "archer", "archer with logs"],
)
def test_a_stopped_run_comes_to_the_same(
    config: Any, more: dict[str, Any], clone: Path, tmp_path: Path
) -> None:
    schedule = {"optimizer": tw.AdamW(lr=1e-3, schedule="constant", warmup=0.0)}
    long, short = (replace(config, talks=n, **schedule) for n in (48, 32))
    given = {"policy": clone, "max_new_tokens": 6, "quiet": True, **more}
    whole = tw.fit(long, "helpdesk", out=tmp_path / "whole", **given)
    tw.fit(short, "helpdesk", out=tmp_path / "parts", **given)
    parts = tw.fit(long, "helpdesk", out=tmp_path / "parts", resume=True, **given)
    for a, b in zip(whole.agent.lm.parameters(), parts.agent.lm.parameters(), strict=True):
        assert torch.equal(a, b)
    assert parts.task == "helpdesk"
    assert "report" in parts.result and (tmp_path / "parts" / "report.html").exists()


def test_v_of_a_critic_of_logs_comes_along_and_nothing_else(clone: Path, tmp_path: Path) -> None:
    """V begins as the critic's, in the units of the task. Optimizer, learning rate and step count are those
    of a new run: the critic's own (its last rate, its moments, its steps) would be of another training."""
    critic = tw.fit(tw.MC(epochs=2), LOGS, policy=clone, out=tmp_path / "mc", estimate=False, quiet=True)
    found = critic.agent.critic
    assert found is not None
    agent = TalkActor(LmPolicy(critic.agent.lm))
    agent.warm_(found, critic.agent.acting.return_std)
    batch = pack_tokens([said(([4], [5, 6, 0], 1.0), ([7], [8, 0], 0.0))], gamma=1.0)
    own = found(batch.inputs, batch.decisions, batch.actions, batch.mask).v
    torch.testing.assert_close(agent(None, batch)[1], own)
    assert float(own.detach().std()) > 0
    agent.begin_(torch.tensor([1000.0, 3000.0]))  # returns do not move what a critic has brought
    torch.testing.assert_close(agent(None, batch)[1], own)
    c = tw.TalkPPO(talks=32, batch=16)
    given = {"policy": clone, "quiet": True, "log_every": 1, "max_new_tokens": 6}
    tw.fit(c, "helpdesk", critic=tmp_path / "mc", out=tmp_path / "warm", **given)
    tw.fit(c, "helpdesk", out=tmp_path / "fresh", **given)
    warm, fresh = (
        [json.loads(x) for x in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("warm", "fresh")
    )
    assert [x["step"] for x in warm] == [x["step"] for x in fresh] == [0, 1]
    assert [x["lr"] for x in warm] == [x["lr"] for x in fresh]
    assert warm[0]["episode_return"] == fresh[0]["episode_return"]
    assert warm[0]["explained_variance"] != fresh[0]["explained_variance"]


def test_what_it_cannot_begin_with_is_refused(clone: Path) -> None:
    with pytest.raises(SettingError, match="task is 'nobody'; expected one of"):
        tw.fit(tw.TalkPPO(), "nobody", policy=clone, quiet=True)
    with pytest.raises(InputError, match="needs a policy to begin with"):
        tw.fit(tw.TalkPPO(), "helpdesk", quiet=True)
    with pytest.raises(SettingError, match="expected a run with a critic of tokens or turns"):
        tw.fit(tw.TalkPPO(), "helpdesk", policy=clone, critic=clone, quiet=True)
    with pytest.raises(SettingError, match="expected none: RLOO over conversations has no critic"):
        tw.fit(tw.TalkRLOO(), "helpdesk", policy=clone, critic=clone, quiet=True)
    with pytest.raises(SettingError, match="expected a critic of two Q of utterances"):
        one = tw.fit(tw.MC(epochs=0.1), LOGS, policy=clone, estimate=False, quiet=True)
        tw.fit(tw.ArCHer(), "helpdesk", policy=clone, critic=one, quiet=True)
    with pytest.raises(TypeError, match="PPO over conversations takes no replay_logs"):
        tw.fit(tw.TalkPPO(), "helpdesk", policy=clone, replay_logs=LOGS, quiet=True)
    silent = [
        {"messages": [{"role": m["role"], "content": m["content"]} for m in row["messages"]]} for row in LOGS
    ]
    with pytest.raises(InputError, match="expected an outcome of conversations"):
        tw.fit(tw.ArCHer(), "helpdesk", policy=clone, replay_logs=silent, quiet=True)
    with pytest.raises(TypeError, match="its task says what a conversation earned"):
        tw.fit(tw.TalkPPO(), "helpdesk", policy=clone, reward="x", quiet=True)
    with pytest.raises(SettingError, match="batch is 10; expected a multiple of the 4"):
        tw.TalkRLOO(batch=10, group=4)
