"""EM against enumeration of all hidden paths, against hmmlearn, and against its own promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from turnwise.exact.learning.climb import climb, value_of
from turnwise.exact.learning.data import finished, prepared
from turnwise.exact.learning.expectation import expected, log_prior, maximised, steps_of, tables_of
from turnwise.exact.learning.kernels import Tables
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.exact.learning.sequences import Sequences
from turnwise.exact.learning.starts import KINDS, start_of

S, A, O, F, B = 2, 2, 3, 2, 2


def rows(rng: np.random.Generator, *shape: int) -> np.ndarray:
    found = rng.random(shape) + 0.05
    return found / found.sum(-1, keepdims=True)


def some_model(rng: np.random.Generator, longest: int | None, stays: bool = False) -> LearntModel:
    moves = np.tile(np.eye(S), (A, 1, 1)) if stays else rows(rng, A, S, S)
    late = np.zeros(0 if longest is None else longest)
    pay = Pay(np.array([0.5]), rows(rng, 3, A, S, B), rng.normal(size=(3, A, S)), late)
    return LearntModel(
        rows(rng, S), rows(rng, S, F), moves, rows(rng, A, S, O),
        0.4 * rng.random((A, S)), rows(rng, 2, A, S, O), longest, pay,
    )  # fmt: skip


def some_episodes(rng: np.random.Generator, n: int, longest: int | None) -> Sequences:
    lengths = rng.integers(1, 4, n)
    ended = rng.random(n) < 0.5
    if longest is not None:
        ended |= lengths == longest
    m = int(lengths.sum())
    return Sequences(
        rng.integers(A, size=m), rng.integers(O, size=m), rng.integers(2, size=m).astype(float),
        np.append(0, np.cumsum(lengths)), ended, rng.integers(F, size=n), A, O, F,
    )  # fmt: skip


def enumerated(m: LearntModel, q: Sequences, i: int) -> dict[tuple[int, ...], float]:
    """P(hidden path, what was seen) for each path of an episode; the last state is missing after an end.

    Entries of paths that end carry the kind of the end (0 by itself, 1 by the clock) as their last number.
    """
    assert m.pay is not None and q.rewards is not None
    steps = range(q.offsets[i], q.offsets[i + 1])
    K, found = len(steps), {}
    for path in itertools.product(range(S), repeat=K + (not q.ended[i])):
        p = m.start[path[0]] * m.firsts[path[0], q.firsts[i]]
        for k, j in enumerate(steps):
            a, o, r, s = q.actions[j], q.observations[j], int(q.rewards[j]), path[k]
            if k == K - 1 and q.ended[i]:
                found[*path, 0] = p * m.ends[a, s] * m.lasts[0, a, s, o] * m.pay.bins[1, a, s, r]
                if m.longest == K:
                    found[*path, 1] = p * (1 - m.ends[a, s]) * m.lasts[1, a, s, o] * m.pay.bins[2, a, s, r]
                break
            t = path[k + 1]
            p *= (1 - m.ends[a, s]) * m.transitions[a, s, t] * m.emissions[a, t, o] * m.pay.bins[0, a, s, r]
        else:
            found[path] = p
    return found


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("longest", [None, 3])
def test_likelihood_and_counts_equal_enumeration(longest: int | None, stays: bool) -> None:
    """States that stay have no transitions to count, and all else is the same: paths that move have P = 0."""
    rng = np.random.default_rng(0)
    m, q = some_model(rng, longest, stays), some_episodes(rng, 30, longest)
    assert m.pay is not None and m.stays == stays
    steps = steps_of(q, longest, m.pay.bins_of(q))
    counts, likelihoods = expected(steps, tables_of(m))
    starts, moves, seen = np.zeros((F, S)), np.zeros((A, S, S)), np.zeros((A, O, S))
    lasts, paid, late = np.zeros((2, A, O, S)), np.zeros((3, A, S)), np.zeros((2, A, S, longest or 1))
    for i in range(len(q)):
        paths = enumerated(m, q, i)
        total = sum(paths.values())
        assert likelihoods[i] == pytest.approx(np.log(total), abs=1e-10)
        for path, p in paths.items():
            w = p / total
            starts[q.firsts[i], path[0]] += w
            K = int(q.lengths[i])
            for k, j in enumerate(range(q.offsets[i], q.offsets[i + 1])):
                a, o, r, s = q.actions[j], q.observations[j], q.rewards[j], path[k]
                if k == K - 1 and q.ended[i]:
                    lasts[path[-1], a, o, s] += w
                    paid[path[-1] + 1, a, s] += w * r
                    late[path[-1], a, s, min(k, late.shape[3] - 1)] += w
                else:
                    moves[a, s, path[k + 1]] += w
                    seen[a, o, path[k + 1]] += w
                    paid[0, a, s] += w * r
    if stays:
        moves = np.empty((A, 0, 0))
    for found, truth in (
        (counts.firsts, starts), (counts.transitions, moves), (counts.emissions, seen), (counts.lasts, lasts),
        (counts.paid, paid), (counts.late, late),
    ):  # fmt: skip
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-10)
    np.testing.assert_allclose(m.log_likelihoods(q, rewards=True), likelihoods, rtol=0, atol=1e-10)


@pytest.mark.parametrize("longest", [None, 3])
def test_the_filter_agrees_with_the_likelihood(longest: int | None) -> None:
    rng = np.random.default_rng(1)
    m, q = some_model(rng, longest), some_episodes(rng, 30, longest)
    whole = m.log_likelihoods(q)
    for i in range(len(q)):
        b = m.first(q.firsts[i : i + 1])
        total = np.log((m.start @ m.firsts)[q.firsts[i]])
        for k, j in enumerate(range(q.offsets[i], q.offsets[i + 1])):
            a, o, t = q.actions[j : j + 1], q.observations[j : j + 1], np.array([k])
            on, over = m.outcomes(b, a, t)
            assert (on + over).sum() == pytest.approx(1, abs=1e-12)
            if j == q.offsets[i + 1] - 1 and q.ended[i]:
                total += np.log(over[0, o[0]])
            elif longest is not None and k == longest - 1:
                break
            else:
                b, p = m.update(b, a, o, None if longest is None else t)
                assert p[0] == pytest.approx(on[0, o[0]], abs=1e-12)
                total += np.log(p[0])
        else:
            assert whole[i] == pytest.approx(total, abs=1e-10)


def test_evidence_is_weighed_as_bayes_has_it() -> None:
    """A one at one observation is a plain step; any other evidence mixes them: P(seen) sums over o."""
    rng = np.random.default_rng(2)
    m = some_model(rng, None)
    b, a, told = rows(rng, 5, S), rng.integers(A, size=5), rng.random((5, O))
    for o in range(O):
        np.testing.assert_allclose(m.weigh(b, a, np.eye(O)[[o] * 5]), m.update(b, a, np.full(5, o))[0])
    joint = np.zeros((5, S))
    for o in range(O):
        after, p = m.update(b, a, np.full(5, o))
        joint += told[:, o, None] * p[:, None] * after
    np.testing.assert_allclose(m.weigh(b, a, told), joint / joint.sum(1, keepdims=True), atol=1e-12)
    # Words that say nothing: the state has moved on, and the talk went on, which is evidence by itself.
    going = np.einsum("ns,nst->nt", b * (1 - m.ends[a]), m.transitions[a])
    np.testing.assert_allclose(m.weigh(b, a, np.full((5, O), 0.3)), going / going.sum(1, keepdims=True))


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 2.0])
def test_no_iteration_lowers_the_penalised_likelihood(smoothing: float, stays: bool) -> None:
    rng = np.random.default_rng(2)
    q = some_episodes(rng, 200, 3)
    data = prepared(q, 3, longest=3, smoothing=smoothing).within(1 if stays else None, 3)
    start = start_of(data.of(3, 1.0).prior, KINDS[0], rng)
    assert finished(data, start).stays == stays
    plain = np.array(climb(data, start, 200, 0.0, longer=False).values)
    longer = climb(data, start, 200, 0.0)
    for values in (plain, np.array(longer.values)):
        assert (np.diff(values) >= -1e-9 * np.abs(values[1:])).all()
        assert values[-1] > values[0] + 1
    # Longer strides get further with as many looks at the data, and what is returned is no worse.
    assert longer.values[-1] >= plain[-1] - 1e-6
    assert value_of(data, longer.tables) >= longer.values[-1] - 1e-9


def test_an_ordinary_hmm_is_fitted_as_by_hmmlearn() -> None:
    hmmlearn = pytest.importorskip("hmmlearn.hmm")
    rng = np.random.default_rng(3)
    n, K, S, O = 40, 12, 3, 4
    symbols = rng.integers(O, size=(n, K)) * (rng.random((n, K)) < 0.7)
    start, moves, seen = rows(rng, S), rows(rng, S, S), rows(rng, S, O)
    peer = hmmlearn.CategoricalHMM(S, init_params="", n_iter=25, tol=-np.inf, n_features=O)
    peer.startprob_, peer.transmat_, peer.emissionprob_ = start, moves, seen
    peer.fit(symbols.reshape(-1, 1), [K] * n)
    # An HMM's first symbol is seen before anything happens: our first observation. The emission of later
    # symbols is its own table here, so the two are tied by hand, as hmmlearn's counts are.
    q = Sequences(
        np.zeros(n * (K - 1), int), symbols[:, 1:].ravel(), None, np.arange(n + 1) * (K - 1),
        np.zeros(n, bool), symbols[:, 0], 1, O, O,
    )  # fmt: skip
    steps = steps_of(q, None, None)
    m = LearntModel(start, seen, moves[None], seen[None], np.zeros((1, S)), np.full((2, 1, S, O), 1 / O))
    tables = tables_of(m)
    none = Tables(*(np.zeros_like(t) for t in tables))._replace(ends=np.zeros((1, S, 2)))
    likelihoods = []
    for _ in range(25):
        counts, found = expected(steps, tables)
        likelihoods.append(found.sum())
        tables = maximised(counts, none, tables)
        both = counts.firsts + counts.emissions[0]
        both = both / both.sum(0)
        tables = tables._replace(firsts=both, emissions=both[None])
    np.testing.assert_allclose(peer.monitor_.history, likelihoods, rtol=0, atol=1e-8)
    np.testing.assert_allclose(peer.startprob_, tables.start, rtol=0, atol=1e-8)
    np.testing.assert_allclose(peer.transmat_, tables.transitions[0], rtol=0, atol=1e-8)
    np.testing.assert_allclose(peer.emissionprob_, tables.firsts.T, rtol=0, atol=1e-8)


def test_what_is_saved_loads_again(tmp_path) -> None:
    rng = np.random.default_rng(4)
    q = some_episodes(rng, 50, 3)
    data = prepared(q, 2, longest=3)
    m = finished(data, climb(data, start_of(data.prior, KINDS[0], rng), 5, 0.0).tables)
    m.save(tmp_path / "model.npz")
    again = LearntModel.load(tmp_path / "model.npz")
    assert m.arrays().keys() == again.arrays().keys()
    for name, array in m.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])
    assert log_prior(data.prior, tables_of(m)) == log_prior(data.prior, tables_of(again))
