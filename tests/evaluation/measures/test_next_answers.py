"""A recurrent predictor of what is seen next, on sequences whose entropy is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from turnwise.evaluation.measures.next_answers import nats_per_symbol, recurrent_log_likelihoods
from turnwise.exact.learning.sequences import Sequences


def recalled(n: int, seed: int) -> Sequences:
    """Two steps. Of the first, the answer is a fair coin; of the second it is that coin turned by the act,
    and the episode ends. Three of four begin with 0."""
    rng = np.random.default_rng(seed)
    coin, acts = rng.integers(2, size=n), rng.integers(2, size=(n, 2))
    seen = np.stack([coin, coin ^ acts[:, 1]], 1)
    return Sequences(
        actions=acts.ravel(),
        observations=seen.ravel(),
        rewards=None,
        offsets=2 * np.arange(n + 1),
        ended=np.ones(n, bool),
        firsts=(rng.random(n) < 0.25).astype(int),
        action_symbols=2,
        observation_symbols=2,
        first_symbols=2,
    )


def test_what_was_said_before_is_remembered_and_chance_is_left() -> None:
    """ln 2 for the coin and -(3/4 ln 3/4 + 1/4 ln 1/4) for the beginning: 1.255 nats of each episode, and
    nothing for the second answer and the end. No predictor can do better in the mean."""
    learnt, held = recalled(300, 0), recalled(400, 1)
    found = recurrent_log_likelihoods(learnt, held, width=16)
    entropy = math.log(2) - 0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    per = nats_per_symbol(found, held.lengths, np.random.default_rng(0))
    assert per["value"] == pytest.approx(entropy / 2, abs=0.05)


def test_nats_per_symbol_by_hand() -> None:
    """(1 + 5) / (2 + 4) = 1; episodes count by their steps, and one alone says nothing."""
    found = nats_per_symbol(np.array([-1.0, -5.0]), np.array([2, 4]), np.random.default_rng(0))
    assert found["value"] == 1 and found["low"] < 1 < found["high"]
    with pytest.raises(ValueError, match="1 episodes; expected two or more"):
        nats_per_symbol(np.array([-1.0]), np.array([2]), np.random.default_rng(0))
