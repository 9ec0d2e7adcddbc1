"""Futures under fixed actions: by hand, one by one over paths of states, and as likelihoods of episodes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from turnwise.envs.problems.classics import CLASSICS
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.open_loop import beliefs_after, futures, total_variation
from turnwise.exact.learning.predictors import prefixes
from turnwise.exact.learning.sequences import Sequences
from turnwise.exact.learning.truth import described, random_episodes


def test_an_end_by_hand() -> None:
    """One state, one action, two observations: ends with 1/4, and shows 1 then; shows 0 while it goes on.

    Two steps: 0 0 has (3/4)^2, 0 1 has 3/4 1/4, and 1 followed by nothing (symbol 2) has 1/4.
    """
    found = futures(_coin(0.25), np.ones((1, 1)), np.zeros((1, 2), int))[0]
    expected = np.zeros(9)
    expected[[0 * 3 + 0, 0 * 3 + 1, 1 * 3 + 2]] = 9 / 16, 3 / 16, 1 / 4
    np.testing.assert_allclose(found, expected, atol=1e-15)


def test_an_end_for_certain_is_no_distance() -> None:
    """A model that lets one of a million episodes live on is a millionth away, and not all there is."""
    futures_of = [futures(_coin(e), np.ones((1, 1)), np.zeros((1, 5), int)) for e in (1.0, 1 - 1e-6)]
    assert total_variation(*futures_of)[0] == pytest.approx(1e-6, rel=1e-9)


def test_the_clock_by_hand() -> None:
    """At most 3 steps, one of which is over: the second one from here shows 1 and ends in any case."""
    found = futures(_coin(0.25, longest=3), np.ones((1, 1)), np.zeros((1, 3), int), np.array([1]))[0]
    expected = np.zeros(27)
    expected[[0 * 9 + 1 * 3 + 2, 1 * 9 + 2 * 3 + 2]] = 3 / 4, 1 / 4
    np.testing.assert_allclose(found, expected, atol=1e-15)


def _coin(hazard: float, longest: int | None = None) -> LearntModel:
    return LearntModel(
        start=np.ones(1), firsts=np.ones((1, 1)), transitions=np.ones((1, 1, 1)),
        emissions=np.array([[[1.0, 0.0]]]), ends=np.array([[hazard]]),
        lasts=np.broadcast_to([0.0, 1.0], (2, 1, 1, 2)), longest=longest,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["tiger", "t-maze-5"])
def test_every_future_one_by_one(name: str) -> None:
    """All sequences of three symbols, by sums over states that are written out."""
    model, begun = _begun(name)
    S, A, O = model.shape
    beliefs = beliefs_after(model, begun)
    actions = np.random.default_rng(0).integers(A, size=(len(begun), 3))
    found = futures(model, beliefs, actions)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    for row, belief, acts in zip(found, beliefs, actions, strict=True):
        for number, seen in enumerate(itertools.product(range(O + 1), repeat=3)):
            alive, over = belief, 0.0
            for a, o in zip(acts, seen, strict=True):
                if o == O:  # only what ended with the answer before shows nothing, and it stays so
                    alive = np.zeros(S)
                    continue
                ended = sum(alive[s] * model.ends[a, s] * model.lasts[0, a, s, o] for s in range(S))
                went = (alive * (1 - model.ends[a])) @ model.transitions[a]
                alive, over = went * model.emissions[a, :, o], ended
            assert row[number] == pytest.approx(alive.sum() + over, abs=1e-12)


@pytest.mark.parametrize("name", ["tiger", "t-maze-5"])
def test_futures_are_likelihoods_of_episodes(name: str) -> None:
    """P(future | beginning) = P(beginning and future) / P(beginning), with the likelihoods of EM's loops."""
    model, begun = _begun(name)
    O, base = model.shape[2], model.log_likelihoods(begun)
    actions = np.random.default_rng(1).integers(model.shape[1], size=(len(begun), 2))
    found = futures(model, beliefs_after(model, begun), actions)
    for i in range(len(begun)):
        here = slice(begun.offsets[i], begun.offsets[i + 1])
        expected = np.zeros((O + 1) ** 2)
        for steps, ended in ((1, True), (2, True), (2, False)):
            for path in itertools.product(range(O), repeat=steps):
                whole = Sequences(
                    np.append(begun.actions[here], actions[i, :steps]),
                    np.append(begun.observations[here], path), None,
                    np.array([0, begun.lengths[i] + steps]), np.array([ended]), begun.firsts[i : i + 1],
                    begun.action_symbols, O,
                )  # fmt: skip
                first, second = (*path, O)[:2]
                expected[first * (O + 1) + second] += np.exp(model.log_likelihoods(whole)[0] - base[i])
        np.testing.assert_allclose(found[i], expected, atol=1e-12)


def _begun(name: str) -> tuple[LearntModel, Sequences]:
    """The true model, and six beginnings of episodes."""
    problem = CLASSICS[name]()
    rng = np.random.default_rng(0)
    return described(problem), prefixes(random_episodes(TabularEnv(problem), 60, 8, rng), rng, 6)
