"""The blend of model and logs: its weights in closed form, against a twin, and at its limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from turnwise.evaluation.estimates.doubly_robust import weighted
from turnwise.evaluation.estimates.magic import blend, magic, on_simplex


def test_least_squares_on_the_simplex_in_closed_form() -> None:
    """Independent errors: weights go as inverse variances. A second that holds the first and
    more error adds nothing to it."""
    found = on_simplex(
        np.array([[[1.0, 0.0], [0.0, 3.0]], [[1.0, 1.0], [1.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    )
    assert found == pytest.approx(np.array([[0.75, 0.25], [1.0, 0.0], [0.5, 0.5]]), abs=1e-8)


@pytest.mark.parametrize("steps", [(-1,), range(11)])
def test_steps_that_are_none(steps, make_logs) -> None:
    with pytest.raises(ValueError, match="at most 10 numbers of decisions, 0 or more"):
        magic(make_logs(0), steps)


def test_steps_beyond_the_logs_are_all_decisions(make_logs) -> None:
    logged = make_logs(0, 9, 4)
    assert blend(logged).steps == blend(logged, (0, 1, 2, 99)).steps == (0, 1, 2, 4)
    assert magic(logged, (0, 1, 2, 99)).value == magic(logged).value


@pytest.mark.parametrize(("far", "share"), [(1.0, 1.0), (-1.0, 1.0), (3.0, 0.353), (-10.0, 0.014)])
def test_a_model_within_the_noise_is_believed_and_one_outside_is_not(far, share, make_logs) -> None:
    """One decision, and v the same for all, so that the model's word does not vary: it stands `far` standard
    errors s from weighted doubly robust. Inside 1.645 s it has no bias, and takes all; outside, its share is
    s^2 / (s^2 + b^2) with b = (far - 1.645) s: 1 / (1 + 1.355^2) = .353, 1 / (1 + 8.355^2) = .014."""
    logged, same = make_logs(3, 200, 1), np.ones((200, 1))
    plain = weighted(replace(logged, q=0 * same, v=0 * same))
    # A number added to both q and v moves the model's word alone.
    word = plain.value + far * plain.standard_error()
    found = blend(replace(logged, q=word * same, v=word * same))
    assert found.values == pytest.approx([word, plain.value])
    assert found.weights == pytest.approx([share, 1 - share], abs=1e-3)
