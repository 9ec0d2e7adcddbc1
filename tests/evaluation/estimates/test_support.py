"""Effective sample sizes by hand; coverage by hand and against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from turnwise.evaluation.estimates.support import coverage, evenness


def test_weights_by_hand():
    """1, 1, 2: 16 / 6 and 1/2. Weights 1 and 1 of one customer are a weight of 2: 2, 2 are two whole ones."""
    logs = np.log([1.0, 1.0, 2.0])
    assert evenness(logs).effective == pytest.approx(16 / 6)
    assert evenness(logs).largest_share == pytest.approx(0.5)
    assert evenness(logs, np.array([7, 7, 3])).effective == pytest.approx(2)
    assert evenness(logs + 5000).effective == pytest.approx(16 / 6)  # in logarithms nothing overflows
    none = evenness(np.full(3, -np.inf))
    assert none.effective == 0
    assert math.isnan(none.largest_share)
    with pytest.raises(ValueError, match="below infinity"):
        evenness(np.array([0.0, np.inf]))


def test_effective_size_of_normal_weights():
    """w = exp(s z - s^2/2) has E[w^2] = exp(s^2): the effective size is n exp(-s^2), here 36.8% of 20,000.

    The standard error of the mean of w^2 is about .02 of it: exp(6 s^2) / exp(2 s^2) = 55, its root 7.4, over
    the root of 20,000 = .052; three of those.
    """
    z = np.random.default_rng(0).normal(size=20_000)
    assert evenness(z).effective == pytest.approx(20_000 * math.exp(-1), rel=0.16)


def test_coverage_by_hand():
    """Three conversations, two acts, all histories alike at each decision.

    Decision 0: acts 0, 0, 1 were logged. Of act 1 the third has no other: it counts as covered for the first
    two only. The target takes act 1 with probability .4, .4, .4: missing is (0 + 0 + .4) / 3.
    Of what was logged itself the third's act is held by no other: 2 of 3 are.
    Decision 1: the first conversation has ended; acts 0, 0. Act 1 (.5, .1) was never logged here: .6 / 2.
    Overall 5 decisions: missing (.4 + .6) / 5. Of it act 1 in the third is what no other holds at all:
    (.4 + .1) / 5.
    """
    p = np.array([[[0.6, 0.4], [0.0, 0.0]], [[0.6, 0.4], [0.5, 0.5]], [[0.6, 0.4], [0.9, 0.1]]])
    acts = np.array([[0, -1], [0, 0], [1, 0]])
    mask = np.array([[True, False], [True, True], [True, True]])
    histories = np.array([[0, 9], [0, 1], [0, 1]])
    found = coverage(p, acts, histories, mask)
    assert found.per_decision == pytest.approx([1 - 0.4 / 3, 0.7])
    assert found.overall == pytest.approx(0.8)
    assert found.least == 1
    assert found.of_logged_per_decision == pytest.approx([2 / 3, 1])
    assert found.of_logged == pytest.approx(4 / 5)
    assert found.running == pytest.approx([1, 2 / 3])
    assert found.nowhere == pytest.approx(0.1)
    assert [(u.decision, u.act, u.elsewhere) for u in found.unseen] == [(1, 1, 0), (0, 1, 1)]
    assert [u.mass for u in found.unseen] == pytest.approx([0.3, 0.4 / 3])
    # Two others of three did act 0 at decision 0 for the third only; nothing was done twice by others else.
    twice = coverage(p, acts, histories, mask, at_least=2)
    assert twice.per_decision == pytest.approx([0.6 / 3, 0.0])


def test_coverage_by_a_plain_loop():
    rng = np.random.default_rng(1)
    size, length, k = 30, 4, 3
    p = rng.dirichlet(np.ones(k), (size, length))
    acts, histories = rng.integers(0, k, (size, length)), rng.integers(-2, 6, (size, length))
    mask = np.arange(length) < rng.integers(1, length + 1, size)[:, None]
    clusters = rng.integers(0, 12, size)
    ratios = np.cumsum(np.where(mask, rng.normal(size=(size, length)), 0.0), axis=1)
    found = coverage(p, acts, histories, mask, log_ratios=ratios, clusters=clusters, at_least=2)

    each, running = [], []
    for t in range(length):
        total = weight = everyone = 0.0
        for b in range(size):
            w = math.exp(ratios[b, t - 1]) if t else 1.0
            everyone += w
            if not mask[b, t]:
                continue
            weight += w
            for a in range(k):
                others = {
                    clusters[i]
                    for i in range(size)
                    for j in range(length)
                    if mask[i, j]
                    and histories[i, j] == histories[b, t]
                    and acts[i, j] == a
                    and clusters[i] != clusters[b]
                }
                total += w * p[b, t, a] * (len(others) >= 2)
        each.append(total / weight)
        running.append(weight / everyone)
    assert found.per_decision == pytest.approx(each, abs=1e-12)
    assert found.overall == pytest.approx(np.dot(each, running) / sum(running), abs=1e-12)
    missing = sum(u.mass for u in found.unseen if u.decision == 0)
    assert missing == pytest.approx(1 - each[0], abs=1e-12)


def test_even_weights_do_not_mean_coverage():
    """A target that half of the time does what the logs never do: all weights are 1/2, half is covered."""
    p = np.full((50, 1, 2), 0.5)
    zeros = np.zeros((50, 1), dtype=int)
    assert evenness(np.full(50, math.log(0.5))).effective == pytest.approx(50)
    found = coverage(p, zeros, zeros, zeros == 0)
    assert found.overall == pytest.approx(0.5)
    assert (found.unseen[0].act, found.unseen[0].mass) == (1, pytest.approx(0.5))
    assert found.nowhere == pytest.approx(0.5)


def test_a_conversation_does_not_speak_for_itself():
    p, mask = np.array([[[0.3, 0.7]]]), np.array([[True]])
    assert coverage(p, np.array([[1]]), np.array([[4]]), mask).overall == 0


def test_refuses():
    p, a, mask = np.array([[[0.3, 0.6]]]), np.array([[1]]), np.array([[True]])
    with pytest.raises(ValueError, match="sum to 1"):
        coverage(p, a, a, mask)
    with pytest.raises(ValueError, match="outside 0 to 1"):
        coverage(np.array([[[0.3, 0.7]]]), a + 1, a, mask)
    with pytest.raises(ValueError, match="shapes"):
        coverage(p, a, np.array([1]), mask)


def test_mean_weight_and_its_error():
    """Weights 1, 1, 2: mean 4/3, its variance (2/9 + 4/9) / (3 * 2). In clusters: 2 of two, and 2 of one."""
    logs = np.log([1.0, 1.0, 2.0])
    found = evenness(logs)
    assert found.mean == pytest.approx(4 / 3) and found.mean_error == pytest.approx(1 / 3)
    together = evenness(logs, np.array([0, 0, 1]))
    # Above the mean: 2 - 2 * 4/3 = -2/3 and 2 - 4/3 = 2/3; sqrt(8/9 * 2) / 3.
    assert together.mean == pytest.approx(4 / 3) and together.mean_error == pytest.approx(4 / 9)
    assert evenness(logs + 5000).mean > 1e99 and np.isinf(evenness(np.zeros(1)).mean_error)
    apart = evenness(np.log(np.arange(1.0, 9.0)))
    assert apart.mean_error == pytest.approx(np.std(np.arange(1.0, 9.0), ddof=1) / np.sqrt(8))


def test_what_a_careful_agent_never_did_is_missing_in_the_mean():
    """The logged agent errs once in 10^9; the policy errs in 3 of 10. All logged weights are .7: even, and in
    like situations nearly everything but the errors is held."""
    logs = np.full(1000, math.log(0.7))
    assert (evenness(logs).effective, evenness(logs).mean) == (pytest.approx(1000), pytest.approx(0.7))
