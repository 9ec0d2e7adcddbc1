from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems import classics
from turnwise.envs.rows import Rows
from turnwise.exact.alpha_policy import AlphaPolicy, load_policy, save_policy
from turnwise.exact.files.appl import write_appl
from turnwise.exact.sarsop.solve import Solution, solve
from turnwise.exact.sarsop.trials import dominating
from turnwise.run.errors import InputError


def tiger(discount: float = 0.95) -> POMDP:
    return classics.tiger(discount=discount)


def chance(rng: np.random.Generator, states: int = 5, actions: int = 2, seen: int = 3) -> POMDP:
    t = rng.dirichlet(np.full(states, 0.5), (actions, states))
    o = rng.dirichlet(np.full(seen, 0.5), (actions, states))
    ends = rng.random((actions, states, states)) < 0.1
    start = rng.dirichlet(np.ones(states))
    return POMDP.from_arrays(t, o, rng.normal(size=(actions, states)), discount=0.8, start=start, ends=ends)


@functools.cache
def solved(seed: int) -> tuple[POMDP, Solution]:
    """A problem drawn by chance, solved to a gap of 0.01."""
    p = chance(np.random.default_rng(seed))
    return p, solve(p, gap=1e-2, deadline=10)


def by_recursion(p: POMDP, b: np.ndarray, steps: int) -> float:
    """Optimal value of `steps` steps by looking at every action and observation."""
    S, A, O = p.shape
    t, o = p.continuing().dense().reshape(A, S, S), p.emissions.dense().reshape(A, S, O)
    now = p.expected_rewards()

    def value(b: np.ndarray, left: int) -> float:
        q = now @ b
        if left > 1:
            for a in range(A):
                joint = (b @ t[a])[:, None] * o[a]
                q[a] += p.discount * sum(
                    mass * value(joint[:, z] / mass, left - 1)
                    for z, mass in enumerate(joint.sum(0))
                    if mass > 0
                )
        return q.max()

    return value(b, steps)


@pytest.mark.parametrize(("discount", "value"), [(0.95, 19.3714), (0.75, 1.93344)])
def test_tiger(discount: float, value: float) -> None:
    s = solve(tiger(discount), gap=1e-3)
    assert s.stopped == "gap" and s.gap <= 1e-3
    assert s.lower - 1e-4 <= value <= s.upper + 1e-4


@pytest.mark.parametrize("seed", range(4))
def test_bounds_hold_what_recursion_over_beliefs_finds(seed: int) -> None:
    p, s = solved(seed)
    steps = 6
    near = by_recursion(p, p.start, steps)
    rest = 0.8**steps * np.abs(p.expected_rewards()).max() / 0.2
    assert s.lower - rest <= near <= s.upper + rest
    assert s.stopped == "gap"


@pytest.mark.parametrize("seed", range(4))
def test_the_controller_is_worth_the_lower_bound(seed: int) -> None:
    """V(node, s) of the returned plans, by iterating, is at least what their vectors say."""
    p, found = solved(seed)
    pi = found.policy
    S, A, O = p.shape
    t, o = p.continuing().dense().reshape(A, S, S), p.emissions.dense().reshape(A, S, O)
    step = t[pi.actions]  # [n, S, S]
    now = p.expected_rewards()[pi.actions]
    exact = pi.alphas.copy()
    for _ in range(150):  # 0.8^150 is 3e-15
        later = sum(step @ (o[pi.actions, :, z] * exact[pi.successors[:, z]])[:, :, None] for z in range(O))
        exact = now + p.discount * later[:, :, 0]
    assert (exact >= pi.alphas - 1e-9).all()
    assert (exact @ p.start).max() >= found.lower - 1e-9


@pytest.mark.parametrize("seed", range(30))
def test_no_plan_is_worth_more_than_the_upper_bound(seed: int) -> None:
    """Observations that tell the state after some actions: corners of the sawtooth fall below its points."""
    rng = np.random.default_rng(seed)
    S, A = 6, 3
    t = rng.dirichlet(np.full(S, 0.3), (A, S))
    o = np.array([np.eye(S), np.kron(np.eye(3), np.ones((2, 1))) @ np.eye(3, S), np.full((S, S), 1 / S)])
    p = POMDP.from_arrays(t, o, 10 * rng.normal(size=(A, S)), discount=0.95, start=np.full(S, 1 / S))
    s = solve(p, gap=-np.inf, deadline=0.1)
    assert s.lower <= s.upper + 1e-9


def test_bounds_only_improve() -> None:
    s = solve(tiger(), gap=1e-3)
    _, lower, upper = np.array(s.trace).T
    assert (np.diff(lower) >= 0).all() and (np.diff(upper) <= 0).all()


def test_an_initial_observation_that_tells_all_is_worth_seeing_the_state() -> None:
    # o_0 tells the side; then the tiger is put anew after each opening: V(known) = 10 + .95 V*
    p = replace(tiger(), initial=Rows.from_dense(np.eye(2)))
    s = solve(p, gap=1e-3)
    assert s.lower - 1e-2 <= 10 + 0.95 * 19.3714 <= s.upper + 1e-2


def test_an_initial_observation_that_tells_nothing_changes_nothing() -> None:
    p = replace(tiger(0.75), initial=Rows.from_dense(np.full((2, 2), 0.5)))
    s = solve(p, gap=1e-3)
    assert s.lower - 1e-4 <= 1.93344 <= s.upper + 1e-4


def test_discount_one_where_everything_ends() -> None:
    """Guess a coin after looks at .1 each, right in four of five: look until two more say the same.

    Right in 16 of 17 then, after (2 * 15/17) / (.8 - .2) = 50/17 looks (Wald): 15/17 - .1 * 50/17 = 10/17.
    """
    look = np.eye(2)
    see = np.array([[0.8, 0.2], [0.2, 0.8]])
    ends = np.array([np.zeros((2, 2), bool), np.ones((2, 2), bool), np.ones((2, 2), bool)])
    reward = np.array([[-0.1, -0.1], [1.0, -1.0], [-1.0, 1.0]])
    p = POMDP.from_arrays(
        np.array([look] * 3), np.array([see] * 3), reward, discount=1.0, start=np.full(2, 0.5), ends=ends
    )
    s = solve(p, gap=1e-6)
    assert s.stopped == "gap" and s.lower - 1e-9 <= 10 / 17 <= s.upper + 1e-9


def test_the_deadline_ends_a_search_with_what_it_has() -> None:
    # Tiger's bounds may meet to the last digit first; these are apart by .8 after 3 s.
    s = solve(classics.CLASSICS["rock-sample-5-5"](), gap=0.0, deadline=0.3)
    assert s.stopped == "deadline" and s.lower <= 20.06 and s.upper >= 19.23 and s.lower < s.upper


def test_a_search_that_could_never_end_is_refused() -> None:
    with pytest.raises(InputError, match=r"^gap is 0\.0; expected a number above 0 if there is no deadline$"):
        solve(tiger(), gap=0.0, deadline=None)
    with pytest.raises(InputError, match=r"^deadline is 0; expected a number of seconds above 0$"):
        solve(tiger(), deadline=0)


def test_ctrl_c_ends_a_search_with_what_it_has() -> None:
    def interrupt(*_: float) -> None:
        raise KeyboardInterrupt

    s = solve(tiger(), gap=0.0, deadline=30, progress=interrupt)
    assert s.stopped == "interrupted" and s.lower <= 19.3715 <= s.upper + 1e-3 and s.seconds < 30


def test_plain_python_finds_the_same() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_sarsop import *\n"
        "s = solve(tiger(.75), gap=1e-2)\n"
        "print(s.lower, s.upper)"
    )
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code, here], capture_output=True, text=True, env=env, check=True, timeout=120
    )
    s = solve(tiger(0.75), gap=1e-2)
    np.testing.assert_allclose([float(x) for x in done.stdout.split()], [s.lower, s.upper], atol=1e-9)


def test_dominated_vectors_give_way() -> None:
    rows = np.array([[1.0, 1.0], [0.0, 1.0], [2.0, 0.0], [1.0, 0.5], [1.0, 1.0]])
    by = dominating(rows)
    assert by[0] in (0, 4) and by[4] == by[0] and by[1] == by[0] and by[3] == by[0] and by[2] == 2


def some_policy() -> AlphaPolicy:
    return AlphaPolicy(
        np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([1, 0]), np.array([[0, 1], [1, 1]], np.int32)
    )


def test_the_best_plan_at_a_belief() -> None:
    policy = some_policy()
    assert policy.best(np.array([[0.9, 0.1], [0.5, 0.5]])).tolist() == [0, 1]
    assert policy.value(np.array([0.5, 0.5])) == 1.0


def test_a_policy_comes_back_from_its_file(tmp_path: Path) -> None:
    save_policy(some_policy(), tmp_path / "policy.npz")
    back = load_policy(tmp_path / "policy.npz")
    for field in ("alphas", "actions", "successors"):
        np.testing.assert_array_equal(getattr(back, field), getattr(some_policy(), field))


def test_a_file_that_is_no_policy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "policy.npz").write_text("no")
    with pytest.raises(InputError, match="expected a policy"):
        load_policy(tmp_path / "policy.npz")


def test_the_format_of_appl(tmp_path: Path) -> None:
    write_appl(some_policy(), tmp_path / "out.policy", "a & b")
    text = (tmp_path / "out.policy").read_text()
    assert 'vectorLength="2" numObsValue="1" numVectors="2"' in text
    assert '<Vector action="1" obsValue="0">1 0 </Vector>' in text and "a &amp; b" in text
