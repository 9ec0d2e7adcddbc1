"""Answers that tell alike have one role, whichever states they speak of."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.roles import heard_after, roles_of, tellings
from turnwise.exact.learning.sequences import Sequences


def desk(parts: int = 4, right: float = 0.85, start: np.ndarray | None = None) -> LearntModel:
    """One broken part. Test k is answered 2 k ("broken") or 2 k + 1 ("fine"), right with a chance; one act
    more is answered by 2 parts or 2 parts + 1, whatever is broken."""
    emissions = np.zeros((parts + 1, parts, 2 * parts + 2))
    for k in range(parts):
        emissions[k, :, 2 * k] = np.where(np.arange(parts) == k, right, 1 - right)
        emissions[k, :, 2 * k + 1] = 1 - emissions[k, :, 2 * k]
    emissions[parts, :, -2], emissions[parts, :, -1] = 0.3, 0.7
    A, S, O = emissions.shape
    begin = np.full(S, 1 / S) if start is None else start
    lasts = np.full((2, A, S, O), 1 / O)
    stay = np.tile(np.eye(S), (A, 1, 1))
    return LearntModel(begin, np.ones((S, 1)), stay, emissions, np.zeros((A, S)), lasts, 2)


def pairs(model: LearntModel, n: int = 20) -> Sequences:
    """Episodes of two steps: n times each action with each answer that it may have, then action 0."""
    _, A, O = model.shape
    first = [(a, o) for a in range(A) for o in range(O) if model.emissions[a, :, o].max() > 0] * n
    steps = np.array([s for pair in first for s in (pair, (0, 0))])
    offsets = 2 * np.arange(len(first) + 1)
    return Sequences(
        steps[:, 0], steps[:, 1], None, offsets, np.ones(len(first), bool), np.zeros(len(first)), A, O
    )


def test_broken_of_any_part_is_one_role_and_fine_another() -> None:
    """What says nothing is a third role. Of two parts, one that is fine says that the other is broken."""
    data = pairs(desk())
    assert heard_after(data)[:2, :4].tolist() == [[20, 20, 0, 0], [0, 0, 20, 20]]
    found = roles_of(desk(), data)
    assert [len(set(x.tolist())) for x in (found[:8:2], found[1:8:2], found[8:])] == [1, 1, 1]
    assert len(set(found.tolist())) == 3
    two = roles_of(desk(2), pairs(desk(2)))
    assert len(set(two[:4].tolist())) == 1 and two[4] == two[5] != two[0]


def test_distance_of_broken_and_fine_by_hand() -> None:
    """P(broken) = .325, P(fine) = .675. L is (.85, .15, .15, .15) / .325 and (.15, .85, .85, .85) / .675, in
    order (.15, .15, .15, .85) / .325 and (.15, .85, .85, .85) / .675, each a quarter of the states."""
    told = tellings(desk(), pairs(desk()))
    both = np.array([[0.15, 0.15, 0.15, 0.85], [0.15, 0.85, 0.85, 0.85]]) / np.array([[0.325], [0.675]])
    assert told[0] @ told[1] == pytest.approx(np.sqrt(both[0] * both[1]).mean(), abs=1e-9)
    assert told[0] @ told[1] == pytest.approx(0.9143, abs=1e-3)
    np.testing.assert_allclose((told**2).sum(1), 1)


def test_states_weigh_by_how_likely_they_are() -> None:
    """A slow twin: the quantile function of L, point by point, where states have chances .5, .3 and .2."""
    start = np.array([0.5, 0.3, 0.2])
    model = desk(3, 0.7, start)
    told = tellings(model, pairs(model))
    grid = (np.arange(200) + 0.5) / 200
    for a, o in ((0, 0), (1, 2), (2, 5)):
        likely = model.emissions[a, :, o]
        order = sorted(range(3), key=lambda s: likely[s])
        slow = []
        for u in grid:
            below = 0.0
            for s in order:
                below += start[s]
                if u < below:
                    slow.append(likely[s] / (start @ likely))
                    break
        root = np.sqrt(slow)
        np.testing.assert_allclose(told[o], root / np.linalg.norm(root))


def test_names_of_states_do_not_matter_and_rare_answers_have_no_role() -> None:
    model = desk(3, 0.8, np.array([0.5, 0.3, 0.2]))
    order = np.array([2, 0, 1])
    other = LearntModel(
        model.start[order], model.firsts[order], model.transitions, model.emissions[:, order],
        model.ends[:, order], model.lasts[:, :, order], 2,
    )  # fmt: skip
    data = pairs(model)
    np.testing.assert_allclose(tellings(other, data), tellings(model, data))
    few = pairs(model, 9)
    found = roles_of(model, few)
    assert found[0] == -1 and (found[2:] == -1).all()  # nothing was heard ten times
    assert roles_of(model, data.select([])).tolist() == [-1] * 8
