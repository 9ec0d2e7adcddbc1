"""Histories against hand arithmetic, exact values, and as the oracle of policy gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP
from turnwise.exact.controllers import Controller, controller_value
from turnwise.exact.histories import (
    History,
    Outcome,
    Policy,
    controller_policy,
    histories,
    history_value,
)
from turnwise.exact.horizon import finite_horizon, horizon_value
from turnwise.run.errors import InputError


def tiger(discount: float = 0.95) -> POMDP:
    even = np.full((2, 2), 0.5)
    return POMDP.from_arrays(
        np.stack([np.eye(2), even, even]),
        np.stack([np.array([[0.85, 0.15], [0.15, 0.85]]), even, even]),
        np.array([[-1.0, -1.0], [-100.0, 10.0], [10.0, -100.0]]),
        discount=discount,
        start=np.array([0.5, 0.5]),
    )


def random_problem(seed: int, *, shown: bool = False, discount: float = 0.8, seen: bool = False) -> POMDP:
    """2 states, 2 actions, 2 observations, with ends; `seen`: rewards depend on what is seen."""
    rng = np.random.default_rng(seed)
    o = rng.dirichlet(np.ones(2), (2, 2))
    found = POMDP.from_arrays(
        rng.dirichlet(np.ones(2), (2, 2)),
        np.stack([o[0], o[0]]) if shown else o,
        rng.integers(-2, 3, (2, 2, 2, 2) if seen else (2, 2, 2)).astype(float),
        discount=discount,
        start=rng.dirichlet(np.ones(2)),
        ends=rng.random((2, 2, 2)) < 0.3,
    )
    return found.showing_initial() if shown else found


def test_listening_twice_to_the_tiger() -> None:
    """P(left, left) = .5 * .85^2 + .5 * .15^2 = .3725, P(tiger left) then .36125 / .3725."""
    found = {x.history.inputs[1:]: x for x in histories(tiger(), lambda h: [1, 0, 0], 2)}
    assert set(found) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert found[0, 0].probability == pytest.approx(0.3725)
    assert found[0, 0].belief[0] == pytest.approx(0.36125 / 0.3725)
    assert found[0, 1].probability == pytest.approx(0.1275)
    np.testing.assert_allclose(found[0, 1].belief, [0.5, 0.5])
    assert found[0, 0].history == History((2, 0, 0), (0, 0), (-1.0, -1.0))
    assert found[0, 0].history.discounted(0.95) == pytest.approx(-1.95)


def test_rewards_tell_where_the_tiger_was_only_if_they_are_seen() -> None:
    """Opening left pays 10 or -100. What is heard after it tells nothing: without rewards -45 is expected."""

    def opens(history: History) -> list[float]:
        return [0, 1, 0]

    apart = list(histories(tiger(), opens, 1))
    assert sorted(x.history.rewards[0] for x in apart) == [-100, -100, 10, 10]
    together = list(histories(tiger(), opens, 1, rewards_seen=False))
    assert [x.history.rewards[0] for x in together] == pytest.approx([-45, -45])


def test_a_reward_that_tells_the_state_is_in_the_belief() -> None:
    """Staying pays 1 in s1 and 0 in s0, and there is nothing to see."""
    problem = POMDP.from_arrays(
        np.eye(2)[None], np.ones((1, 2, 1)), np.array([[0.0, 1.0]]), discount=1, start=np.array([0.25, 0.75])
    )
    found = {x.history.rewards: x for x in histories(problem, lambda h: [1], 1)}
    assert found[(1.0,)].probability == 0.75
    np.testing.assert_array_equal(found[(1.0,)].belief, [0, 1])
    (one,) = histories(problem, lambda h: [1], 1, rewards_seen=False)
    assert one.history.rewards == (0.75,)
    np.testing.assert_array_equal(one.belief, [0.25, 0.75])


@pytest.mark.parametrize("rewards_seen", [True, False])
@pytest.mark.parametrize("problem", [random_problem(1), random_problem(2, shown=True)], ids=["null", "shown"])
def test_probabilities_sum_to_one_and_beliefs_average_to_the_state(
    problem: POMDP, rewards_seen: bool
) -> None:
    """The sum over histories of P(h) P(s | h) is the state distribution, those that ended apart."""
    t = problem.transitions.dense().reshape(2, 2, 2)
    goes_on = problem.continuing().dense().reshape(2, 2, 2)
    p = np.array([0.3, 0.7])
    found = list(histories(problem, lambda h: p, 3, rewards_seen=rewards_seen))
    assert sum(x.probability for x in found) == pytest.approx(1, abs=1e-12)
    state = problem.start
    for _ in range(2):
        state = state @ np.einsum("a,ast->st", p, goes_on)
    final = state @ np.einsum("a,ast->st", p, goes_on)
    going = sum(x.probability * x.belief for x in found if not x.history.ended)
    np.testing.assert_allclose(going, final, atol=1e-12)
    over = sum(x.probability * x.belief for x in found if len(x.history.actions) == 3)
    np.testing.assert_allclose(over, state @ np.einsum("a,ast->st", p, t), atol=1e-12)
    assert all(len(x.history.inputs) == len(x.history.actions) + 1 for x in found)


@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize("seen", [False, True])
def test_the_value_of_a_controller_is_that_of_its_histories(shown: bool, seen: bool) -> None:
    """What 6 steps leave out is at most .1^6 / .9 * 2 = 2.2e-6; seeing rewards or not is the same."""
    problem = random_problem(3, shown=shown, discount=0.1, seen=seen)
    inputs = 2 + (not shown)
    logits = np.random.default_rng(0).normal(size=(2, inputs, 2, 2))
    controller = Controller.from_logits(logits)
    exact = controller_value(problem, controller)
    known = history_value(problem, controller_policy(controller), 6, rewards_seen=False)
    assert known == pytest.approx(exact, abs=2.3e-6)
    short = [history_value(problem, controller_policy(controller), 4, rewards_seen=x) for x in (True, False)]
    assert short[0] == pytest.approx(short[1], abs=1e-12)


def test_the_greedy_policy_of_the_exact_vectors_has_their_value() -> None:
    """Acting on what is believed, taken from the outcome of each prefix, gets horizon_value exactly."""
    problem = tiger()
    horizon = 4
    vectors = finite_horizon(problem, horizon)
    heard = np.array([[0.85, 0.15], [0.15, 0.85]])

    def greedy(history: History) -> np.ndarray:
        belief = problem.start
        for a, o in zip(history.actions, history.inputs[1:], strict=True):
            belief = belief * heard[:, o] if a == 0 else np.array([0.5, 0.5])
            belief = belief / belief.sum()
        later = vectors[horizon - len(history.actions) - 1]
        joint = belief[:, None] * heard
        listen = -1 + 0.95 * (later @ joint).max(0).sum()
        opened = 0.95 * (later @ [0.5, 0.5]).max()
        q = [listen, belief @ [-100, 10] + opened, belief @ [10, -100] + opened]
        return np.eye(3)[int(np.argmax(q))]

    assert history_value(problem, greedy, horizon) == pytest.approx(horizon_value(problem, horizon), abs=1e-9)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def reactive(theta: np.ndarray) -> Policy:
    """Softmax of theta [inputs, A] at the last input."""
    return lambda h: softmax(theta[h.inputs[-1]])


def remembering(theta: np.ndarray) -> Policy:
    """Softmax of theta [inputs, A]: the last input's row and half the sum of all those before."""
    return lambda h: softmax(theta[h.inputs[-1]] + 0.5 * sum((theta[i] for i in h.inputs[:-1]), np.zeros(2)))


def differences(f: Callable[[np.ndarray], float], x: np.ndarray) -> np.ndarray:
    found = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[i] = 1e-5
        found[i] = (f(x + step) - f(x - step)) / 2e-5
    return found


def score(make: Callable[[np.ndarray], Policy], theta: np.ndarray, h: History, k: int) -> np.ndarray:
    """d log pi(a_k | h_k) / d theta."""
    prefix = History(h.inputs[: k + 1], h.actions[:k], h.rewards[:k])
    p = make(theta)(prefix)
    by_logits = np.eye(2)[h.actions[k]] - p
    found = np.zeros_like(theta)
    found[prefix.inputs[-1]] += by_logits
    if make is remembering:
        for i in prefix.inputs[:-1]:
            found[i] += 0.5 * by_logits
    return found


def reinforce(
    make: Callable[[np.ndarray], Policy],
    theta: np.ndarray,
    x: Outcome,
    discount: float,
    baseline: Callable[[History, int], float],
) -> np.ndarray:
    """sum_k gamma^k (G_k - baseline) d log pi_k, G_k the discounted sum of rewards from k on."""
    h = x.history
    total = np.zeros_like(theta)
    for k in range(len(h.actions)):
        later = sum(discount ** (j - k) * h.rewards[j] for j in range(k, len(h.rewards)))
        total += discount**k * (later - baseline(h, k)) * score(make, theta, h, k)
    return total


@pytest.mark.parametrize("make", [reactive, remembering])
@pytest.mark.parametrize("problem", [random_problem(4), random_problem(5, shown=True, seen=True)])
@pytest.mark.parametrize(
    "baseline",
    [
        lambda h, k: 0.0,
        lambda h, k: 3.0 * h.inputs[k] - 1,
        lambda h, k: sum(h.actions[:k]) + sum(h.rewards[:k]),
    ],
    ids=["none", "of the observation", "of the history"],
)
def test_reinforce_is_right_on_average(
    make: Callable[[np.ndarray], Policy], problem: POMDP, baseline: Callable[[History, int], float]
) -> None:
    """Its mean over all histories equals the gradient of the exact value of three steps, whatever baseline
    that does not look ahead; one that does look ahead, the sum of all actions, is far off."""
    theta = np.random.default_rng(0).normal(size=(3, 2))
    exact = differences(lambda x: history_value(problem, make(x), 3), theta)
    found = list(histories(problem, make(theta), 3))

    def mean(b: Callable[[History, int], float]) -> np.ndarray:
        return sum(
            (x.probability * reinforce(make, theta, x, problem.discount, b) for x in found), np.zeros((3, 2))
        )

    np.testing.assert_allclose(mean(baseline), exact, atol=1e-9)
    assert np.abs(mean(lambda h, k: float(sum(h.actions))) - exact).max() > 0.05


def test_a_filtered_memory_is_that_of_the_controller() -> None:
    """Memory 1 after reading 1 once, for ever; in it action 1 has probability .9, before that .2."""
    p = np.zeros((2, 3, 2, 2))
    for i in range(3):
        p[0, i, :, int(i == 1)] = [0.8, 0.2]
        p[1, i, :, 1] = [0.1, 0.9]
    policy = controller_policy(Controller(p))
    np.testing.assert_allclose(policy(History((2,))), [0.8, 0.2])
    np.testing.assert_allclose(policy(History((2, 1), (0,), (0.0,))), [0.8, 0.2])
    np.testing.assert_allclose(policy(History((2, 1, 0), (0, 0), (0.0, 0.0))), [0.1, 0.9])


def test_too_many_histories_and_what_is_no_policy_are_refused() -> None:
    with pytest.raises(InputError, match="more than 1,000 histories of up to 30 actions"):
        history_value(tiger(), lambda h: [1, 0, 0], 30, most=1000)
    with pytest.raises(ValueError, match="3 probabilities"):
        history_value(tiger(), lambda h: [1, 0], 1)
    with pytest.raises(InputError, match="horizon is -1"):
        history_value(tiger(), lambda h: [1, 0, 0], -1)
