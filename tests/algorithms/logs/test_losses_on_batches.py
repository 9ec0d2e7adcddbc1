"""The losses of every algorithm against slow twins that read tokens one by one, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from turnwise.algorithms.logs import bc, ilql, mc, turn_iql
from turnwise.data.batch import pack_tokens, pack_turns
from turnwise.data.tokens import Tokens
from turnwise.models.lm.critics import TokenCritic, TokenValues, TurnCritic, TurnValues
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.target import slow_copy
from turnwise.run.errors import InputError
from turnwise.run.learner import Learner
from turnwise.run.settings import AdamW

f64 = torch.float64
GAMMA, WITHIN, VOCAB = 0.9, 0.97, 11


@pytest.fixture(scope="module")
def rows(row) -> list[Tokens]:
    """Ended; cut after the partner; cut after the agent; with burn-in; all of different lengths."""
    return [
        row("7|1 2 9|5 5|3 9", [0.5, -1.0]),
        row("7 8|4 9|6", [0.25], terminated=False),
        row("7|2 9|5|1 3 3 9", [1.0, 2.0], terminated=False, next_known=False),
        row("3|9|4 4|2 2 9|5|9|1", [-0.5, 1.5, 0.75], learn_from=3),
    ]


class Given(nn.Module):
    """A critic whose outputs are its parameters: a loss's gradient says what it wants of each of them."""

    def __init__(self, seed: int, **shapes: tuple[int, ...]):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape, dtype=f64, generator=generator)))


class GivenTokens(Given):
    def forward(self, ids: Tensor, decisions: Tensor, actions: Tensor, mask: Tensor) -> TokenValues:
        return TokenValues(self.q_of_actions(ids, decisions, actions), self.q.logsumexp(-1), self.v)

    def q_of_actions(self, ids: Tensor, decisions: Tensor, actions: Tensor) -> Tensor:
        return self.q.gather(-1, actions.expand(self.q.shape[:-1]).unsqueeze(-1)).squeeze(-1)


class GivenTurns(Given):
    def forward(self, ids: Tensor, decisions: Tensor, ends: Tensor) -> TurnValues:
        return TurnValues(self.q, self.v)


def expectile(u: float, tau: float) -> float:
    return (1 - tau if u < 0 else tau) * u * u


def given(values: Tensor, *index: int) -> float:
    return float(values.detach()[index])


def lambda_twin(steps: list[dict[str, Any]], v: list[float], lams: list[float]) -> list[float]:
    """G_k, from the last decision on: bootstrap from V where the next decision has no target."""
    goals = [0.0] * len(steps)
    for k in reversed(range(len(steps))):
        follows = k + 1 < len(steps) and steps[k + 1]["learnt"]
        after = (1 - lams[k]) * v[k + 1] + lams[k] * goals[k + 1] if follows else v[k + 1]
        goals[k] = steps[k]["reward"] + steps[k]["discount"] * after
    return goals


@pytest.mark.parametrize(("lookahead", "lam"), [(0.0, 0.0), (0.5, 0.0), (1.0, 1.0), (0.3, 0.7)])
def test_ilql_loss(rows, packed_twin, lookahead: float, lam: float) -> None:
    batch = pack_tokens(rows, gamma=GAMMA, gamma_within_turn=WITHIN, dtype=f64)
    B, A = batch.mask.shape
    shapes = {"q": (2, B, A, VOCAB), "v": (B, A + 1)}
    critic, target = GivenTokens(0, **shapes), slow_copy(GivenTokens(1, **shapes))
    c = ilql.Config(tau=0.8, tau_within_turn=0.7, cql_weight=0.3, lookahead=lookahead)
    total, sums = ilql.loss(critic, target, batch, 7.0, c, lam)
    td = value = cql = 0.0
    for b, t in enumerate(rows):
        steps = packed_twin(t, GAMMA, WITHIN)
        goals = lambda_twin(steps, [given(critic.v, b, k) for k in range(len(steps) + 1)], [lam] * len(steps))
        worth = 0.0
        for k, d in reversed(list(enumerate(steps))):
            if not d["learnt"]:
                continue
            for e in range(2):
                q = given(critic.q, e, b, k, d["action"])
                td += (goals[k] - q) ** 2
                cql += np.log(sum(np.exp(given(critic.q, e, b, k, a)) for a in range(VOCAB))) - q
            slow = min(given(target.q, e, b, k, d["action"]) for e in range(2))
            followed = k + 1 < len(steps) and steps[k + 1]["learnt"]
            if followed and not t.turn_end[d["decision"] + 1]:  # the next token is of the same turn
                slow = (1 - lookahead) * slow + lookahead * WITHIN * worth
            worth = slow
            begins = k == 0 or t.turn_end[steps[k - 1]["decision"] + 1]
            value += expectile(worth - given(critic.v, b, k), c.tau if begins else c.tau_within_turn)
    assert sums["td"].item() == pytest.approx(td, abs=1e-10)
    assert sums["expectile"].item() == pytest.approx(value, abs=1e-10)
    assert sums["cql"].item() == pytest.approx(cql, abs=1e-10)
    assert total.item() == pytest.approx((td + value + 0.3 * cql) / 7, abs=1e-10)
    assert sums["decisions"] == sum(d["learnt"] for t in rows for d in packed_twin(t, GAMMA, WITHIN))


def test_ilql_looks_at_the_whole_utterance_by_hand(row) -> None:
    """[7|1 2 9|5 5|3 9] with min Qbar 1, 2, 3 | 4, 5 and .5 within turns: X = .25 * 3, .5 * 3, 3 | .5 * 5, 5.

    tau is the turn's where a turn begins and the other one inside it. With no lookahead X is min Qbar.
    """
    batch = pack_tokens([row("7|1 2 9|5 5|3 9", [0.0, 1.0])], gamma=0.9, gamma_within_turn=0.5, dtype=f64)
    slow = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]], dtype=f64)
    found, taus = ilql.value_targets(batch, slow, ilql.Config(tau=0.9, tau_within_turn=0.6))
    assert_close(found, torch.tensor([[0.75, 1.5, 3.0, 2.5, 5.0]], dtype=f64))
    assert_close(taus, torch.tensor([[0.9, 0.6, 0.6, 0.9, 0.6]], dtype=f64))
    assert_close(ilql.value_targets(batch, slow, ilql.Config(lookahead=0.0))[0], slow)


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_turn_iql_loss(rows, lam: float) -> None:
    """Turn by turn: rewards, gamma per turn, the value of the next turn's state; nothing per token."""
    batch = pack_turns(rows, gamma=GAMMA, dtype=f64)
    B, A = batch.mask.shape
    shapes = {"q": (2, B, A), "v": (B, A + 1)}
    critic, target = GivenTurns(0, **shapes), slow_copy(GivenTurns(1, **shapes))
    c = turn_iql.Config(tau=0.8)
    total, _ = turn_iql.loss(critic, target, batch, 3.0, c, lam)
    turns = [  # reward, discount, learnt; row 2 ends with no next state, row 3 begins with burn-in
        [(0.5, GAMMA, True), (-1.0, 0.0, True)],
        [(0.25, GAMMA, True)],
        [(1.0, GAMMA, True), (2.0, GAMMA, False)],
        [(-0.5, GAMMA, False), (1.5, GAMMA, True), (0.75, 0.0, True)],
    ]
    slow = 0.0
    for b, row_turns in enumerate(turns):
        steps = [dict(zip(("reward", "discount", "learnt"), x, strict=True)) for x in row_turns]
        v = [given(critic.v, b, k) for k in range(len(steps) + 1)]
        goals = lambda_twin(steps, v, [lam] * len(steps))
        for k, d in enumerate(steps):
            if d["learnt"]:
                slow += sum((goals[k] - given(critic.q, e, b, k)) ** 2 for e in range(2))
                slow += expectile(min(given(target.q, e, b, k) for e in range(2)) - v[k], c.tau)
    assert total.item() == pytest.approx(slow / 3, abs=1e-10)


def test_mc_loss(rows, packed_twin) -> None:
    batch = pack_tokens(rows, gamma=GAMMA, gamma_within_turn=WITHIN, dtype=f64)
    B, A = batch.mask.shape
    critic = GivenTokens(2, q=(1, B, A, VOCAB), v=(B, A + 1))
    total, sums = mc.loss(
        critic, batch, 5.0, mc.Config(gamma=GAMMA, gamma_within_turn=WITHIN, cql_weight=0.1)
    )
    error = of_v = cql = seen = 0.0
    for b, t in enumerate(rows):
        steps = packed_twin(t, GAMMA, WITHIN)
        after = 0.0
        for k, d in reversed(list(enumerate(steps))):
            after = d["reward"] + (d["discount"] if k + 1 < len(steps) else 0.0) * after
            if d["learnt"]:
                q = given(critic.q, 0, b, k, d["action"])
                error += (after - q) ** 2
                of_v += (after - given(critic.v, b, k)) ** 2
                cql += np.log(sum(np.exp(given(critic.q, 0, b, k, a)) for a in range(VOCAB))) - q
                seen += after
    assert sums["return_to_go"].item() == pytest.approx(seen, abs=1e-10)
    assert total.item() == pytest.approx((error + of_v + 0.1 * cql) / 5, abs=1e-10)


def tiny_lm() -> Any:
    torch.manual_seed(0)
    lm = llama(VOCAB, width=8, layers=1, heads=2, context=32, eos=9, pad=0).double()
    with torch.no_grad():
        for p in lm.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return lm


@pytest.mark.parametrize("partner_weight", [0.0, 0.3])
def test_bc_loss(rows, packed_twin, partner_weight: float) -> None:
    """Log-probabilities by the whole model, row by row without padding; partners' tokens are all that was
    read after the first one."""
    lm = tiny_lm()
    batch = pack_tokens(rows, gamma=1.0, dtype=f64)
    c = bc.Config(partner_weight=partner_weight)
    total, sums = bc.loss(bc.Objective(LmPolicy(lm)), batch, 4.0, c)
    agent = partner = 0.0
    for t in rows:
        logp = lm(input_ids=torch.tensor(t.ids)[None]).logits[0].log_softmax(-1).detach()
        agent -= sum(float(logp[d["decision"], d["action"]]) for d in packed_twin(t, 1.0, 1.0) if d["learnt"])
        partner -= sum(float(logp[i - 1, t.ids[i]]) for i in range(1, len(t)) if not t.action[i])
    assert sums["loss"].item() == pytest.approx(agent, abs=1e-10)
    assert total.item() == pytest.approx((agent + partner_weight * partner) / 4, abs=1e-10)
    assert ("partner_loss" in sums) == (partner_weight > 0)


def test_what_is_not_learnt_from_has_no_gradient_at_all(rows) -> None:
    """Exactly zero at padding, burn-in and the action without a known next state; at every action of a
    learnt decision it is not. V is moved at learnt states alone: the bootstrap V(s_{k+1}) is a constant."""
    batch = pack_tokens(rows, gamma=GAMMA, dtype=f64)
    B, A = batch.mask.shape
    assert not batch.mask.all() and not torch.equal(batch.mask, batch.loss_mask)
    shapes = {"q": (2, B, A, VOCAB), "v": (B, A + 1)}
    critic, target = GivenTokens(0, **shapes), GivenTokens(1, **shapes)
    ilql.loss(critic, target, batch, 1.0, ilql.Config(), 0.0)[0].backward()
    assert target.q.grad is None and target.v.grad is None
    assert (critic.q.grad[:, ~batch.loss_mask] == 0).all()
    assert (critic.q.grad[:, batch.loss_mask] != 0).all()
    states = nn.functional.pad(batch.loss_mask, (0, 1))
    assert (critic.v.grad[~states] == 0).all() and (critic.v.grad[states] != 0).all()
    alone = GivenTokens(0, **shapes)
    mc.loss(alone, batch, 1.0, mc.Config())[0].backward()
    assert (alone.q.grad[:, ~batch.loss_mask] == 0).all()
    assert (alone.v.grad[~states] == 0).all() and (alone.v.grad[states] != 0).all()

    turns = pack_turns(rows, gamma=GAMMA, dtype=f64)
    shapes = {"q": (2, *turns.mask.shape), "v": (B, turns.mask.shape[1] + 1)}
    by_turn = GivenTurns(0, **shapes)
    slow = slow_copy(GivenTurns(1, **shapes))
    turn_iql.loss(by_turn, slow, turns, 1.0, turn_iql.Config(), 0.0)[0].backward()
    states = nn.functional.pad(turns.loss_mask, (0, 1))
    assert (by_turn.q.grad[:, ~turns.loss_mask] == 0).all() and (
        by_turn.q.grad[:, turns.loss_mask] != 0
    ).all()
    assert (by_turn.v.grad[~states] == 0).all() and (by_turn.v.grad[states] != 0).all()


def test_a_tau_of_a_half_without_conservatism_is_td_and_half_squares(rows) -> None:
    """The limit: L = sum_i (G - Q_i)^2 + (min Qbar - V)^2 / 2."""
    batch = pack_tokens(rows, gamma=GAMMA, dtype=f64)
    B, A = batch.mask.shape
    shapes = {"q": (2, B, A, VOCAB), "v": (B, A + 1)}
    critic, target = GivenTokens(0, **shapes), slow_copy(GivenTokens(1, **shapes))
    c = ilql.Config(tau=0.5, tau_within_turn=0.5, cql_weight=0.0, lookahead=0.0)
    total, sums = ilql.loss(critic, target, batch, 1.0, c, 0.0)
    slow = target.q_of_actions(batch.inputs, batch.decisions, batch.actions).amin(0)
    half = ((slow - critic.v[:, :-1]) ** 2)[batch.loss_mask].sum() / 2
    assert_close(total, sums["td"] + half)


def step(name: str, trunk: nn.Module, rows: list[Tokens]) -> tuple[nn.Module, nn.Module, dict[str, Tensor]]:
    """One update of a critic; the critic, its target, and the target's weights as they were."""
    critic = (TurnCritic(trunk, 8) if name == "turn_iql" else TokenCritic(trunk, 8, VOCAB)).double()
    target = slow_copy(critic)
    with torch.no_grad():
        for p in target.parameters():
            p.add_(torch.randn_like(p))
    before = {k: p.clone() for k, p in target.named_parameters()}
    learner = Learner(critic, AdamW(1e-2), target)
    if name == "ilql":
        batch = pack_tokens(rows, gamma=GAMMA, dtype=f64)
        ilql.update(learner, [batch], 9.0, ilql.Config(polyak=0.25), 1e-2, 0.5)
    else:
        batch = pack_turns(rows, gamma=GAMMA, dtype=f64)
        turn_iql.update(learner, [batch], 9.0, turn_iql.Config(polyak=0.25), 1e-2, 0.5)
    return critic, target, before


@pytest.mark.parametrize("name", ["ilql", "turn_iql"])
def test_targets_follow_after_the_step(rows, name: str) -> None:
    """Every weight of the copy, trunk and heads: 3/4 of what it was and 1/4 of the critic after its step."""
    critic, target, before = step(name, trunk_of(tiny_lm()), rows)
    online = dict(critic.named_parameters())
    for key, p in target.named_parameters():
        assert_close(p, 0.75 * before[key] + 0.25 * online[key].detach(), rtol=0, atol=1e-12, msg=key)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, "abcdef"),
        ({"keep_top": 0.5}, "bde"),  # the three best of six, in the order of the log
        ({"keep_top": 0.3}, "bd"),  # 1.8 is 2; of equals the first
        ({"keep_top": 0.01}, "b"),  # never none
        ({"min_return": 0.0}, "bde"),  # above, not at
        ({"keep_top": 0.3, "min_return": 2.5}, "b"),
    ],
)
def test_filters_keep_the_best(change: dict, kept: str) -> None:
    returns = np.array([0.0, 3.0, -1.0, 2.0, 2.0, 0.0])
    assert "".join("abcdef"[i] for i in bc.keep(returns, bc.Config(**change))) == kept


def test_a_filter_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"min_return is 3.0; expected a lower bound"):
        bc.keep(np.array([3.0]), bc.Config(min_return=3.0))


def test_partner_tokens_by_hand(row) -> None:
    """[7|1 2 9|5 5|3 9] and [7 8|9]: the next token was read at positions 3 and 4, and at 0 of the second."""
    batch = pack_tokens([row("7|1 2 9|5 5|3 9"), row("7 8|9")], gamma=1.0)
    found = bc.partner_tokens(batch)
    assert [x.nonzero().squeeze(1).tolist() for x in found] == [[3, 4], [0]]
