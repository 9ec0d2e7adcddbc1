"""What words that were never seen tell: as much as sentences that were left out say."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.data.acts.build import build_codes
from turnwise.data.acts.gate import Gate
from turnwise.data.acts.talks import cut_turns
from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message


def learnt(noise: float, seed: int = 0) -> tuple[Gate, np.ndarray, np.ndarray]:
    """300 sentences of two acts in two numbers, the first of which tells the act as far as noise lets it."""
    rng = np.random.default_rng(seed)
    acts = rng.integers(0, 2, 300)
    x = np.stack([2.0 * acts - 1 + noise * rng.normal(size=300), rng.normal(size=300)], 1)
    gate = Gate.learn(x, acts, np.ones(300, np.int64), 2, 0)
    assert gate is not None
    return gate, x, acts


def test_evidence_of_clear_words_and_of_none() -> None:
    clear, x, acts = learnt(0.2)
    told = clear.evidence(x)
    assert (told.argmax(1) == acts).all() and clear.heat >= 0.8
    np.testing.assert_allclose(told @ clear.shares, 1)  # words tell for one act what they tell against others
    rng = np.random.default_rng(1)
    lost = Gate.learn(rng.normal(size=(60, 40)), rng.integers(0, 2, 60), np.ones(60, np.int64), 2, 0)
    assert lost is not None and lost.heat <= 0.05
    np.testing.assert_allclose(lost.evidence(rng.normal(size=(5, 40))), 1, atol=0.3)


def test_evidence_is_the_ratio_of_likelihoods() -> None:
    """x ~ N(+-1, .8^2): at x the acts have the ratio exp(2 x / .64), whatever their shares are."""
    gate, _, _ = learnt(0.8)
    at = np.array([[-0.5, 0.0], [0.0, 0.0], [0.5, 0.0]])
    told = gate.evidence(at)
    assert np.log(told[:, 1] / told[:, 0]) == pytest.approx(2 * at[:, 0] / 0.64, abs=0.7)


def test_only_sentences_that_were_never_logged_are_in_doubt() -> None:
    rng = np.random.default_rng(0)
    words = (["good", "fine", "nice", "sound"], ["bad", "poor", "sick", "broken"])
    dialogues = []
    for i in range(200):
        messages, state = [], int(rng.integers(2))
        for _ in range(2):
            act = ("ask", "wait")[int(rng.integers(2))]
            messages.append(Message("assistant", f"I {act} now", act=act))
            said = f"it is {rng.choice(words[state])} and {rng.choice(words[state])} there"
            messages.append(Message("user", said, act=("well", "ill")[state]))
        dialogues.append(Dialogue(tuple(messages), id=str(i), rated_by="nothing"))
    codes = build_codes(dialogues).codes
    bare = [Message("assistant", "I ask now"), Message("user", "it is good and nice there")]
    odd = [*bare, Message("assistant", "I wait now"), Message("user", "all sick and broken")]
    turns = cut_turns(odd)
    heard = codes.partner.read([u for u in turns.heard if u])
    assert heard.evidence[0] is None
    told = heard.evidence[1]
    assert told is not None and codes.partner.names[int(told.argmax())] == "ill"
