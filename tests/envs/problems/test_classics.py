from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import (
    CLASSICS,
    airlock,
    cheese_maze,
    corridor,
    heaven_hell,
    light_dark,
    t_maze,
    tiger,
)
from turnwise.envs.problems.rock_sample import rock_sample
from turnwise.exact.files.pomdp import read_pomdp


@pytest.fixture(scope="module")
def folder() -> Path:
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "data"
    found = Path(os.environ.get("TURNWISE_DATA", beside)) / "pomdp"
    if not found.is_dir():
        pytest.skip(f"the collected .pomdp files are not at {found}; set TURNWISE_DATA to the data folder")
    return found


@pytest.mark.parametrize(
    ("file", "build", "atol"),
    [
        ("tiger.95.POMDP", tiger, 1e-15),
        ("tiger.aaai.POMDP", lambda: tiger(discount=0.75), 1e-15),
        ("cheese.95.POMDP", cheese_maze, 1e-15),
        ("episodic/heavenhell.POMDP", heaven_hell, 0),
        ("episodic/tmaze2.POMDP", lambda: t_maze(2), 0),
        ("episodic/tmaze5.POMDP", lambda: t_maze(5), 0),
        ("RockSample_4_4.POMDP.gz", lambda: rock_sample(4, 4), 5e-7),  # six digits in the files
        ("RockSample_5_5.POMDP.gz", lambda: rock_sample(5, 5), 5e-7),
    ],
)
def test_code_says_what_the_file_says(
    folder: Path, file: str, build: Callable[[], POMDP], atol: float
) -> None:
    built, filed = build(), read_pomdp(folder / file)
    assert built.shape == filed.shape and built.discount == filed.discount
    for one, other in ((built.transitions, filed.transitions), (built.emissions, filed.emissions)):
        np.testing.assert_array_equal(one.indptr, other.indptr)
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_allclose(one.data, other.data, rtol=0, atol=atol)
    np.testing.assert_allclose(built.start, filed.start, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(built.rewards, filed.rewards)
    np.testing.assert_array_equal(built.ends, filed.ends)
    if "Rock" in file or "tiger" in file:
        assert (built.states, built.actions, built.observations) == (
            filed.states,
            filed.actions,
            filed.observations,
        )


def after(p: POMDP, actions: list[str], state: int) -> tuple[list[float], int, bool]:
    """(rewards, last state, ended) of actions in a problem without chance."""
    S, paid = len(p.states), []
    for name in actions:
        row = p.actions.index(name) * S + state
        to, chance = p.transitions.row(row)
        assert chance.tolist() == [1.0]
        entry = int(p.transitions.indptr[row])
        paid.append(float(p.rewards[entry]))
        state = int(to[0])
        if p.ends[entry]:
            return paid, state, True
    return paid, state, False


def test_rock_sample_7_8_by_hand() -> None:
    """From (0, 3) north to (0, 4), east twice to rock 4 at (2, 4): good in the first world, bad when sampled.

    A rock at distance 0 is seen for certain; rock 4 from (0, 3) at sqrt(5): (1 + 2^(-sqrt(5)/20)) / 2.
    """
    p = rock_sample(7, 8)
    assert p.shape == (7 * 7 * 256 + 1, 13, 2) and len(p.transitions.data) == 12545 * 13
    assert p.start.sum() == 1 and (p.start > 0).sum() == 256
    at = p.states.index
    assert after(p, ["amn", "ame", "ame", "as", "as"], at("s0311111111")) == (
        [0, 0, 0, 10, -10],
        at("s2411110111"),
        False,
    )
    assert after(p, ["ame"], at("s6000000000")) == ([10], at("st"), True)
    assert after(p, ["amw"], at("s0000000000")) == ([-100], at("st"), True)
    assert after(p, ["as"], at("s0000000000")) == ([-100], at("st"), True)
    check = p.actions.index("ac4") * 12545
    says = lambda state: p.emissions.row(check + at(state))  # noqa: E731
    assert says("s2400001000")[0].tolist() == [0] and says("s2400000000")[0].tolist() == [1]
    right = (1 + 2 ** (-np.sqrt(5) / 20)) / 2
    np.testing.assert_allclose(says("s0300001000")[1], [right, 1 - right])
    np.testing.assert_allclose(says("s0311110111")[1], [1 - right, right])


def test_other_rocks_are_given_or_drawn_from_a_seed() -> None:
    p = rock_sample(3, 1, rocks=[(2, 1)], half_distance=1.0)
    assert p.shape == (19, 6, 2)
    assert after(p, ["ame", "ame", "as"], p.states.index("s011")) == (
        [0, 0, 10],
        p.states.index("s210"),
        False,
    )
    one, again, other = (rock_sample(6, 3, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.rewards, again.rewards)
    assert not np.array_equal(one.rewards, other.rewards)
    with pytest.raises(ValueError, match="3 different places"):
        rock_sample(4, 3, rocks=[(0, 0), (0, 0), (4, 1)])
    with pytest.raises(ValueError, match=r"rock_sample\(9, 20\)"):
        rock_sample(9, 20)


def test_a_tiger_behind_four_doors() -> None:
    """Heard .85 at its door, .05 at each other; opening pays 10 thrice and -100 once."""
    p = tiger(doors=4)
    assert p.shape == (4, 5, 4)
    np.testing.assert_allclose(p.emissions.dense()[0], [0.85, 0.05, 0.05, 0.05])
    assert p.expected_rewards()[1:].tolist() == (10 - 110 * np.eye(4)).tolist()


@pytest.mark.parametrize("length", [0, 3])
def test_a_t_maze_is_worth_its_closed_form(length: int) -> None:
    """Wait, length + 1 steps east, turn as told: paid 4 at the (length + 3)rd step."""
    p = t_maze(length)
    for start, turn in ((0, "N"), (1, "S")):
        paid, _, ended = after(p, ["W", *["E"] * (length + 1), turn], start)
        assert ended and sum(r * 0.9**i for i, r in enumerate(paid)) == 4 * 0.9 ** (length + 2)
    assert after(p, [*["E"] * (length + 1), "S"], 0)[0][-1] == -0.1


def test_the_priest_is_worth_the_way() -> None:
    """S E E, back W W N, N N, to heaven W W, paid by any step: the eleventh reward, 0.99^10."""
    p = heaven_hell()
    paid, state, ended = after(p, [*"SEEWWNNNWWN"], 0)
    assert paid == [0.0] * 10 + [1.0] and state == 20 and ended
    assert p.discount**10 == pytest.approx(0.904382, abs=1e-6)
    assert after(p, [*"SEEWWNNNWWN"], 10)[0][-1] == -1.0


def solved(p: POMDP, policy: np.ndarray) -> float:
    """Value at the start of a policy [S, A] that may look at the state: (I - discount * P)^-1 r."""
    S, A, _ = p.shape
    P = np.einsum("sa,ast->st", policy, p.continuing().dense().reshape(A, S, S))
    r = (policy * p.expected_rewards().T).sum(1)
    return float(p.start @ np.linalg.solve(np.eye(S) - p.discount * P, r))


def test_the_corridor_has_its_best_stochastic_policy() -> None:
    """Sutton & Barto: p(right) = 2 - sqrt(2), worth -(6 + 4 sqrt(2)); nearby it is worth less."""
    p = corridor()
    at = [solved(p, np.tile([1 - q, q], (4, 1))) for q in np.array([-0.01, 0, 0.01]) + 2 - np.sqrt(2)]
    assert at[1] == pytest.approx(-(6 + 4 * np.sqrt(2)), abs=1e-9)
    assert at[1] > max(at[0], at[2])
    assert after(p, ["right", "left", "right"], 0) == ([-1, -1, -1], 3, True)


def test_a_one_step_model_of_the_airlock_believes_in_trying_again() -> None:
    """p(out | left door, try) is .5 over episodes, but 0 after a failure.

    So trying for ever is worth .5 and not .5 / (1 - .5 * .95) = .952; trying once and walking over, always
    right, is worth .5 + .5 * .95^2 = .95125.
    """
    p = airlock()
    left = p.states.index("left-opens,left-door"), p.states.index("right-opens,left-door")
    opens = p.transitions.dense()[list(left), p.states.index("out")]
    assert p.start[list(left)] @ opens == 0.5 and opens.tolist() == [1.0, 0.0]
    stubborn = np.tile([1.0, 0, 0], (5, 1))
    assert solved(p, stubborn) == pytest.approx(0.5)
    assert 0.5 / (1 - 0.5 * p.discount) > 0.95
    best = 0.0
    for start in left:
        paid, _, ended = after(p, ["try", "walk-right", "try"], start)
        assert ended
        best += 0.5 * sum(r * p.discount**i for i, r in enumerate(paid))
    assert best == pytest.approx(0.95125)
    far = airlock(gap=3)
    assert after(far, ["try", *["walk-right"] * 3, "try"], far.states.index("right-opens,left-door"))[2]


def test_light_dark_sees_in_the_light_alone() -> None:
    """At 5 the deviation is .01: 5 is seen. At 0 it is 5/sqrt(2) + .01 = 3.5455: |noise| < .5 has .1121."""
    p = light_dark()
    cell = p.states.index
    assert p.emissions.row(cell("5"))[1].max() == pytest.approx(1.0)
    seen = dict(zip(*(x.tolist() for x in p.emissions.row(cell("0"))), strict=True))
    assert seen[cell("0")] == pytest.approx(0.1121, abs=1e-4)
    assert after(p, ["left", "left", "stop"], cell("2")) == ([0, 0, 10], cell("0"), True)
    assert after(p, ["right", "stop"], cell("10")) == ([0, -10], cell("10"), True)
    assert p.start[cell("2")] == p.start.max()
    assert p.showing_initial().initial is not None


@pytest.mark.parametrize("name", sorted(CLASSICS))
def test_a_name_builds_a_problem_that_ends_as_its_page_says(name: str) -> None:
    p = CLASSICS[name]()
    assert p.episodic == (name not in ("tiger", "cheese"))
    assert p.initial is None
    if (
        p.episodic
    ):  # an end is not left again: what is reached by it only returns to itself, or is never acted in
        S = len(p.states)
        row = p.transitions.of_entries()
        idle = p.transitions.indices == row % S
        over = np.isin(row % S, p.transitions.indices[p.ends & ~idle])
        assert p.ends[over].all() and (p.rewards[over] == 0).all()
