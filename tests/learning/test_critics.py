"""Critics of logs of which the answer is known: one word decides the outcome, or a coin does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import turnwise as tw

WORDS = ["lamp", "phone", "kettle", "radio", "screen", "cable", "blue", "red", "warm", "cold", "old", "new"]
STEPS = {"epochs": 10.0, "batch_size": 32, "optimizer": tw.AdamW(lr=4e-3)}
METHODS = {"mc": tw.MC(**STEPS), "ilql": tw.ILQL(**STEPS), "turn-iql": tw.TurnIQL(**STEPS)}
Fit = Callable[..., Any]


def talks(decides: bool, unit: float) -> list[dict[str, Any]]:
    """One turn each. The agent says yes or no beside other words; yes is worth a `unit`, or a coin is."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(300):
        said = bool(rng.integers(2))
        good = said if decides else bool(rng.integers(2))
        asked, words = (" ".join(rng.choice(WORDS, size=3)) for _ in range(2))
        reply = f"{'yes' if said else 'no'} {words}"
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]
        rows.append({"id": str(i), "messages": messages, "outcome": unit * good})
    return rows


@pytest.fixture(scope="module")
def fit() -> Fit:
    """Values on one clone, which is cheap and decides nothing here; what was fitted before is not again."""
    settings: dict[str, Any] = {"heldout": 0.25, "quiet": True, "estimate": False}
    model = {"width": 32, "layers": 1, "heads": 2, "vocab": 320, "context": 64}
    clone = tw.fit(tw.BC(epochs=1.0, batch_size=32), talks(True, 1.0), **settings, **model)
    known: dict[Any, Any] = {}

    def fit(name: str, decides: bool, unit: float = 1.0) -> Any:
        key = name, decides, unit
        if key not in known:
            known[key] = tw.fit(METHODS[name], talks(decides, unit), policy=clone, **settings)
        return known[key]

    return fit


@pytest.mark.parametrize("name", METHODS)
def test_where_one_word_decides_a_critic_finds_nearly_what_a_regression_on_words_finds(
    name: str, fit: Fit
) -> None:
    """Everything can be known after the reply: R² of ridge is above .95, a critic's above .8. Nothing can be
    known before it."""
    found = fit(name, True).result["critic"]
    by = found["judged_by"]
    q = found["q"]["all"]
    assert q["words"][by]["value"] > 0.95 and q["critic"][by]["value"] > 0.8
    assert found["knows"] is True and "beats a constant" in found["sentence"]
    assert found["v"]["all"]["critic"][by]["low"] < 0.005


@pytest.mark.parametrize("name", METHODS)
def test_where_outcomes_are_shuffled_a_critic_is_said_to_know_nothing(name: str, fit: Fit) -> None:
    found = fit(name, False).result["critic"]
    assert found["knows"] is False
    assert "does not beat a constant" in found["sentence"] and "say nothing yet" in found["sentence"]
    assert "Nor does a regression on words" in found["sentence"]


def test_the_currency_of_the_rewards_changes_no_policy(fit: Fit) -> None:
    """Outcomes of 1 and of 1,000: values in the unit of each, and the same log-probabilities when it acts."""
    one, many = (fit("mc", True, unit).agent for unit in (1.0, 1000.0))
    assert many.acting.return_std == pytest.approx(1000 * one.acting.return_std)
    (row,) = one.chat.encode(tw.read_logs(talks(True, 1.0)[:1]))
    before, after = one.values(row), many.values(row)
    np.testing.assert_allclose(after["q"], 1000 * before["q"], rtol=1e-3, atol=1)
    np.testing.assert_allclose(after["shift"], before["shift"], atol=0.05)


def test_logged_words_do_not_look_good_on_average(fit: Fit) -> None:
    """The mean of Q - V over what it learnt from is about 0, since both are fitted to the same returns.

    The mean of Q over all words that the clone may say is no such V. The conservative term holds down words
    that were not logged, and the logged ones looked good.
    """
    agent = fit("mc", True).agent
    found = [agent.values(t) for t in agent.chat.encode(tw.read_logs(talks(True, 1.0)))]
    advantages = np.concatenate([x["q"] - x["v"] for x in found]) / agent.acting.return_std
    assert abs(advantages.mean()) < 0.03
