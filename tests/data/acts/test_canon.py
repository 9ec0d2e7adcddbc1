"""What goes with what, on conversations apart: a planted direction is found, and chance is not."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.data.acts.canon import signal


def test_a_planted_direction_is_found_with_its_correlation() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    cause = rng.standard_normal(n)
    z, y = rng.standard_normal((n, 12)), rng.standard_normal((n, 9))
    z[:, 3] += cause  # correlation of z_3 and y_5: 1 / (sqrt 2 sqrt 2) = .5
    y[:, 5] += cause
    half = np.arange(n) % 2 == 0
    z, y = z - z.mean(0), (y - y.mean(0)) / y.std(0)
    found = signal(z, y, half, {"all": np.arange(9)}, least=4.5)
    assert found is not None and found.clear == 1
    direction = np.abs(found.directions[:, 0])
    assert direction.argmax() == 3 and direction[3] > 5 * np.delete(direction, 3).max()
    assert found.correlations[0] == pytest.approx(0.5, abs=0.05)


def test_chance_is_not_beyond_chance() -> None:
    rng = np.random.default_rng(1)
    half = np.arange(1000) % 2 == 0
    for _ in range(5):
        z, y = rng.standard_normal((1000, 40)), rng.standard_normal((1000, 60))
        found = signal(z, y, half, {"all": np.arange(60), "few": np.arange(7)}, least=4.5)
        assert found is not None and found.clear == 0


def test_nothing_around_is_no_signal() -> None:
    half = np.arange(10) % 2 == 0
    assert signal(np.ones((10, 2)), np.ones((10, 3)), half, {"all": np.arange(0)}, 4.5) is None
