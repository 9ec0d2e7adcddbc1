"""Steps from the behaviour to a policy: by hand, at both ends, and monotone between them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from turnwise.evaluation.estimates.step_curve import StepPath, farthest

ALL = np.ones((1, 1), dtype=bool)


def one(*probabilities: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array([[probabilities]]))


def test_half_way_by_hand():
    """From (.5, .5) to (.8, .2): sqrt(.4) : sqrt(.1) = 2 : 1 tilted, and (.65, .35) mixed."""
    tilted = StepPath(one(0.5, 0.5), one(0.8, 0.2), ALL)
    assert np.exp(tilted.at(0.5))[0, 0] == pytest.approx([2 / 3, 1 / 3])
    mixed = StepPath(one(0.5, 0.5), one(0.8, 0.2), ALL, "mixed")
    assert np.exp(mixed.at(0.5))[0, 0] == pytest.approx([0.65, 0.35])
    kl = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert tilted.distance(0.5) == pytest.approx(kl)
    assert tilted.logged(0.5, np.array([[1]]))[0, 0] == pytest.approx(math.log(1 / 3))


def test_a_tilt_of_a_tilt_is_a_smaller_beta():
    """Behaviour x exp(beta q), a quarter of the way, is behaviour x exp(beta/4 q)."""
    rng = np.random.default_rng(0)
    behavior = np.log(rng.dirichlet(np.ones(4), (3, 2)))
    q = rng.normal(size=(3, 2, 4))

    def tilt(beta: float) -> np.ndarray:
        x = behavior + beta * q
        return x - np.logaddexp.reduce(x, axis=2, keepdims=True)

    path = StepPath(behavior, tilt(8), np.ones((3, 2), dtype=bool))
    assert path.at(0.25) == pytest.approx(tilt(2), abs=1e-12)


@pytest.mark.parametrize("way", ["tilted", "mixed"])
def test_ends_and_what_lies_between(way: Any):
    """Both ends are exact; probabilities sum to 1; the distance grows from 0 to the sum of all KLs."""
    rng = np.random.default_rng(1)
    behavior, policy = (np.log(rng.dirichlet(np.ones(5), (20, 3))) for _ in range(2))
    mask = np.arange(3) < rng.integers(1, 4, 20)[:, None]
    behavior[~mask] = policy[~mask] = 0.0  # padding is never read
    path = StepPath(behavior, policy, mask, way)
    assert np.array_equal(path.at(0), behavior)
    assert np.array_equal(path.at(1), policy)
    steps = np.linspace(0, 1, 9)
    assert all(np.exp(path.at(t))[mask].sum(axis=-1) == pytest.approx(1) for t in steps)
    distances = [path.distance(t) for t in steps]
    assert distances[0] == pytest.approx(0, abs=1e-15)
    assert (np.diff(distances) > 0).all()
    whole = sum(np.exp(policy[b, k]) @ (policy - behavior)[b, k] for b, k in np.argwhere(mask)) / 20
    assert distances[-1] == pytest.approx(whole)


def test_acts_that_one_of_the_two_never_takes():
    """Tilted steps give them up; mixed ones keep both, and are infinitely far if they do something new."""
    behavior, policy = one(0.5, 0.5, 0), one(0, 0.5, 0.5)
    tilted, mixed = (StepPath(behavior, policy, ALL, way) for way in ("tilted", "mixed"))
    assert np.exp(tilted.at(0.1))[0, 0] == pytest.approx([0, 1, 0])
    assert tilted.distance(0.1) == pytest.approx(math.log(2))
    assert np.exp(mixed.at(0.1))[0, 0] == pytest.approx([0.45, 0.5, 0.05])
    assert mixed.distance(0.1) == math.inf
    with pytest.raises(ValueError, match="no act in common at decision 0 of episode 0"):
        StepPath(one(1, 0), one(0, 1), ALL)
    assert np.exp(StepPath(one(1, 0), one(0, 1), ALL, "mixed").at(0.3))[0, 0] == pytest.approx([0.7, 0.3])


def test_farthest_stops_at_the_first_that_fails():
    asked = []

    def vouches(t: float) -> bool:
        asked.append(t)
        return t < 0.33 or t > 0.9

    assert farthest(vouches, (0, 0.2, 0.4, 1.0)) == 0.2
    assert asked == [0, 0.2, 0.4]
    assert farthest(vouches, (0, 0.2, 0.4), halvings=3) == pytest.approx(0.325)  # .3 yes, .35 no, .325 yes
    assert farthest(lambda t: False) is None
    assert farthest(lambda t: True) == 1.0


def test_refuses():
    with pytest.raises(ValueError, match="sum to 1"):
        StepPath(one(0.5, 0.4), one(0.5, 0.5), ALL)
    with pytest.raises(ValueError, match="expected \\(1, 1, 2\\)"):
        StepPath(one(0.5, 0.5), one(0.5, 0.25, 0.25), ALL)
    with pytest.raises(ValueError, match="from 0 to 1"):
        StepPath(one(0.5, 0.5), one(0.5, 0.5), ALL).at(1.5)
    wrong: Any = "straight"
    with pytest.raises(ValueError, match="tilted or mixed"):
        StepPath(one(0.5, 0.5), one(0.5, 0.5), ALL, wrong)
