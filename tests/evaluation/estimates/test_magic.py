"""The blend of model and logs: its weights in closed form, against a twin, and at its limits."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.evaluation.estimates.magic import on_simplex


def test_least_squares_on_the_simplex_in_closed_form() -> None:
    """Independent errors: weights go as inverse variances. A second that holds the first and
    more error adds nothing to it."""
    found = on_simplex(
        np.array([[[1.0, 0.0], [0.0, 3.0]], [[1.0, 1.0], [1.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    )
    assert found == pytest.approx(np.array([[0.75, 0.25], [1.0, 0.0], [0.5, 0.5]]), abs=1e-8)
