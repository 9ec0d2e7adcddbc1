"""A policy that writes, per token: the packer's decisions, and what is the same per turn."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import turnwise as tw
from turnwise.data.batch import pack_tokens
from turnwise.evaluation.estimates import importance
from turnwise.evaluation.estimates.doubly_robust import doubly_robust
from turnwise.evaluation.estimates.fitted_v import fitted_v
from turnwise.evaluation.estimates.step_curve import mixed, mixed_messages
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.recipes.estimating.text.sentences import Sentences, spelt
from turnwise.recipes.estimating.text.speakers import LmSpeaker, Spoken, encoded
from turnwise.recipes.estimating.text.steps import TurnSteps, turn_steps
from turnwise.recipes.estimating.text.tokens import TokenSteps
from turnwise.recipes.estimating.text.turns import messages
from turnwise.recipes.held_out import HeldOut
from turnwise.rollout.agent import Acting, Agent
from turnwise.run.errors import SettingError

SAYS = ("Yes.", "No, not yet.", "Test the fuse, please.")
NOTHING = HeldOut(0.0, None, frozenset())


def rows_of(n: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        messages: list[dict[str, Any]] = [{"role": "user", "content": "Does it start?"}]
        for k in range(1 + i % 3):
            pick = int(rng.integers(3))
            messages.append({"role": "assistant", "content": SAYS[pick], "reward": pick - 0.5 * k})
            messages.append({"role": "user", "content": ("Yes.", "No.")[int(rng.integers(2))]})
        found.append({"id": f"c{i}", "messages": messages})
    return found


ROWS = rows_of(30)


@pytest.fixture(scope="module")
def agent() -> Agent:
    tokenizer = train_tokenizer([*SAYS, "Does it start?"] * 3, 300, 64)
    torch.manual_seed(0)
    lm = llama(len(tokenizer), width=16, layers=1, heads=2, context=64, eos=0, pad=1)
    return Agent(lm.double().eval(), tokenizer, None, Acting(max_new_tokens=40))


@pytest.fixture(scope="module")
def said(agent: Agent) -> tuple[TurnSteps, Spoken, np.ndarray]:
    """Turns, tokens of the policy, and log-probabilities of a made-up logged agent, not far from it."""
    logs = list(tw.read_logs(ROWS, quiet=True))
    spoken, _ = LmSpeaker(agent).tokens(encoded(logs, agent.chat, 64, quiet=True), quiet=True)
    away = np.random.default_rng(1).normal(0, 0.2, len(spoken.logp))
    return turn_steps(logs), spoken, np.minimum(spoken.logp + away, 0.0)


def both(said: Any, discount: float) -> tuple[TokenSteps, Any]:
    steps, spoken, behavior = said
    tokens = TokenSteps.of(steps, spoken, behavior, discount, same=False)
    by_turn = [steps.padded(np.bincount(spoken.turn, x)) for x in (spoken.logp, behavior)]
    return tokens, messages(steps, *by_turn, discount)[0]


def test_tokens_are_those_of_the_packer(agent: Agent, said: Any) -> None:
    """Rewards are as they are worth at the beginning: the packer's, times its discounts before them."""
    logs = list(tw.read_logs(ROWS, quiet=True))
    batch = pack_tokens(agent.chat.encode(logs), gamma=0.9, dtype=torch.float64)
    tokens = both(said, 0.9)[0]
    mask, rewards, discounts = (x.numpy() for x in (batch.mask, batch.rewards, batch.discounts))
    np.testing.assert_array_equal(tokens.logged.mask, mask)
    running = np.cumprod(np.where(mask, np.where(discounts == 0, 0.9, discounts), 1.0), axis=1)
    before = np.concatenate([np.ones((len(mask), 1)), running[:, :-1]], axis=1)
    np.testing.assert_allclose(tokens.logged.rewards, rewards * before, atol=1e-12)
    np.testing.assert_array_equal(tokens.padded(said[1].ids)[mask], batch.actions.numpy()[mask])


@pytest.mark.parametrize("step", [1.0, 0.3])
def test_what_is_the_same_per_turn(said: Any, step: float) -> None:
    """No reward comes in mid-message: importance sampling of whole conversations, its weighted form, and the
    per-decision one; of the policy, and of a step towards it. So is the doubly robust one whose values change
    at the end of messages alone, and not one whose values are of tokens."""
    tokens, whole = both(said, 0.9)
    fine, coarse = mixed_messages(tokens.logged, step, tokens.first), mixed(whole, step)
    for estimate in (importance.importance_sampling, importance.weighted, importance.per_decision):
        assert estimate(fine).value == pytest.approx(estimate(coarse).value, rel=1e-9)
    assert importance.weighted_per_decision(fine).value != pytest.approx(
        importance.weighted_per_decision(coarse).value, rel=1e-3
    )
    v = np.random.default_rng(2).normal(0, 1, whole.mask.shape)
    powers = 0.9 ** np.arange(v.shape[1])
    flat = (v * powers)[said[0].mask][said[1].turn]  # in the units of the beginning, as rewards are
    same = doubly_robust(replace(fine, q=tokens.padded(flat), v=tokens.padded(flat)))
    assert same.value == pytest.approx(doubly_robust(replace(coarse, q=v, v=v)).value, rel=1e-9)


def test_values_of_tokens_know_what_was_said_of_the_message(agent: Agent) -> None:
    """Of conversations of one message: before its first token all are one history; before its last one V is
    the mean of those that said this message (weights 1, no prior, no folds)."""
    logs = list(tw.read_logs(ROWS[::3], quiet=True))
    spoken, _ = LmSpeaker(agent).tokens(encoded(logs, agent.chat, 64, quiet=True), quiet=True)
    steps = turn_steps(logs)
    tokens = TokenSteps.of(steps, spoken, spoken.logp, 1.0, same=True)
    keys = spelt(Sentences.of(steps).histories, spoken.parted(spoken.ids), steps.mask)
    stage = tokens.padded(spoken.place)
    v = fitted_v([tokens.padded(x) for x in keys], tokens.logged, np.zeros(10, int), stage=stage, prior=0)
    np.testing.assert_allclose(v[:, 0], steps.rewards.mean())
    last = tokens.padded(spoken.last)
    for text in SAYS:
        some = np.array([d.messages[1].content == text for d in logs])
        np.testing.assert_allclose(v[some][last[some]], steps.rewards[some].mean())


def test_per_token_from_both_doors(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clone with the policy's own tokens; logs with the probability of whole messages are for turns."""
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    policy = tw.Policy(replace(agent, lm=agent.lm.float()), held=NOTHING)
    found = tw.estimate(policy, ROWS, per="token", discount=0.9, quiet=True, resamples=50)
    tokens = sum(len(agent.tokenizer.encode(m["content"])) + 1 for r in ROWS for m in r["messages"][1::2])
    assert (found["per"], found["decisions"]) == ("token", tokens)
    assert found["behaviour"]["source"] == "estimated" and found["support"]["sampled_turns"] > 0
    steps = found["curve"]["steps"]
    assert steps[0]["worth"]["value"] == pytest.approx(found["worth"]["now"]["value"], abs=1e-9)
    assert any("per token what they are per turn" in w for w in found["warnings"])
    json.dumps(found, allow_nan=False)
    known = [{**r, "messages": [m | {"behavior_logp": -1.0} for m in r["messages"]]} for r in ROWS]
    with pytest.raises(SettingError, match="expected turn: these logs say how probable whole messages"):
        tw.estimate(policy, known, per="token", quiet=True)
