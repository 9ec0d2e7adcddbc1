"""What lies between decisions, and what lies behind them, changes no number that is learnt from.

Two invariances of every algorithm: with values and log-probabilities at the decisions held fixed, tokens
that partners say in between change nothing; and padding changes nothing, whatever stands on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from turnwise.algorithms.logs import bc, ilql, mc, turn_iql
from turnwise.data.batch import Batch, pack_tokens, pack_turns
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.losses.returns import discounted_returns, td_targets
from turnwise.models.lm.critics import TokenCritic, TokenValues, TurnCritic, TurnValues
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.target import slow_copy

f64 = torch.float64
GAMMA, WITHIN, VOCAB = 0.9, 0.97, 13
ALGORITHMS = ("bc", "bc with partner", "mc", "ilql", "turn_iql")


def conversation(seed: int, turns: int, extra: list[int], end: str) -> Tokens:
    """The same agent's turns and rewards for the same seed, with `extra` more partner tokens before each."""
    writer, rng = TokenWriter(), np.random.default_rng(seed)
    noise = np.random.default_rng((seed, 1))
    for k in range(turns):
        writer.read(rng.integers(0, VOCAB, 2).tolist() + noise.integers(0, VOCAB, extra[k]).tolist())
        writer.act(rng.integers(0, VOCAB, rng.integers(1, 4)).tolist(), float(rng.normal()), -1.0)
    if end == "read":
        writer.read([3] * (1 + extra[-1]))
    return writer.tokens(terminated=end == "ended", next_known=end != "said", id=str(seed))


class FixedTokens(nn.Module):
    """Values at decisions that do not depend on what was read."""

    def __init__(self, B: int, A: int):
        super().__init__()
        self.q = nn.Parameter(torch.randn(2, B, A, VOCAB, dtype=f64))
        self.v = nn.Parameter(torch.randn(B, A + 1, dtype=f64))

    def forward(self, ids: Tensor, decisions: Tensor, actions: Tensor, mask: Tensor) -> TokenValues:
        return TokenValues(self.q_of_actions(ids, decisions, actions), self.q.logsumexp(-1), self.v)

    def q_of_actions(self, ids: Tensor, decisions: Tensor, actions: Tensor) -> Tensor:
        return self.q.gather(-1, actions.expand(self.q.shape[:-1]).unsqueeze(-1)).squeeze(-1)


class FixedTurns(FixedTokens):
    def forward(self, ids: Tensor, decisions: Tensor, ends: Tensor) -> TurnValues:
        return TurnValues(self.q[..., 0], self.v)


@given(
    st.integers(0, 10_000),
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(["ended", "read", "said"])), min_size=1, max_size=3
    ),
    st.lists(st.integers(0, 40), min_size=5, max_size=5),
)
def test_what_partners_insert_changes_nothing(
    seed: int, shapes: list[tuple[int, str]], extra: list[int]
) -> None:
    plain, longer = (
        [conversation(seed + i, turns, x, end) for i, (turns, end) in enumerate(shapes)]
        for x in ([0] * 5, extra)
    )
    packers: list[Callable[[list[Tokens]], Batch]] = [
        lambda rows: pack_tokens(rows, gamma=GAMMA, gamma_within_turn=WITHIN, dtype=f64),
        lambda rows: pack_turns(rows, gamma=GAMMA, dtype=f64),
    ]
    for pack, fixed in zip(packers, (FixedTokens, FixedTurns), strict=True):
        one, two = pack(plain), pack(longer)
        for name in ("actions", "rewards", "discounts", "mask", "loss_mask", "behavior_logp"):
            a, b = getattr(one, name), getattr(two, name)
            assert (a is None and b is None) or torch.equal(a, b), name
        assert_close(
            *(discounted_returns(x.rewards, x.discounts, x.mask) for x in (one, two)), rtol=0, atol=0
        )
        torch.manual_seed(seed)
        critic, target = fixed(*one.mask.shape), slow_copy(fixed(*one.mask.shape))
        after = critic.v[:, 1:].detach()
        assert_close(*(td_targets(x.rewards, x.discounts, after) for x in (one, two)), rtol=0, atol=0)
        if fixed is FixedTurns:
            losses = [turn_iql.loss(critic, target, x, 2.0, turn_iql.Config(), 0.3)[0] for x in (one, two)]
            assert same(critic, *losses)
        else:
            losses = [ilql.loss(critic, target, x, 2.0, ilql.Config(), 0.3)[0] for x in (one, two)]
            assert same(critic, *losses)
            assert same(critic, *(mc.loss(critic, x, 2.0, mc.Config())[0] for x in (one, two)))


def same(critic: nn.Module, a: Tensor, b: Tensor) -> bool:
    """Whether two losses and their gradients are the same, bit by bit."""
    gradients = [torch.autograd.grad(x, list(critic.parameters()), allow_unused=True) for x in (a, b)]
    return torch.equal(a, b) and all(
        (x is None and y is None) or torch.equal(x, y) for x, y in zip(*gradients, strict=True)
    )


def test_a_hundred_partner_tokens_cost_no_discount() -> None:
    """Two turns of one token earning 0 and 1, gamma 0.9 per turn: the first return is 0.9, however long the
    partner spoke in between; a discount per position would leave 0.9^101 = 2e-5."""
    for spoken in (1, 100):
        writer = TokenWriter()
        writer.read([7])
        writer.act([1], 0.0, None)
        writer.read([5] * spoken)
        writer.act([1], 1.0, None)
        batch = pack_tokens([writer.tokens(terminated=True, next_known=True, id="")], gamma=0.9, dtype=f64)
        assert discounted_returns(batch.rewards, batch.discounts, batch.mask).tolist() == [[0.9, 1.0]]


# -- with a transformer that reads the tokens ----------------------------------------------------------


def setting(name: str) -> tuple[nn.Module, Callable[[list[Tokens]], Batch], Callable[[Batch], Tensor]]:
    """Something that learns (in float64, no weight at zero), how its rows are packed, and its loss."""
    torch.manual_seed(1)
    lm: Any = llama(VOCAB, width=8, layers=2, heads=2, context=64, eos=9, pad=0).double()
    trunk = trunk_of(lm)
    target = None
    if name.startswith("bc"):
        learner: nn.Module = bc.Objective(LmPolicy(lm))
    elif name == "turn_iql":
        learner, target = TurnCritic(trunk, 8).double(), TurnCritic(trunk_of(_again(lm)), 8).double()
    else:
        learner, target = (
            TokenCritic(trunk, 8, VOCAB).double(),
            TokenCritic(trunk_of(_again(lm)), 8, VOCAB).double(),
        )
    for module in (learner, target):
        for p in () if module is None else module.parameters():
            nn.init.normal_(p, 0, 0.3)
    slow = slow_copy(target) if target is not None else None

    def loss(batch: Batch) -> Tensor:
        if name.startswith("bc"):
            return bc.loss(learner, batch, 3.0, bc.Config(partner_weight=0.5 if "partner" in name else 0.0))[
                0
            ]
        if name == "mc":
            return mc.loss(learner, batch, 3.0, mc.Config())[0]
        if name == "ilql":
            return ilql.loss(learner, slow, batch, 3.0, ilql.Config(), 0.3)[0]
        return turn_iql.loss(learner, slow, batch, 3.0, turn_iql.Config(), 0.3)[0]

    def pack(rows: list[Tokens]) -> Batch:
        return (pack_turns if name == "turn_iql" else pack_tokens)(rows, gamma=GAMMA, dtype=f64)

    return learner, pack, loss


def _again(lm: Any) -> Any:
    return type(lm)(lm.config).double()


def rows() -> list[Tokens]:
    """Different lengths: 1 turn and an end; 2, cut after the partner; 4, cut after the agent."""
    return [
        conversation(0, 1, [0] * 5, "ended"),
        conversation(1, 2, [3, 1, 0, 0, 2], "read"),
        conversation(2, 4, [1, 6, 2, 0, 0], "said"),
    ]


def gradients(loss: Tensor, module: nn.Module) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(module.parameters(), found, strict=True)]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_rows_together_are_the_sum_of_rows_alone(name: str) -> None:
    """Short rows are padded to the longest one: losses and all gradients are those without, to 1e-10."""
    learner, pack, loss = setting(name)
    together = loss(pack(rows()))
    alone = [loss(pack([t])) for t in rows()]
    assert_close(together, sum(alone), rtol=0, atol=1e-10)
    for g, *parts in zip(gradients(together, learner), *(gradients(x, learner) for x in alone), strict=True):
        assert_close(g, sum(parts), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_garbage_on_the_padding_changes_nothing(name: str) -> None:
    """Other ids behind the rows, 9 more positions, 4 more decisions that are not real: the same to 1e-10."""
    learner, pack, loss = setting(name)
    batch = pack(rows())
    B, T = batch.inputs.shape
    real = torch.arange(T + 9) <= batch.decisions[:, -1:]
    inputs = torch.where(real, nn.functional.pad(batch.inputs, (0, 9)), torch.randint(1, VOCAB, (B, T + 9)))
    more = {"inputs": inputs}
    for field in ("rewards", "discounts", "mask", "loss_mask", "actions", "behavior_logp"):
        x = getattr(batch, field)
        more[field] = None if x is None else nn.functional.pad(x, (0, 4))
    final = batch.decisions[:, -1:].expand(B, 4)
    more |= {"decisions": torch.cat([batch.decisions, final], 1), "ends": torch.cat([batch.ends, final], 1)}
    padded = replace(batch, **more)
    a, b = loss(batch), loss(padded)
    assert_close(a, b, rtol=0, atol=1e-10)
    for x, y in zip(gradients(a, learner), gradients(b, learner), strict=True):
        assert_close(x, y, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["bc", "mc", "ilql", "turn_iql"])
def test_which_positions_feel_the_loss(name: str) -> None:
    """Gradient with respect to the embedding of each position: partner tokens before a learnt decision feed
    it and feel it; what comes after the last position read for one, padding included, feels nothing."""
    learner, pack, loss = setting(name)
    batch = pack(rows())
    trunk = learner.trunk if hasattr(learner, "trunk") else trunk_of(learner.policy.lm)
    seen: list[Tensor] = []

    def watch(module: nn.Module, args: Any, output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    handle = trunk.get_input_embeddings().register_forward_hook(watch)
    loss(batch).backward()
    handle.remove()
    (embedded,) = seen
    felt = embedded.grad.abs().amax(-1)
    last_read = batch.ends if name == "turn_iql" else batch.decisions[:, :-1]
    for b in range(len(batch.rewards)):
        last = int(last_read[b][batch.loss_mask[b]].max())
        assert (felt[b, : last + 1] > 0).all()
        assert (felt[b, last + 1 :] == 0).all()
