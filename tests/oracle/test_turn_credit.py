"""Estimators of conversations by enumeration: a policy that decides token by token when a conversation ends.

Two turns of two tokens each, 1 or 2. If the first token is 1, the conversation ends after the turn. Else the
partner says 7 or 8, more often 7 after a 2, and a second turn is the last one. Every token may earn, the
first turn too. All conversations, and all pairs of them with one partner, are enumerated, and the gradient
that is expected of what `algorithms/talk` computes is compared with that of the exact return.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from turnwise.algorithms.talk import ppo, rloo
from turnwise.data.batch import Batch, pack_tokens, pack_turns, turn_of_tokens
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.losses.groups import (
    anchored_baselines,
    group_centred,
    group_standardised,
    leave_one_out,
)
from turnwise.losses.policy import policy_gradient_loss
from turnwise.models.lm.replies import Scored

f64, CPU = torch.float64, torch.device("cpu")
SEEDS = {(7, 7): 0.3, (8, 7): 0.5, (8, 8): 0.2}
"""what the partner says after a 1 and after a 2, and how probable that is: one seed of it"""
FIRST = {(1, 1): 0.5, (1, 2): 0.7, (2, 1): 0.2, (2, 2): 0.1}
"""what the first turn earns"""
LAST = {
    7: {(1, 1): 0.4, (1, 2): -0.3, (2, 1): 0.0, (2, 2): 1.1},
    8: {(1, 1): 0.9, (1, 2): 0.3, (2, 1): 0.6, (2, 2): -0.5},
}
TURNS = [(1, 1), (1, 2), (2, 1), (2, 2)]


def conversation(first: tuple[int, int], said: int = 0, last: tuple[int, int] = (0, 0)) -> Tokens:
    writer = TokenWriter()
    writer.read([9])
    writer.act(first, FIRST[first], None, [0.0, 0.0])
    if first[0] == 2:
        writer.read([said])
        writer.act(last, LAST[said][last], None, [0.0, 0.0])
    return writer.tokens(terminated=True, next_known=True, id="")


def with_seed(seed: tuple[int, int]) -> list[Tokens]:
    """All conversations that one seed of the partner allows."""
    ends = [conversation(x) for x in TURNS if x[0] == 1]
    goes_on = [conversation(x, seed[x[1] - 1], y) for x in TURNS if x[0] == 2 for y in TURNS]
    return ends + goes_on


class Tabular(nn.Module):
    """A logit for the 2 at each history of tokens, and the exact value of each history."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        rows = [row for seed in SEEDS for row in with_seed(seed)]
        keys = {tuple(row.ids[: k + 1].tolist()) for row in rows for k in row.decisions.tolist()}
        self.place = {key: i for i, key in enumerate(sorted(keys))}
        torch.manual_seed(5)
        self.logit = nn.Parameter(torch.randn(len(keys), dtype=f64))
        self.register_buffer("scale", torch.ones(1, dtype=f64))

    device, context = CPU, 10

    def logp(self, batch: Batch, group: int = 1) -> Tensor:
        two = torch.zeros(batch.mask.shape, dtype=f64)
        found = []
        for b in range(len(two)):
            at = [
                self.place[tuple(batch.inputs[b, : d + 1].tolist())] if m else 0
                for d, m in zip(batch.decisions[b, :-1].tolist(), batch.mask[b].tolist(), strict=True)
            ]
            found.append(self.logit[at])
        z = torch.stack(found)
        sign = torch.where(batch.actions == 2, 1.0, -1.0)
        return nn.functional.logsigmoid(sign * z).masked_fill(~batch.mask, 0.0)

    def score(self, batch: Batch, group: int = 1) -> Scored:
        logp = self.logp(batch)
        return Scored(logp, torch.zeros_like(logp))

    def values(self, batch: Batch) -> Tensor:
        """[B, K+1], exact; 0 at the end."""
        found = torch.zeros(batch.decisions.shape, dtype=f64)
        for b, k in itertools.product(*map(range, batch.mask.shape)):
            if batch.mask[b, k]:
                found[b, k] = self.worth(tuple(batch.inputs[b, : int(batch.decisions[b, k]) + 1].tolist()))
        return found

    def worth(self, history: tuple[int, ...]) -> float:
        """What is still to be earned, in expectation: a sum over what follows."""
        p = float(torch.sigmoid(self.logit[self.place[history]]).detach())
        total = 0.0
        for token, chance in ((1, 1 - p), (2, p)):
            after, said = (*history, token), history[1:]
            if len(said) in (0, 3):  # the first token of a turn
                total += chance * self.worth(after)
            elif len(said) == 1:
                turn = (said[0], token)
                goes_on = sum(
                    w * self.worth((*after, seed[token - 1])) for seed, w in SEEDS.items() if turn[0] == 2
                )
                total += chance * (FIRST[turn] + goes_on)
            else:
                total += chance * LAST[said[2]][(said[3], token)]
        return total

    def forward(self, batch: Batch | None, states: Batch | None) -> Any:
        return None if batch is None else self.score(batch), None if states is None else self.values(states)


def single(policy: Tabular) -> tuple[list[Tokens], Tensor]:
    """All conversations and their probabilities: those of a seed, for every seed."""
    rows = [row for seed in SEEDS for row in with_seed(seed)]
    weights = torch.tensor([w for seed, w in SEEDS.items() for _ in with_seed(seed)], dtype=f64)
    return rows, weights * chances(policy, rows)


def chances(policy: Tabular, rows: list[Tokens]) -> Tensor:
    """Probabilities of what the policy said in each, with gradient."""
    return policy.logp(pack(rows)).sum(1).exp()


def pack(rows: list[Tokens]) -> Batch:
    return pack_tokens(rows, gamma=1.0, dtype=f64)


def exact(policy: Tabular) -> tuple[float, Tensor]:
    """The expected return and its gradient."""
    rows, weights = single(policy)
    j = (weights * torch.tensor([float(r.rewards.sum()) for r in rows], dtype=f64)).sum()
    return float(j.detach()), torch.autograd.grad(j, policy.logit)[0]


def pairs(policy: Tabular) -> tuple[list[Tokens], Tensor]:
    """All pairs with one partner, one after the other, and the probability of each row's pair."""
    rows, weights = [], []
    for seed, w in SEEDS.items():
        own = with_seed(seed)
        p = chances(policy, own).detach()
        for i, j in itertools.product(range(len(own)), repeat=2):
            rows += [own[i], own[j]]
            weights += [w * p[i] * p[j]] * 2
    return rows, torch.stack(weights)


def test_probabilities_and_values_are_those_of_the_policy() -> None:
    policy = Tabular()
    _, weights = single(policy)
    assert float(weights.detach().sum()) == pytest.approx(1, abs=1e-12)
    assert policy.worth((9,)) == pytest.approx(exact(policy)[0], abs=1e-12)
    assert float(pairs(policy)[1].sum()) == pytest.approx(2, abs=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("credit", ["turns", "tokens"])
def test_ppo_at_ratio_1_has_the_gradient_of_the_return(credit: str, lam: float) -> None:
    """With exact values, whatever lambda is: per turn, where a turn's tokens share an advantage, and per
    token.

    The advantages are multiplied by their deviation again, one number, and by each conversation's
    probability.
    """
    policy = Tabular()
    rows, weights = single(policy)
    c = ppo.Config(lam=lam, credit=credit, beta=0.0)  # pyright: ignore[reportArgumentType]
    (m,) = ppo.experience(policy, policy, [rows], c, CPU)  # pyright: ignore[reportArgumentType]
    raw = (m.returns - m.values)[m.states.loss_mask]
    m = replace(m, old_logp=policy.logp(m.batch).detach())
    m = replace(m, advantages=m.advantages * raw.std(correction=0) * weights.detach().unsqueeze(1))
    total, _ = ppo.loss(policy, m, 1.0, replace(c, value_weight=0.0))
    (found,) = torch.autograd.grad(-total, policy.logit)
    torch.testing.assert_close(found, exact(policy)[1], rtol=0, atol=1e-10)


def group_gradient(policy: Tabular, advantages: Callable[[Tensor], Tensor]) -> Tensor:
    """Of the loss of `talk-rloo` with other advantages [P, 2] in the place of its own, per conversation."""
    rows, weights = pairs(policy)
    c = rloo.Config(group=2, batch=2, minibatches=1, beta=0.0)
    (m,) = rloo.experience(policy, [rows], c, CPU, f64)  # pyright: ignore[reportArgumentType]
    worth = m.batch.rewards.sum(1).view(-1, 2)
    own = advantages(worth).flatten()
    m = replace(m, old_logp=policy.logp(m.batch).detach(), advantages=own * weights)
    total, _ = rloo.loss(policy, m, 2.0, c)
    return torch.autograd.grad(-total, policy.logit)[0]


def test_rloo_has_the_gradient_of_the_return() -> None:
    """Against one other conversation with the same partner, whose hidden state both share."""
    policy = Tabular()
    rows, weights = pairs(policy)
    c = rloo.Config(group=2, batch=2, minibatches=1, beta=0.0)
    (m,) = rloo.experience(policy, [rows], c, CPU, f64)  # pyright: ignore[reportArgumentType]
    m = replace(m, old_logp=policy.logp(m.batch).detach(), advantages=m.advantages * weights)
    total, _ = rloo.loss(policy, m, 2.0, c)
    (found,) = torch.autograd.grad(-total, policy.logit)
    torch.testing.assert_close(found, exact(policy)[1], rtol=0, atol=1e-10)
    torch.testing.assert_close(group_gradient(policy, leave_one_out), found, rtol=0, atol=1e-12)


def test_groups_centred_are_a_factor_off_and_standardised_ones_in_another_direction() -> None:
    """Centred with two: half of the gradient, exactly. Divided by the group's own deviation, every difference
    counts alike: the cosine to the gradient is .89 here, and .95 would be 18 degrees."""
    policy = Tabular()
    _, truth = exact(policy)
    torch.testing.assert_close(group_gradient(policy, group_centred), truth / 2, rtol=0, atol=1e-10)
    assert cosine(group_gradient(policy, group_standardised), truth) == pytest.approx(0.893, abs=1e-3)


def test_centred_turn_by_turn_what_going_on_earns_is_lost() -> None:
    """Rewards of turn k less their mean over the conversations that have a turn k (verl #7244's case).

    Where the policy decides who goes on, that mean depends on its choice: the expected gradient is off by
    minus E[r_2 | a second turn] times the gradient of the probability of a second turn. What a second turn
    earns on average is no reason to go on any more: here it learns to stop, where going on is worth more.
    """
    policy = Tabular()
    rows, weights = single(policy)
    p = weights.detach()
    rewards = pack_turns(rows, gamma=1.0, dtype=f64).rewards  # [B, 2]
    second = torch.tensor([len(r.decisions) == 4 for r in rows])
    means = [(p * rewards[:, 0]).sum(), (p * rewards[:, 1])[second].sum() / p[second].sum()]
    centred = torch.stack([rewards[:, 0] - means[0], (rewards[:, 1] - means[1]) * second], 1)
    to_go = centred.flip(1).cumsum(1).flip(1).gather(1, turn_of_tokens(rows))  # [B, A]
    batch = pack(rows)
    naive = (p.unsqueeze(1) * to_go * policy.logp(batch)).sum()
    (found,) = torch.autograd.grad(naive, policy.logit)
    (reach,) = torch.autograd.grad(single(policy)[1][second].sum(), policy.logit)
    truth = exact(policy)[1]
    torch.testing.assert_close(found, truth - means[1] * reach, rtol=0, atol=1e-10)
    first = policy.place[(9,)]  # whether to go on
    assert float(truth[first]) == pytest.approx(0.0169, abs=1e-4)
    assert float(found[first]) == pytest.approx(-0.0960, abs=1e-4)


@pytest.mark.parametrize("key", ["history", "what was said", "nothing"])
def test_baselines_at_equal_states_are_unbiased_whatever_stands_for_a_state(key: str) -> None:
    """The return-to-go of a turn less that of the other conversation's turn at an equal key; where it has
    none, less what the other earned in all, of which the rewards before the turn are left out on both
    sides."""
    policy = Tabular()
    rows, weights = pairs(policy)
    turns = pack_turns(rows, gamma=1.0, dtype=f64)
    batch, of = pack(rows), turn_of_tokens(rows)
    to_go = turns.rewards.flip(1).cumsum(1).flip(1)  # [B, 2]
    places: dict[Any, int] = {}
    advantages = torch.zeros_like(to_go)
    for i in range(0, len(rows), 2):
        at = [(b, k) for b in (i, i + 1) for k in range(int(turns.mask[b].sum()))]
        names = [
            {
                "history": (k, *rows[b].ids[: int(turns.decisions[b, k]) + 1].tolist()),
                "what was said": int(rows[b].ids[int(turns.decisions[b, k])]),
                "nothing": 0,
            }[key]
            for b, k in at
        ]
        anchors = torch.tensor([places.setdefault(name, len(places)) for name in names])
        own = torch.stack([to_go[b, k] for b, k in at])
        baselines, shared = anchored_baselines(own, anchors, torch.tensor([b for b, _ in at]))
        for (b, k), baseline, found in zip(at, baselines, shared, strict=True):
            other = 2 * i + 1 - b
            before = to_go[b, 0] - to_go[b, k]
            advantages[b, k] = to_go[b, k] - (baseline if found else to_go[other, 0] - before)
    weighted = (advantages * weights.unsqueeze(1)).gather(1, of) / 2
    (found,) = torch.autograd.grad((weighted * policy.logp(batch)).sum(), policy.logit)
    torch.testing.assert_close(found, exact(policy)[1], rtol=0, atol=1e-10)


def averaged(policy: Tabular, divided_by: str, n: int) -> Tensor:
    """The expected gradient of batches of n conversations, the sum over tokens divided so."""
    rows, weights = single(policy)
    batch, p = pack(rows), weights.detach()
    tokens = batch.mask.sum(1).double()
    returns = batch.rewards.sum(1, keepdim=True).expand_as(batch.rewards)
    each = policy_gradient_loss(policy.logp(batch), returns).sum(1)
    total = torch.zeros((), dtype=f64)
    for members in map(list, itertools.product(range(len(rows)), repeat=n)):
        if divided_by == "its own tokens":
            inside = (each[members] / tokens[members]).sum() / n
        else:
            size = n if divided_by == "conversations" else tokens[members].sum()
            inside = each[members].sum() / size
        total = total + p[members].prod() * inside
    return torch.autograd.grad(-total, policy.logit)[0]


@pytest.mark.parametrize(
    ("divided_by", "n", "expected"),
    [
        ("conversations", 2, 1.0),
        ("its own tokens", 2, 0.269),
        ("the batch's tokens", 1, 0.269),
        ("the batch's tokens", 2, 0.644),
    ],
)
def test_what_the_sum_over_tokens_is_divided_by(divided_by: str, n: int, expected: float) -> None:
    """The cosine of the expected gradient to the true one. A constant number of conversations is unbiased;
    a conversation's own tokens never are; those of the batch are less and less wrong as it grows."""
    policy = Tabular()
    found = cosine(averaged(policy, divided_by, n), exact(policy)[1])
    assert found == pytest.approx(expected, abs=1e-3 if expected < 1 else 1e-12)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a, b, 0))
