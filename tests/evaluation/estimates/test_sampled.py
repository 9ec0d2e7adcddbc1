"""Coverage by draws and values by weights, by hand and against the listed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from turnwise.evaluation.estimates import doubly_robust
from turnwise.evaluation.estimates.fitted_v import fitted_v
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.sampled_coverage import places, sampled_coverage
from turnwise.evaluation.estimates.step_curve import StepPath, logged_distance, mixed, mixed_messages
from turnwise.evaluation.estimates.support import coverage, in_share


def test_sampled_coverage_comes_to_the_listed_one(rng: np.random.Generator) -> None:
    """60 conversations of up to 3 turns, 5 acts of which the last is never logged: with 60,000 draws, at the
    policy and at half of the way (whose own draws the others serve)."""
    B, A, K = 60, 3, 5
    mask = np.arange(A) < rng.integers(1, A + 1, B)[:, None]
    acts = rng.integers(0, K - 1, (B, A))
    histories = np.arange(A) * 4 + rng.integers(0, 4, (B, A))
    target = rng.dirichlet(np.ones(K), (B, A))
    ratios = np.where(mask, rng.normal(0, 0.5, (B, A)), 0.0).cumsum(1)
    clusters = np.arange(B) // 2
    at = places(mask, ratios, 60_000, rng)
    p = target[at.episode, at.decision].cumsum(1)
    drawn = (rng.random((len(at), 1)) > p).sum(1).clip(max=K - 1)
    found = sampled_coverage(at, drawn, acts, histories, mask, log_ratios=ratios, clusters=clusters)
    listed = coverage(target, acts, histories, mask, log_ratios=ratios, clusters=clusters)
    assert found.overall == pytest.approx(listed.overall, abs=0.01) and 0 < found.error < 0.005
    np.testing.assert_allclose(found.per_decision, listed.per_decision, atol=0.02)
    np.testing.assert_allclose(found.running, listed.running)
    np.testing.assert_allclose(found.of_logged_per_decision, listed.of_logged_per_decision)
    assert (found.of_logged, found.of_logged_nowhere) == (pytest.approx(listed.of_logged), 0.0)
    assert found.nowhere == pytest.approx(listed.nowhere, abs=0.01)
    named = {(u.decision, u.act): u for u in found.unseen}
    for u in listed.unseen[:3]:
        assert named[u.decision, u.act].mass == pytest.approx(u.mass, abs=0.02)
        assert named[u.decision, u.act].elsewhere == u.elsewhere
    assert (
        in_share(0.8, 0.05) == "80% (70% to 90% by the replies that were drawn)" and in_share(0.8, 0) == "80%"
    )
    half = sampled_coverage(at, drawn, acts, histories, mask, log_ratios=0 * ratios, step=0.5)
    even = coverage(target, acts, histories, mask)
    expected = (half.of_logged_per_decision + even.per_decision) / 2
    np.testing.assert_allclose(half.per_decision, expected, atol=0.02)


def logged(**changes: object) -> Logged:
    one = np.ones((2, 1))
    half = np.full((2, 1), np.log(0.3))
    base = Logged(np.array([[1.0], [3.0]]), one > 0, 1.0, half, half)
    return replace(base, **changes)


def test_values_are_weighted_means() -> None:
    """The example of the file: (1 + 9) / 4 = 2.5; drawn half-way to the mean of the turn where the weights
    are worth 10 / 10 conversations and the prior is as many."""
    x = logged(logp=np.log([[0.3], [0.9]]))
    fold = np.zeros(2, int)
    np.testing.assert_allclose(fitted_v([np.zeros((2, 1), int)], x, fold, prior=0), [[2.5], [2.5]])
    apart = fitted_v([np.array([[0], [1]])], x, fold, prior=1)
    np.testing.assert_allclose(apart, [[(1 + 2.5) / 2], [(3 + 2.5) / 2]])
    other = fitted_v([np.zeros((2, 1), int)], x, np.array([0, 1]), prior=0)
    np.testing.assert_allclose(other, [[3.0], [1.0]])  # each by the other one


def test_a_mixed_step_is_the_path_s(rng: np.random.Generator) -> None:
    """At the logged acts; and its distance from logs drawn of the behaviour is that of the path."""
    before, policy = (rng.dirichlet(np.full(3, 8.0), (1, 1)) for _ in range(2))
    B = 40_000
    acts = rng.choice(3, size=(B, 1), p=before[0, 0])
    path = StepPath(np.log(before), np.log(policy), np.ones((1, 1), bool), "mixed")
    pick = lambda p: np.log(p[0, 0])[acts]  # noqa: E731
    x = Logged(np.zeros((B, 1)), np.ones((B, 1), bool), 1.0, pick(policy), pick(before))
    for t in (0.0, 0.4, 1.0):
        step = mixed(x, t)
        np.testing.assert_allclose(step.logp, path.at(t)[0, 0][acts], atol=1e-12)
        assert logged_distance(step) == pytest.approx(path.distance(t), abs=0.03)
    v = np.full((B, 1), 0.7)
    same = replace(x, rewards=acts * 1.0, logp=x.behavior_logp, q=v, v=v)
    assert doubly_robust.doubly_robust(same).value == pytest.approx(float(acts.mean()), abs=1e-12)


def test_a_coin_for_each_message_is_one_for_its_tokens() -> None:
    """A message of two tokens and one of one; the policy never says the second token of conversation 1. By
    hand: t = .25, behaviour .5 and .5, policy .2 and .1: M_1 = .375 + .05 = .425, M_2 = .1875 + .005."""
    mask = np.array([[True, True, True], [True, True, False]])
    behavior = np.log(np.array([[0.5, 0.5, 0.3], [0.5, 0.5, 1.0]]))
    with np.errstate(divide="ignore"):
        policy = np.log(np.array([[0.2, 0.1, 0.9], [0.2, 0.0, 1.0]]))
    tokens = Logged(np.zeros((2, 3)), mask, 1.0, policy, behavior)
    first = np.array([[True, False, True], [True, False, False]])
    found = mixed_messages(tokens, 0.25, first).logp
    expected = [[0.425, 0.1925 / 0.425, 0.45], [0.425, 0.1875 / 0.425, 1.0]]
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-12)
    for t in (0.0, 1.0):
        np.testing.assert_array_equal(mixed_messages(tokens, t, first).logp, mixed(tokens, t).logp)


def test_values_of_like_places_are_one_however_long_earlier_messages_were() -> None:
    """Two messages, the first of one token or of two: what follows the same second message is valued
    together by its stage, 1 and 3 as 2; and apart by its number, where each column knows one of them."""
    mask = np.array([[True, True, False], [True, True, True]])
    half = np.full((2, 3), np.log(0.5))
    x = Logged(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 3.0]]), mask, 1.0, half, half)
    stage = np.array([[0, 2, 9], [0, 1, 2]])
    together = fitted_v([stage], x, np.zeros(2, int), stage=stage, prior=0)
    np.testing.assert_allclose(together, [[2.0, 2.0, 0.0], [2.0, 2.0, 2.0]])
    apart = fitted_v([np.zeros((2, 3), int)], x, np.zeros(2, int), prior=0)
    np.testing.assert_allclose(apart, [[2.0, 2.0, 0.0], [2.0, 2.0, 3.0]])
