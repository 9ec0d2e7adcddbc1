"""A policy that writes its own words, from logs alone: every log of a small dialogue, and the doors."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import turnwise as tw
from turnwise.envs.dialogue import Message
from turnwise.models.lm.critics import TokenCritic, TurnCritic
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.parts import trunk_of
from turnwise.recipes.held_out import HeldOut
from turnwise.rollout.agent import Acting, Agent
from turnwise.rollout.engines.decoding import distribution

SAYS = ("Yes.", "No, not yet.", "Test the fuse")
QUICK: dict[str, Any] = {"quiet": True, "resamples": 50}


@pytest.fixture(scope="module")
def agent() -> Agent:
    """A language model in float64, guided by a critic, that samples at a temperature."""
    tokenizer = train_tokenizer([*SAYS, "Does it start?", "Is it on?"] * 3, 320, 128)
    torch.manual_seed(0)
    lms = [llama(len(tokenizer), width=32, layers=1, heads=2, context=128, eos=0, pad=1) for _ in range(2)]
    critic = TokenCritic(trunk_of(lms[1]), 32, len(tokenizer))
    for head in critic.q:
        torch.nn.init.normal_(head.out.weight)
    acting = Acting(temperature=0.8, beta=0.5, adv_clip=1.0, max_new_tokens=12)
    return Agent(lms[0].double().eval(), tokenizer, critic.double(), acting)


def slow_logp(agent: Agent, messages: list[Message]) -> float:
    """ln P of the last message, token by token, each from a pass of its own."""
    policy, decoding = agent.token_policy()
    *heard, said = messages
    ids, total = agent.read(tuple(heard)), 0.0
    for token in [*agent.tokenizer.encode(said.content, add_special_tokens=False), agent.chat.stop]:
        with torch.inference_mode():
            seen = [trunk(input_ids=torch.tensor([ids])).last_hidden_state[:, -1] for trunk in policy.trunks]
            total += float(distribution(policy.logits(seen), decoding)[0, token].log())
        ids = [*ids, token]
    return total


@pytest.fixture(scope="module")
def dialogues(agent: Agent) -> list[tuple[list[Message], tuple[float, float]]]:
    """All nine conversations of two turns in `SAYS`, and the ln P of both messages."""
    found = []
    for first, second in itertools.product(SAYS, SAYS):
        talk = [Message("user", "Does it start?"), Message("assistant", first)]
        talk += [Message("user", "Is it on?" if first == SAYS[1] else "Yes."), Message("assistant", second)]
        found.append((talk, (slow_logp(agent, talk[:2]), slow_logp(agent, talk))))
    return found


def rows_of(dialogues: Any, logp: Any = None) -> list[dict[str, Any]]:
    """Each conversation once: what an agent that takes one of `SAYS` evenly would log."""
    rows = []
    for i, (talk, own) in enumerate(dialogues):
        messages = [{"role": m.role, "content": m.content} for m in talk]
        for k, at in enumerate((1, 3)):
            messages[at] |= {"behavior_logp": own[k] if logp else -np.log(3), "reward": (k + 1.0) * (i % 4)}
        rows.append({"id": f"c{i}", "messages": messages})
    return rows


def test_over_all_logs_the_estimate_is_the_value(agent: Agent, dialogues: Any) -> None:
    """Every other message earns nothing, so that the value is a sum over nine conversations. The mean over
    all logs of per-decision importance sampling is the sum over both rewards; of the whole-conversation one
    over returns of conversations within the nine."""
    policy = tw.Policy(agent, held=HeldOut(0.0, None, frozenset()))
    found = tw.estimate(policy, rows_of(dialogues), **QUICK)
    p = np.exp([own for _, own in dialogues])
    r = np.array([[i % 4, 2.0 * (i % 4)] for i in range(9)])
    # The first message of three conversations is one: it comes with each of three second ones evenly.
    per_decision = (p[:, 0] * r[:, 0] / 3).sum() + (p.prod(1) * r[:, 1]).sum()
    values = {row["name"]: row["value"] for row in found["estimates"]}
    assert found["per"] == "turn" and found["behaviour"]["source"] == "logged"
    assert values["pdis"] == pytest.approx(per_decision, rel=1e-9)
    assert values["is"] == pytest.approx((p.prod(1) * r.sum(1)).sum(), rel=1e-9)
    assert found["worth"]["sure"] == "cannot tell" and found["support"]["coverage"] < 0.5
    json.dumps(found, allow_nan=False)


def test_the_logged_agent_itself_is_worth_the_mean(agent: Agent, dialogues: Any) -> None:
    """Scores as computed token by token are those of the log: every weight is 1."""
    policy = tw.Policy(agent, held=HeldOut(0.0, None, frozenset()))
    found = tw.estimate(policy, rows_of(dialogues, logp=True), **QUICK)
    for row in found["estimates"]:
        if row["name"] in ("logs", "is", "wis", "pdis", "wpdis", "dr", "wdr"):
            assert row["value"] == pytest.approx(np.mean([3.0 * (i % 4) for i in range(9)]), abs=1e-12)
    assert found["curve"]["reached"] is None or found["curve"]["reached"] == 1


def test_a_message_that_is_too_long_is_never_said(agent: Agent, dialogues: Any) -> None:
    """With one token at most only a message of one token may be said, and needs no stop."""
    policy = tw.Policy(agent.with_acting(max_new_tokens=1), held=HeldOut(0.0, None, frozenset()))
    found = tw.estimate(policy, rows_of(dialogues), **QUICK)
    assert "longer than the policy ever speaks (max_new_tokens is 1)" in found["warnings"][0]
    assert found["worth"]["sure"] == "cannot tell"


def test_what_is_not_logged_is_cloned(agent: Agent, dialogues: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    rows = rows_of(dialogues)
    del rows[2]["messages"][3]["behavior_logp"]
    found = tw.estimate(tw.Policy(agent, held=HeldOut(0.0, None, frozenset())), rows, **QUICK)
    assert (found["behaviour"]["source"], found["behaviour"]["missing"]) == ("partly logged", 1)
    assert "'c2'" in found["warnings"][0] and found["behaviour"]["calibration"]


def test_what_has_no_answer_says_so(agent: Agent, dialogues: Any) -> None:
    rows, policy = rows_of(dialogues), tw.Policy(agent)
    with pytest.raises(tw.InputError, match="proposes 4 replies and says one of them"):
        other = replace(agent, critic=TurnCritic(trunk_of(agent.lm), 32)).with_acting(proposals=4)
        tw.estimate(tw.Policy(other), rows, **QUICK)
    with pytest.raises(tw.InputError, match="way is 'tilted'"):
        tw.estimate(policy, rows, way="tilted", **QUICK)
    logs = list(tw.read_logs(rows))
    messages = [replace(m, behavior_logp=0.3) if m.role == "assistant" else m for m in logs[1].messages]
    with pytest.raises(tw.InputError, match="'c1', message 1 of the agent: behavior_logp: expected"):
        tw.estimate(policy, [logs[0], replace(logs[1], messages=tuple(messages))], **QUICK)
    one = tw.estimate(policy, rows[:1], **QUICK)
    assert one["worth"]["sure"] == "cannot tell" and "nobody knows what the policy" in one["warnings"][0]
