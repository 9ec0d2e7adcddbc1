"""Every estimate against a plain twin in loops, and what holds for all of them: parts, resamples, padding."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import nnls

from turnwise.evaluation.estimates import doubly_robust, importance
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.magic import STEPS, blend, magic

Episode = list[tuple[float, float, float, float, float]]
"""of each decision: the ratio up to it, the reward, q, v, and discount^k"""


def episodes_of(logged: Logged) -> list[Episode]:
    found = []
    for b in range(len(logged.mask)):
        ratio, episode = 1.0, []
        for k in range(int(logged.mask[b].sum())):
            ratio *= math.exp(logged.logp[b, k]) / math.exp(logged.behavior_logp[b, k])
            q, v = (0.0, 0.0) if logged.q is None else (logged.q[b, k], logged.v[b, k])  # type: ignore[index]
            episode.append((ratio, logged.rewards[b, k], q, v, logged.discount**k))
        found.append(episode)
    return found


def total(episode: Episode) -> float:
    return sum(power * reward for _, reward, _, _, power in episode)


def weight(episode: Episode, k: int) -> float:
    """rho_{1:k}, k counted from 1; before the first decision 1, behind the end the last."""
    return episode[min(k, len(episode)) - 1][0] if k else 1.0


def sampling_twin(logged: Logged) -> float:
    found = episodes_of(logged)
    return sum(weight(e, len(e)) * total(e) for e in found) / len(found)


def weighted_sampling_twin(logged: Logged) -> float:
    found = episodes_of(logged)
    return sum(weight(e, len(e)) * total(e) for e in found) / sum(weight(e, len(e)) for e in found)


def per_decision_twin(logged: Logged) -> float:
    found = episodes_of(logged)
    return sum(ratio * reward * power for e in found for ratio, reward, _, _, power in e) / len(found)


def weighted_per_decision_twin(logged: Logged) -> float:
    found, value = episodes_of(logged), 0.0
    for k in range(max(len(e) for e in found)):
        paid = sum(e[k][4] * e[k][0] * e[k][1] for e in found if k < len(e))
        value += paid / sum(weight(e, k + 1) for e in found)
    return value


def direct_twin(logged: Logged) -> float:
    found = episodes_of(logged)
    return sum(e[0][3] for e in found) / len(found)


def doubly_robust_twin(logged: Logged) -> float:
    """The recursion of Jiang & Li, from the end."""
    values = []
    for b in range(len(logged.mask)):
        value = 0.0
        for k in reversed(range(int(logged.mask[b].sum()))):
            ratio = math.exp(logged.logp[b, k] - logged.behavior_logp[b, k])
            reward, q, v = logged.rewards[b, k], logged.q[b, k], logged.v[b, k]  # type: ignore[index]
            value = v + ratio * (reward + logged.discount * value - q)
        values.append(value)
    return sum(values) / len(values)


def steps_twin(logged: Logged, j: int) -> list[float]:
    """Each episode's part of Thomas & Brunskill's j-step estimate as they write it: weighted rewards, the
    model behind them, the control variate."""
    found, parts = episodes_of(logged), []
    n = len(found)

    def w(e: Episode, k: int) -> float:  # their w_k, which sums to one over episodes
        return weight(e, k) / sum(weight(x, k) for x in found)

    for e in found:
        part = 0.0
        for k in range(1, min(j, len(e)) + 1):
            _, reward, q, v, power = e[k - 1]
            part += power * w(e, k) * reward - power * (w(e, k) * q - w(e, k - 1) * v)
        if j < len(e):
            part += e[j][4] * w(e, j) * e[j][3]
        parts.append(part)
    assert n == len(parts)
    return parts


def weighted_doubly_robust_twin(logged: Logged) -> float:
    return sum(steps_twin(logged, logged.mask.shape[1]))


def magic_twin(logged: Logged) -> float:
    """Influences by leaving weight on one episode, the quadratic programme by non-negative least squares."""
    last = logged.mask.shape[1]
    steps = [j for j in STEPS if j < last] + [last]
    values = np.array([sum(steps_twin(logged, j)) for j in steps])
    n = len(logged.mask)
    influences = np.zeros((n, len(steps)))
    found = episodes_of(logged)
    for i, j in enumerate(steps):
        for b, e in enumerate(found):
            start = sum(x[0][3] for x in found) / n
            influences[b, i] = e[0][3] - start
            for k in range(1, j + 1):
                mean = sum(weight(x, k) for x in found) / n
                term = sum(weight(x, k) * error_twin(x, k, logged.discount) for x in found) / n / mean
                influences[b, i] += weight(e, k) * (error_twin(e, k, logged.discount) - term) / mean
    omega = influences.T @ influences / (n * (n - 1))
    half = 1.6448536269514722 * math.sqrt(omega[-1, -1])
    bias = np.array([math.copysign(max(abs(g - values[-1]) - half, 0), g - values[-1]) for g in values])
    m = omega + np.outer(bias, bias)
    m /= np.trace(m) / len(m)
    # x' M x + (1'x - 1)^2 over x >= 0 has its least where x is a multiple of what is sought.
    root = np.linalg.cholesky(m + 1e-9 * np.eye(len(m))).T
    x, _ = nnls(np.vstack([root, np.ones(len(m))]), np.append(np.zeros(len(m)), 1.0), maxiter=10_000)
    return float(x @ values / x.sum())


def error_twin(e: Episode, k: int, discount: float) -> float:
    if k > len(e):
        return 0.0
    _, reward, q, _, power = e[k - 1]
    return power * (reward + (discount * e[k][3] if k < len(e) else 0.0) - q)


TWINS = {
    "importance sampling": (importance.importance_sampling, sampling_twin),
    "weighted": (importance.weighted, weighted_sampling_twin),
    "per decision": (importance.per_decision, per_decision_twin),
    "weighted per decision": (importance.weighted_per_decision, weighted_per_decision_twin),
    "direct": (doubly_robust.direct, direct_twin),
    "doubly robust": (doubly_robust.doubly_robust, doubly_robust_twin),
    "weighted doubly robust": (doubly_robust.weighted, weighted_doubly_robust_twin),
    "magic": (magic, magic_twin),
}
EACH = pytest.mark.parametrize(("estimate", "twin"), TWINS.values(), ids=TWINS.keys())


@EACH
@pytest.mark.parametrize(("episodes", "decisions"), [(7, 4), (12, 11), (3, 1), (40, 3)])
def test_estimates_are_those_of_plain_loops(estimate, twin, episodes, decisions, make_logs) -> None:
    for seed in range(3):
        logged = make_logs(seed, episodes, decisions)
        assert estimate(logged).value == pytest.approx(twin(logged), abs=1e-8)


@pytest.mark.parametrize("j", [0, 1, 2, 4])
def test_steps_of_the_blend_are_those_of_the_paper(j, make_logs) -> None:
    logged = make_logs(5, 9, 4)
    found = blend(logged)
    assert found.steps == (0, 1, 2, 4)
    assert found.values[found.steps.index(j)] == pytest.approx(sum(steps_twin(logged, j)), abs=1e-10)
    assert found.weights.sum() == pytest.approx(1) and (found.weights >= 0).all()


@EACH
def test_parts_have_the_value_for_mean(estimate, twin, make_logs) -> None:
    found = estimate(make_logs(1))
    assert found.parts.mean() == pytest.approx(found.value, abs=1e-12)


@pytest.mark.parametrize("estimate", [e for e, _ in TWINS.values() if e is not magic])
def test_parts_are_the_derivative(estimate, make_logs) -> None:
    """d value / d count_b = (parts_b - value) / B: the estimate, if episode b counts a little more. (Those of
    the blend take its weights as given.)"""
    found, small = estimate(make_logs(2)), 1e-5
    more, _ = found.resampled(1 + small * np.eye(7))
    less, _ = found.resampled(1 - small * np.eye(7))
    np.testing.assert_allclose((more - less) / (2 * small) * 7 + found.value, found.parts, atol=1e-7)


def test_parts_of_the_blend_are_blended_parts(make_logs) -> None:
    """Its ends are the model's word and weighted doubly robust; with no other step these two are blended."""
    logged = make_logs(3, 30, 4)
    weights = blend(logged, (0,)).weights
    ends = [doubly_robust.direct(logged).parts, doubly_robust.weighted(logged).parts]
    np.testing.assert_allclose(magic(logged, (0,)).parts, weights @ ends, atol=1e-12)


def repeated(logged: Logged, rows: np.ndarray) -> Logged:
    arrays = {k: getattr(logged, k)[rows] for k in ("rewards", "mask", "logp", "behavior_logp", "q", "v")}
    return replace(logged, **arrays)


@EACH
def test_a_resample_is_the_estimate_on_what_was_drawn(estimate, twin, make_logs) -> None:
    logged, rng = make_logs(4), np.random.default_rng(0)
    draws = rng.integers(0, 7, (20, 7))
    counts = np.stack([np.bincount(d, minlength=7) for d in draws])
    values, errors = estimate(logged).resampled(counts)
    for d, value, error in zip(draws, values, errors, strict=True):
        again = estimate(repeated(logged, d))
        np.testing.assert_allclose([value, error], [again.value, again.standard_error()], atol=1e-9)


@EACH
def test_padding_changes_nothing(estimate, twin, make_logs) -> None:
    """Two decisions more that never were; what stands there is not read, not even if it is no number."""
    logged = make_logs(6)
    wide = {k: getattr(logged, k) for k in ("rewards", "logp", "behavior_logp", "q", "v")}
    for name, x in wide.items():
        x = np.where(logged.mask, x, np.nan)
        wide[name] = np.concatenate([x, np.full((7, 2), 5.0)], axis=1)
    padded = replace(logged, mask=np.pad(logged.mask, ((0, 0), (0, 2))), **wide)
    found, plain = estimate(padded), estimate(logged)
    assert found.value == pytest.approx(plain.value, abs=1e-10)
    np.testing.assert_allclose(found.parts, plain.parts, atol=1e-10)


@EACH
def test_order_of_episodes_changes_nothing(estimate, twin, make_logs) -> None:
    logged, order = make_logs(7), np.random.default_rng(1).permutation(7)
    found = estimate(repeated(logged, order))
    assert found.value == pytest.approx(estimate(logged).value, abs=1e-10)
    np.testing.assert_allclose(found.parts, estimate(logged).parts[order], atol=1e-9)


def test_errors_of_groups(make_logs) -> None:
    """Parts 4, 1, 0 about 5/3 in groups x, y, x: sums (7/3 - 5/3), -2/3; sqrt(2 (4/9 + 4/9)) / 3 = 4/9."""
    logged = make_logs(0)
    found = replace(importance.importance_sampling(logged), value=5 / 3, parts=np.array([4.0, 1.0, 0.0]))
    assert found.standard_error(np.array(["x", "y", "x"])) == pytest.approx(4 / 9)
    assert found.standard_error(np.arange(3)) == pytest.approx(found.standard_error())
    assert math.isnan(found.standard_error(np.zeros(3)))


def test_resamples_of_groups(make_logs) -> None:
    """A resample of whole customers has the value and the error of the conversations that were drawn, if each
    draw of a customer is a customer of its own."""
    logged, groups = make_logs(8), np.array([0, 1, 1, 2, 0, 3, 2])
    drawn = [0, 2, 2, 3]
    counts = np.array([[drawn.count(g) for g in groups]])
    values, errors = importance.weighted(logged).resampled(counts, groups)
    rows = np.concatenate([np.flatnonzero(groups == g) for g in drawn])
    names = np.concatenate([np.full((groups == g).sum(), i) for i, g in enumerate(drawn)])
    again = importance.weighted(repeated(logged, rows))
    np.testing.assert_allclose([values[0], errors[0]], [again.value, again.standard_error(names)], atol=1e-12)
    with pytest.raises(ValueError, match="counts differ within a group"):
        importance.weighted(logged).resampled(np.arange(7)[None], groups)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (np.ones(7), "shape"),
        (np.ones((1, 6)), "shape"),
        (-np.ones((1, 7)), "negative"),
        (np.zeros((1, 7)), "all 0"),
        (np.full((1, 7), np.nan), "finite"),
    ],
)
def test_counts_that_count_nothing_are_refused(counts, words, make_logs) -> None:
    with pytest.raises(ValueError, match=words):
        importance.weighted(make_logs(0)).resampled(counts)


def test_many_resamples_are_those_taken_one_by_one(make_logs) -> None:
    """More than fit into memory at once are taken in turns."""
    logged = make_logs(9, 2000, 3)
    counts = np.random.default_rng(2).multinomial(2000, np.full(2000, 1 / 2000), 600)
    found = importance.weighted(logged)
    values, errors = found.resampled(counts)
    for r in (0, 523, 524, 599):
        one = found.resampled(counts[r : r + 1])
        np.testing.assert_allclose([values[r], errors[r]], [one[0][0], one[1][0]], rtol=1e-12)
