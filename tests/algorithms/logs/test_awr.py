"""Advantage-weighted cloning: its weights, its limits, and the policy that minimises it."""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from turnwise.algorithms.logs import awr, bc
from turnwise.data.batch import pack_tokens, pack_turns
from turnwise.data.tokens import Tokens
from turnwise.models.lm.critics import TokenCritic, TurnCritic
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.replies import Scorer
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun

f64 = torch.float64
CPU = torch.device("cpu")
VOCAB, WIDTH = 11, 8
Row = Callable[..., Tokens]


def tiny_lm(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    lm = llama(VOCAB, width=WIDTH, layers=1, heads=2, context=32, eos=9, pad=0).double()
    with torch.no_grad():
        for p in lm.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return lm


def critic_of(kind: str) -> Any:
    """A critic that finds something better than something else, by about one unit."""
    trunk = trunk_of(tiny_lm(1))
    critic: Any = TokenCritic(trunk, WIDTH, VOCAB) if kind == "tokens" else TurnCritic(trunk, WIDTH)
    for head in (*critic.q, critic.v):
        torch.nn.init.normal_(head.out.weight)
    return critic.double()


@pytest.fixture
def rows(row: Row) -> list[Tokens]:
    """Ended; cut after the agent's own words; with burn-in; one that begins within a turn."""
    return [
        row("7|1 2 9|5 5|3 9"),
        row("7|2 9|5|1 3 3 9", terminated=False, next_known=False),
        row("3|9|4 4|2 2 9|5|9|1", learn_from=3),
        row("7|1 2 3 4 9|5|9", learn_from=3).window(2, 8),
    ]


def test_each_word_counts_by_its_weight(rows: list[Tokens], packed_twin: Any) -> None:
    """Against a twin that reads word by word, with advantages that are given; beta 2, weights up to 3."""
    lm = tiny_lm()
    batch = pack_tokens(rows, gamma=1.0, dtype=f64)
    advantages = torch.randn(batch.mask.shape, dtype=f64, generator=torch.Generator().manual_seed(0))
    c = awr.Config(beta=2.0, most_weight=3.0)
    total, sums = awr.loss(Scorer(LmPolicy(lm)), awr.Weighed(batch, advantages), 4.0, c)
    found = {"loss": 0.0, "nll": 0.0, "weight": 0.0, "squared_weight": 0.0, "bounded": 0.0}
    for b, t in enumerate(rows):
        logp = lm(input_ids=torch.tensor(t.ids)[None]).logits[0].log_softmax(-1).detach()
        for k, d in enumerate(packed_twin(t, 1.0, 1.0)):
            if d["learnt"]:
                w = min(exp(2 * float(advantages[b, k])), 3.0)
                nll = -float(logp[d["decision"], d["action"]])
                for name, x in zip(found, (w * nll, nll, w, w * w, float(w == 3.0)), strict=True):
                    found[name] += x
    assert 0 < found["bounded"] < sums["decisions"]
    for name, x in found.items():
        assert sums[name].item() == pytest.approx(x, abs=1e-10), name
    assert total.item() == pytest.approx(found["loss"] / 4, abs=1e-10)


def test_at_beta_0_it_is_behaviour_cloning(rows: list[Tokens]) -> None:
    """Loss and gradient, to the bit, whatever the critic says."""
    batch = pack_tokens(rows, gamma=1.0, dtype=f64)
    advantages = 5 * torch.randn(batch.mask.shape, dtype=f64)
    ours, theirs = tiny_lm(), tiny_lm()
    one, _ = awr.loss(Scorer(LmPolicy(ours)), awr.Weighed(batch, advantages), 4.0, awr.Config(beta=0.0))
    two, _ = bc.loss(bc.Objective(LmPolicy(theirs)), batch, 4.0, bc.Config())
    one.backward()
    two.backward()
    assert torch.equal(one, two)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_advantages_are_those_of_the_token_or_of_its_utterance(rows: list[Tokens]) -> None:
    """Of tokens, by the critic's own forward pass; of turns, spread by hand: the last row begins with the
    rest of a turn whose first token is burn-in."""
    tokens, turns = critic_of("tokens"), critic_of("turns")
    batch, by_turn = pack_tokens(rows, gamma=1.0, dtype=f64), pack_turns(rows, gamma=1.0, dtype=f64)
    with torch.no_grad():
        of = tokens(batch.inputs, batch.decisions, batch.actions, batch.mask)
        whole = turns(by_turn.inputs, by_turn.decisions, by_turn.ends)
    expected = of.q.amin(0) - of.v[:, :-1]
    found = awr.weighed(rows, tokens, f64, CPU)
    assert_close(found.advantages[batch.mask], expected[batch.mask])
    spread = [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 2], [0, 0, 0, 1]]
    a = whole.q.amin(0) - whole.v[:, :-1]
    found = awr.weighed(rows, turns, f64, CPU)
    for b, of_tokens in enumerate(spread):
        learnt = batch.loss_mask[b, : len(of_tokens)]
        assert_close(found.advantages[b, : len(of_tokens)][learnt], a[b, of_tokens][learnt])
    assert not found.advantages.requires_grad


def test_what_is_not_learnt_from_moves_nothing(rows: list[Tokens]) -> None:
    """Other advantages at burn-in, padding and the action without a next state: the same loss, even where an
    advantage is so large that its weight has no number."""
    batch = pack_tokens(rows, gamma=1.0, dtype=f64)
    advantages = torch.randn(batch.mask.shape, dtype=f64)
    other = advantages.masked_fill(~batch.loss_mask, 1e9)
    scorer, c = Scorer(LmPolicy(tiny_lm())), awr.Config(beta=1.0)
    a, b = (awr.loss(scorer, awr.Weighed(batch, x), 1.0, c)[0] for x in (advantages, other))
    assert torch.equal(a, b) and a.isfinite()


UTTERANCES = {(1, 2, 9): 4, (1, 3, 9): 3, (4, 9): 2, (5, 9): 3}
"""what is said after a 7, and how often"""


def closed_form(kind: str, critic: Any, row: Row, beta: float) -> np.ndarray:
    """pi_logs exp(beta A) / Z, of each utterance; under a critic of tokens the product over its states."""
    texts = [f"7|{' '.join(map(str, u))}" for u in UTTERANCES]
    one = [awr.weighed([row(text)], critic, f64, CPU).advantages[0] for text in texts]
    counts = np.array(list(UTTERANCES.values()), float)
    if kind == "turns":
        p = counts * np.exp(beta * np.array([float(a[0]) for a in one]))
        return p / p.sum()
    # After the 7: a 1 (seven times), a 4 or a 5. After the 1: a 2 or a 3. All else follows by itself.
    first = np.array(
        [7 * exp(beta * float(one[0][0])), *(counts[k] * exp(beta * float(one[k][0])) for k in (2, 3))]
    )
    second = counts[:2] * np.exp(beta * np.array([float(one[0][1]), float(one[1][1])]))
    first, second = first / first.sum(), second / second.sum()
    return np.array([first[0] * second[0], first[0] * second[1], first[1], first[2]])


@pytest.mark.parametrize("kind", ["tokens", "turns"])
def test_the_minimiser_is_the_tilted_behaviour(kind: str, row: Row, tmp_path: Path) -> None:
    """Trained to the end on all that is said there, it says each utterance with that probability. The tilt is
    no small one: at beta 0 the probabilities would differ by more than a tenth."""
    critic, beta = critic_of(kind), 1.5
    before = [p.clone() for p in critic.parameters()]
    rows = [row(f"7|{' '.join(map(str, u))}") for u, n in UTTERANCES.items() for _ in range(n)]
    c = awr.Config(
        epochs=100, batch_size=12, beta=beta, most_weight=1e6, optimizer=AdamW(lr=0.05, warmup=0.04)
    )
    run = TrainingRun(tmp_path, log_every=100, checkpoint_every=100, quiet=True)
    policy = awr.train(c, rows, [], LmPolicy(tiny_lm()), critic, run, 0)
    batch = pack_tokens([row(f"7|{' '.join(map(str, u))}") for u in UTTERANCES], gamma=1.0, dtype=f64)
    said = policy.logp(batch).sum(1).exp().detach().numpy()
    expected = closed_form(kind, critic, row, beta)
    cloned = np.array(list(UTTERANCES.values())) / len(rows)
    assert np.abs(expected - cloned).max() > 0.1
    np.testing.assert_allclose(said, expected, rtol=0, atol=0.002)
    assert all(torch.equal(p, q) for p, q in zip(critic.parameters(), before, strict=True))
