from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.envs.alias import Alias


def probabilities(table: Alias, row: int, n: int) -> np.ndarray:
    """[n], what each entry of a row is drawn with: its own cut and what other slots give way to it."""
    first, width = int(table.offset[row]), int(table.width[row])
    found = np.zeros(n)
    for slot in range(first, first + width):
        assert first <= table.alias[slot] < first + width
        for taken, share in ((slot, table.cut[slot]), (table.alias[slot], 1 - table.cut[slot])):
            if share > 0:
                found[table.entries[taken]] += share / width
    return found


class Grid:
    """Uniform numbers that are chosen: stands where a generator does."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers

    def random(self, n: int) -> np.ndarray:
        assert n == len(self.numbers)
        return self.numbers.copy()


def test_two_outcomes_share_a_slot() -> None:
    # slots of .5: the second keeps .15 / .5 = .3 of its own, the rest of it goes to the first
    table = Alias.of(np.array([0, 2]), np.array([0.85, 0.15]))
    np.testing.assert_allclose(table.cut, [1.0, 0.3], rtol=1e-14)
    assert table.alias.tolist() == [0, 0] and table.width.tolist() == [2.0]


def test_rows_of_several_widths_hold_their_own_entries() -> None:
    # three entries take four slots; of these the fourth is empty and gives way in full
    table = Alias.of(np.array([0, 1, 4]), np.array([2.0, 2.0, 1.0, 1.0]))
    assert table.offset.tolist() == [0, 1] and table.width.tolist() == [1.0, 4.0]
    assert table.cut[4] == 0.0 and table.alias[4] == 1
    np.testing.assert_allclose(probabilities(table, 0, 4), [1, 0, 0, 0])
    np.testing.assert_allclose(probabilities(table, 1, 4), [0, 0.5, 0.25, 0.25])


def test_every_uniform_number_goes_where_its_share_says() -> None:
    # 1,024 midpoints stand for all numbers: cuts are multiples of 1/64 here, so that counts are exact
    weights = np.array([33.0, 0.0, 1.0, 27.0, 3.0]) / 64
    table = Alias.of(np.array([0, 5]), weights)
    numbers: Any = Grid((np.arange(1024) + 0.5) / 1024)
    drawn = table.draw(numbers, np.zeros(1024, np.int64))
    assert np.bincount(drawn, minlength=5).tolist() == [528, 0, 16, 432, 48]


@pytest.mark.parametrize("number", [0.0, 1 - 2.0**-53])
def test_the_ends_of_the_unit_interval_are_inside_the_row(number: float) -> None:
    table = Alias.of(np.array([0, 3, 6]), np.array([0.0, 1.0, 0.0, 0.5, 0.5, 0.0]))
    numbers: Any = Grid(np.full(2, number))
    first, second = table.draw(numbers, np.array([0, 1])).tolist()
    assert first == 1 and second in (3, 4)


WEIGHTS = st.lists(
    st.one_of(st.just(0.0), st.floats(1e-12, 1.0), st.sampled_from([0.1, 1 / 3, 1.0])),
    min_size=1,
    max_size=70,
).filter(lambda row: sum(row) > 0)


@given(st.lists(WEIGHTS, min_size=1, max_size=6))
def test_tables_hold_the_probabilities_that_they_were_made_of(rows: list[list[float]]) -> None:
    indptr = np.cumsum([0, *map(len, rows)])
    table = Alias.of(indptr, np.concatenate(rows))
    for i, row in enumerate(rows):
        expected = np.zeros(indptr[-1])
        expected[indptr[i] : indptr[i + 1]] = np.array(row) / sum(row)
        found = probabilities(table, i, len(expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        assert (found[expected == 0] == 0).all()  # what cannot happen is never drawn


def test_a_wide_row_is_exact_too(rng: np.random.Generator) -> None:
    weights = rng.random(3000) ** 8
    found = probabilities(Alias.of(np.array([0, 3000]), weights), 0, 3000)
    np.testing.assert_allclose(found, weights / weights.sum(), rtol=0, atol=1e-12)
