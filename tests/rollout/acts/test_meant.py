"""What a policy that writes would mean: shares of replies against sums over its whole vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from turnwise.data.acts.codebook import Example, Heard, Utterance
from turnwise.data.acts.talks import Codes
from turnwise.data.dialogue import Dialogue
from turnwise.data.rows import token_rows
from turnwise.envs.dialogue import Message
from turnwise.models.lm.critics import TurnCritic
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.parts import trunk_of
from turnwise.rollout.acts import meant as room
from turnwise.rollout.acts.meant import histories_of, meant
from turnwise.rollout.agent import Acting, Agent
from turnwise.rollout.engines.decoding import distribution

TEXTS = ("Yes.", "No, not yet.", "Does it start?")


@dataclass(frozen=True)
class ByLetters:
    """Adds up letters: even or odd; every fifth sum is like nothing that it knows."""

    names: tuple[str, ...] = ("even", "odd")

    def read(self, utterances: Sequence[Utterance]) -> Heard:
        sums = [sum(map(ord, u.text)) for u in utterances]
        return Heard(np.array(sums, np.int64) % 2, np.array([float(strange(n)) for n in sums]))

    def examples(self, act: int) -> list[Example]:
        return []


def strange(n: int) -> bool:
    return n > 40 and n % 5 == 0


CODES = Codes(ByLetters(), ByLetters(), ByLetters())


@pytest.fixture(scope="module")
def agent() -> Agent:
    """Says one token at most."""
    tokenizer = train_tokenizer(TEXTS * 3, 300, 64)
    torch.manual_seed(0)
    lm = llama(len(tokenizer), width=16, layers=1, heads=2, context=64, eos=0, pad=1)
    return Agent(lm.eval(), tokenizer, None, Acting(temperature=0.9, max_new_tokens=1))


def talk(*says: str) -> Dialogue:
    messages = [Message("user", "Does it start?")]
    for text in says:
        messages += [Message("assistant", text), Message("user", "Yes.")]
    return Dialogue(tuple(messages), terminated=True)


def exact(agent: Agent, d: Dialogue, turn: int) -> np.ndarray:
    """[3], by adding up all tokens of the vocabulary; "Yes" was logged."""
    ids = agent.read(d.messages[: 2 * turn + 1])
    policy, decoding = agent.token_policy()
    with torch.inference_mode():
        seen = [trunk(input_ids=torch.tensor([ids])).last_hidden_state[:, -1] for trunk in policy.trunks]
        p = distribution(policy.logits(seen), decoding)[0].double().numpy()
    found = np.zeros(3)
    for token, share in enumerate(p):
        text = agent.chat.text([token])
        total = sum(map(ord, text))
        found[2 if strange(total) and text.strip().lower() != "yes" else total % 2] += share
    return found


def test_shares_come_to_the_probabilities(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3 conversations whose first turns are one history, which has three times as many replies; within 4
    standard errors, with replies to one history in several chunks."""
    monkeypatch.setattr(room, "LANES", 100)
    logs = [talk("Yes.", "No, not yet."), talk("No, not yet."), talk("No, not yet.", "Yes.")]
    rows = histories_of(token_rows(logs, agent.chat, 64))
    told = list[int]()
    found = meant(agent, CODES, logs, rows, seed=0, samples=400, progress=told.append)
    p = found.chances.probabilities
    assert found.replies == 400 * 5 == told[-1] and p.shape == (3, 2, 3) and len(found.without) == 8
    np.testing.assert_array_equal(p[0, 0], p[2, 0])
    for (b, k), n in {(0, 0): 1200, (0, 1): 400, (2, 1): 400}.items():
        true = exact(agent, logs[b], k)
        assert (np.abs(p[b, k] - true) < 4 * np.sqrt(true * (1 - true) / n) + 1e-9).all()
        assert true.min() > 0.05
        left = np.stack([x[b, k] for x in found.without])
        assert np.ptp(left[:, 0]) > 0
        np.testing.assert_allclose(left.mean(0), p[b, k], atol=1e-12)  # parts of one size
    assert not p[1, 1].any() and found.chances.prefixes[0][1].acts.tolist() == [sum(map(ord, "Yes.")) % 2]
    # Replies depend on their history alone, and not on what is asked beside it.
    alone = histories_of(token_rows(logs[1:2], agent.chat, 64))
    other = meant(agent, CODES, logs[1:2], alone, seed=0, samples=1200)
    assert other.chances.probabilities[0, 0, 0] == pytest.approx(p[0, 0, 0], abs=1e-12)


def test_one_of_several_proposals_is_what_is_said(agent: Agent) -> None:
    """Of 8 tokens that may be said, a critic without a preference says each as often as the policy; one with
    a strong one says its favourite wherever it is among 16 proposals, (1 - 1/8)^16 = .12 of the time it is
    not if all are alike."""
    logs = [talk("No, not yet.")]
    rows = histories_of(token_rows(logs, agent.chat, 64))
    torch.manual_seed(1)
    lm = llama(len(agent.tokenizer), width=16, layers=1, heads=2, context=64, eos=0, pad=1)
    critic = TurnCritic(trunk_of(lm), 16)
    for head in critic.q:
        torch.nn.init.normal_(head.out.weight)
    acting = replace(agent.acting, top_k=8, proposals=16)
    chooser = Agent(agent.lm, agent.tokenizer, critic.eval(), acting)
    true = exact(chooser, logs[0], 0)
    asked = [chooser.with_acting(beta=beta) for beta in (1e-9, 1e3)]
    found = [meant(one, CODES, logs, rows, seed=0, samples=100) for one in asked]
    shares = [x.chances.probabilities[0, 0] for x in found]
    assert (np.abs(shares[0] - true) < 4 * np.sqrt(true * (1 - true) / 100) + 1e-9).all()
    assert shares[1].max() > 0.75 > true.max() + 0.05


def test_a_strange_sentence_that_was_logged_is_what_it_was_read_as(agent: Agent) -> None:
    """All that the policy can say is among the logged messages."""
    said = sorted({agent.chat.text([t]) for t in range(len(agent.tokenizer))} - {""})
    logs = [talk(text) for text in said if text.strip()]
    found = meant(agent, CODES, logs, histories_of(token_rows(logs, agent.chat, 64)), seed=0, samples=2)
    assert not found.chances.probabilities[:, :, 2].any()
