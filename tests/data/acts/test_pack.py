"""Talks of acts on the decision axis: by hand, padded, cut; and next to episodes of an environment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from turnwise.data.acts.pack import ActSymbols, act_episode, act_episodes, pack_acts
from turnwise.data.acts.talks import ActLogs, ActTalk
from turnwise.losses.returns import discounted_returns, lambda_returns

f64 = torch.float64
SYMBOLS = ActSymbols(acts=3, answers=4, openings=2)


def talk(acts: list[int], answers: list[int], first: int = 0, terminated: bool = True) -> ActTalk:
    """Rewards -1, -2, ...; log-probabilities -.1, -.2, ...."""
    k = 1.0 + np.arange(len(acts))
    return ActTalk(first, np.array(acts), np.array(answers), -k, terminated, -0.1 * k, -0.05 * k)


def test_two_talks_by_hand() -> None:
    """The opening is a symbol behind the answers; rewards are learnt from and never seen."""
    logs = ActLogs(
        (talk([2, 0], [3, 0], first=1), talk([1], [2], terminated=False)),
        ("a", "b", "c"), ("(nothing)", "x", "y", "z"), ("p", "q"),
    )  # fmt: skip
    b = pack_acts(act_episodes(logs), gamma=0.9, dtype=f64)
    assert b.inputs.observation.tolist() == [[5, 3, 0], [4, 2, 0]]
    assert b.inputs.previous_action.tolist() == [[0, 2, 0], [0, 1, 0]]
    assert b.inputs.previous_reward.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert b.inputs.start.tolist() == [[True, False, False]] * 2
    assert b.decisions.tolist() == [[0, 1, 2], [0, 1, 1]]
    assert b.actions.tolist() == [[2, 0], [1, 0]]
    assert b.rewards.tolist() == [[-1, -2], [-1, 0]]
    assert b.discounts.tolist() == [[0.9, 0], [0.9, 0]]
    assert b.mask.tolist() == b.loss_mask.tolist() == [[True, True], [True, False]]
    assert b.behavior_logp is not None
    np.testing.assert_allclose(b.behavior_logp, [[-0.1, -0.2], [-0.1, 0]])


def test_returns_by_hand() -> None:
    """-1 + .5 (-2 + .5 (-3)) = -2.75 after a true end; a cut talk bootstraps from 8."""
    ended, cut = talk([0, 1, 2], [1, 2, 3]), talk([0, 1, 2], [1, 2, 3], terminated=False)
    b = pack_acts([act_episode(t, SYMBOLS) for t in (ended, cut)], gamma=0.5, dtype=f64)
    assert discounted_returns(b.rewards, b.discounts, b.mask)[0].tolist() == [-2.75, -3.5, -3]
    values = torch.full((2, 3), 8.0, dtype=f64)
    whole = lambda_returns(b.rewards, b.discounts, values, b.loss_mask, 1.0)
    assert whole.tolist() == [[-2.75, -3.5, -3], [-2.75 + 1, -3.5 + 2, -3 + 4]]


def test_what_follows_a_cut_behind_the_agents_own_words_is_unknown() -> None:
    """Its last act has no target; the act before it bootstraps from a state that was seen."""
    e = act_episode(talk([0, 1], [2, 0], terminated=False), SYMBOLS)
    b = pack_acts([e, act_episode(talk([0, 1], [2, 0]), SYMBOLS)], gamma=1.0, dtype=f64)
    assert b.mask.tolist() == [[True, True], [True, True]]
    assert b.loss_mask.tolist() == [[True, False], [True, True]]
    targets = lambda_returns(b.rewards, b.discounts, torch.full((2, 2), 8.0, dtype=f64), b.loss_mask, 1.0)
    assert targets[0].tolist() == [-1 + 8, 0]


def test_padding_changes_nothing() -> None:
    """A longer talk in the batch leaves a row's returns and inputs what they were, to 1e-10."""
    short, long = talk([2, 1], [1, 3]), talk([0] * 7, [1] * 7)
    alone, padded = (
        pack_acts([act_episode(t, SYMBOLS) for t in rows], gamma=0.9, dtype=f64)
        for rows in ([short], [short, long])
    )
    n = 2
    for name in ("rewards", "discounts", "actions"):
        assert torch.equal(getattr(padded, name)[0, :n], getattr(alone, name)[0])
        assert not getattr(padded, name)[0, n:].any()
    assert torch.equal(padded.inputs.observation[0, : n + 1], alone.inputs.observation[0])
    returns = [discounted_returns(b.rewards, b.discounts, b.mask)[0] for b in (alone, padded)]
    torch.testing.assert_close(returns[1][:n], returns[0], atol=1e-10, rtol=0)
    assert padded.decisions[0, n:].tolist() == [n] * 6


def test_unknown_log_probabilities_and_talks_without_an_act() -> None:
    silent = ActTalk(0, np.zeros(1, int), np.zeros(1, int), np.zeros(1), True, *np.full((2, 1), np.nan))
    assert pack_acts([act_episode(silent, SYMBOLS)], gamma=1.0).behavior_logp is None
    with pytest.raises(ValueError, match="at least one action"):
        act_episode(talk([], []), SYMBOLS)
