"""Fitted Q evaluation in tables: by hand, against enumerated worlds with endless logs, and a slow twin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from told_worlds import World, dialogue, pomdp

from turnwise.evaluation.estimates.doubly_robust import direct
from turnwise.evaluation.estimates.fitted_q import Played, fit_tables, turn_keys
from turnwise.evaluation.estimates.logged import Logged, bootstrapped


def played(**changes: Any) -> Played:
    """One conversation asks (0) and then offers (1), one offers at once; the target does both with 1/2."""
    given: dict[str, Any] = {
        "acts": np.array([[0, 1], [1, 0]]),
        "rewards": np.array([[0.0, 1.0], [-1.0, np.nan]]),
        "mask": np.array([[True, True], [True, False]]),
        "target": np.full((2, 3, 2), 0.5),
        "terminated": np.array([True, True]),
    }
    return Played(**{**given, **changes})


ONE = [np.zeros((2, 3), int)]


def test_by_hand() -> None:
    """The numbers of the docstring."""
    q = fit_tables(ONE, played(), 1.0, prior=0.0)
    found = q.values(ONE, played())
    np.testing.assert_allclose(q.q(ONE)[0], [[1, -1], [1, 1], [0, 0]])
    np.testing.assert_allclose(found.q, [[1, 1], [-1, 0]])
    np.testing.assert_allclose(found.v, [[0, 1], [0, 0]])
    np.testing.assert_allclose(found.final, 0)


def test_shrinkage_by_hand() -> None:
    """Discount .5, prior 1. At decision 2 all is 1; y is 0 + .5 and -1, mean -.25. Without a key Q is
    (.5 - .25) / 2 = .125 and (-1 - .25) / 2 = -.625; with it (.5 + .125) / 2 and (-1 - .625) / 2."""
    q = fit_tables(ONE, played(), 0.5, prior=1.0)
    np.testing.assert_allclose(q.base[0], [0.125, -0.625])
    np.testing.assert_allclose(q.q(ONE)[1, 0], [0.3125, -0.8125])


def test_cuts_bootstrap_and_ends_do_not() -> None:
    """The second conversation is cut after its offer. What it led to is worth V_2 = 1, if it was logged;
    else the logs say nothing of that offer, and its last state is what makes the offer worth its Q."""
    cut = played(terminated=np.array([True, False]))
    q = fit_tables(ONE, cut, 0.9, prior=0.0)
    found = q.values(ONE, cut)
    np.testing.assert_allclose(q.q(ONE)[0, 0], [0.9, -0.1])
    np.testing.assert_allclose(found.final, [0, 1])
    unknown = played(terminated=np.array([True, False]), next_known=np.array([True, False]))
    q = fit_tables(ONE, unknown, 0.9, prior=0.0)
    found = q.values(ONE, unknown)
    np.testing.assert_allclose(q.q(ONE)[0, 0], [0.9, 0.9])  # offers at decision 1: the mean of what is known
    np.testing.assert_allclose(found.final, [0, (0.9 + 1) / 0.9])


def whole(world: World) -> tuple[list[np.ndarray], Played, np.ndarray]:
    """All ways that an episode can go: keys of whole histories, the episodes, and what was seen."""
    told = world.told
    B, A = len(told), max(len(t.actions) for t in told)
    K = len(world.target((0,)))
    seen, acts = np.zeros((B, A + 1), int), np.zeros((B, A), int)
    rewards, mask, target = np.zeros((B, A)), np.zeros((B, A), bool), np.full((B, A + 1, K), 1 / K)
    for b, t in enumerate(told):
        n = len(t.actions)
        acts[b, :n], rewards[b, :n], mask[b, :n] = t.actions, t.rewards, True
        seen[b, :n] = t.heard[:n]
        for k in range(n):
            target[b, k] = world.target(t.past(k))
    ended = np.array([t.ended for t in told])
    return turn_keys(seen, acts, A + 1), Played(acts, rewards, mask, target, ended), seen


@pytest.mark.parametrize("world", [pomdp(), dialogue()], ids=["pomdp", "dialogue"])
def test_endless_logs_and_whole_histories_give_the_truth(world: World) -> None:
    """Every q and v of the target, and its value. Episodes are cut where no log goes on: nothing follows."""
    keys, all_, _ = whole(world)
    found = fit_tables(keys, all_, world.discount, prior=0.0, weights=world.chances).values(keys, all_)
    logged = world.logs(world.true_values())
    np.testing.assert_allclose(found.q, logged.q, atol=1e-9)
    np.testing.assert_allclose(found.v, logged.v, atol=1e-9)
    value = world.chances @ direct(replace(logged, q=found.q, v=found.v)).parts
    assert value == pytest.approx(world.value, abs=1e-9)


def test_cut_logs_with_tables_of_longer_ones() -> None:
    """Values of logs cut after two decisions, by tables of logs of four: `final` is what was cut off."""
    keys, all_, _ = whole(long := pomdp(4))
    q = fit_tables(keys, all_, long.discount, prior=0.0, weights=long.chances)
    mask = all_.mask & (np.arange(4) < 2)
    cut = replace(all_, mask=mask, terminated=all_.terminated & (all_.lengths <= 2))
    found = q.values(keys, cut)
    zero = np.zeros(mask.shape)
    logged = Logged(cut.rewards, mask, long.discount, zero, zero)
    paid = bootstrapped(logged, found.final).returns
    behaviour_then_target = long.chances @ paid
    # By hand: two decisions of the behaviour, then the target's value of the state there.
    two = long.true_values()
    expected = 0.0
    for t in long.told:
        chance = t.world * t.chance(long.behavior)
        total = sum(long.discount**k * r for k, r in enumerate(t.rewards[:2]))
        if len(t.actions) > 2:
            pi = long.target(t.past(2))
            total += long.discount**2 * sum(p * two(t.past(2), a) for a, p in enumerate(pi))
        expected += chance * total
    assert behaviour_then_target == pytest.approx(expected, abs=1e-9)


def test_observations_alone_are_not_enough() -> None:
    """Endless logs with the last turn as key give something else: what is seen is no state."""
    world = pomdp()
    keys, all_, _ = whole(world)
    found = fit_tables(keys[-1:], all_, world.discount, prior=0.0, weights=world.chances)
    value = world.chances @ found.values(keys[-1:], all_).v[:, 0]
    assert abs(value - world.value) > 1e-3


def random_logs(seed: int, B: int = 40, A: int = 4, K: int = 3) -> tuple[np.ndarray, Played]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, A + 1, B)
    ended = rng.random(B) < 0.5
    made = Played(
        acts=rng.integers(0, K, (B, A)),
        rewards=rng.normal(size=(B, A)),
        mask=np.arange(A) < lengths[:, None],
        target=rng.dirichlet(np.ones(K), (B, A + 1)),
        terminated=ended,
        next_known=ended | (rng.random(B) < 0.5),
    )
    return rng.integers(0, 2, (B, A + 1)), made


def twin(seen: np.ndarray, p: Played, turns: int, discount: float, prior: float, weights: np.ndarray) -> Any:
    """One history and one act at a time: Q of (conversation, decision, act), from the conversations' keys."""

    def key(seen: np.ndarray, acts: np.ndarray, b: int, k: int, turns: int) -> tuple[int, ...]:
        past: list[int] = []
        for i in range(max(0, k - turns + 1), k + 1):
            past += [-1 if i == 0 else int(acts[b, i - 1]), int(seen[b, i])]
        return tuple(past)

    B, A = p.mask.shape

    def data(k: int) -> list[tuple[int, float]]:
        found = []
        for b in range(B):
            n = int(p.mask[b].sum())
            if k < n and weights[b] > 0 and not (k == n - 1 and not p.terminated[b] and not p.known[b]):
                y = float(p.rewards[b, k])
                if not (k == n - 1 and p.terminated[b]):
                    y += discount * sum(
                        p.target[b, k + 1, a] * q(seen, p.acts, b, k + 1, a) for a in range(3)
                    )
                found.append((b, y))
        return found

    cache: dict[Any, Any] = {}

    def logged(k: int) -> list[tuple[int, float]]:
        if k not in cache:
            cache[k] = data(k) if k < A else []
        return cache[k]

    def mean(found: list[tuple[int, float]]) -> float:
        return sum(weights[i] * y for i, y in found) / sum(weights[i] for i, _ in found)

    def halfway(k: int, level: int) -> float:
        """The prior of this level."""
        if prior is not None:
            return prior
        if (k, level) not in cache:
            cells: dict[Any, list[tuple[int, float]]] = {}
            for i, y in logged(k):
                cells.setdefault((key(seen, p.acts, i, k, level), p.acts[i, k]), []).append((i, y))
            total = sum(weights[i] for i, _ in logged(k))
            within = sum(weights[i] * (y - mean(c)) ** 2 for c in cells.values() for i, y in c)
            noise = within / (total - len(cells)) if total > len(cells) else np.inf
            apart = 0.0
            for (_, a), c in cells.items():
                parent = estimate(seen, p.acts, c[0][0], k, a, level - 1)
                apart += sum(weights[i] for i, _ in c) * (mean(c) - parent) ** 2
            signal = (apart - len(cells) * noise) / total
            cache[k, level] = noise / signal if signal > 0 else np.inf
        return cache[k, level]

    def estimate(seen_: np.ndarray, acts: np.ndarray, b: int, k: int, a: int, level: int) -> float:
        if level < 0:
            return mean(logged(k))
        parent = estimate(seen_, acts, b, k, a, level - 1)
        asked = key(seen_, acts, b, k, level)
        here = [(i, y) for i, y in logged(k) if p.acts[i, k] == a and key(seen, p.acts, i, k, level) == asked]
        if not here or np.isinf(m := halfway(k, level)):
            return parent
        n = sum(weights[i] for i, _ in here)
        return (n * mean(here) + m * parent) / (n + m)

    def q(seen_: np.ndarray, acts: np.ndarray, b: int, k: int, a: int) -> float:
        return estimate(seen_, acts, b, k, a, turns) if logged(k) else 0.0

    return q


@pytest.mark.parametrize(("turns", "prior"), [(1, 0.0), (2, 1.5), (1, None), (2, None)])
def test_slow_twin(turns: int, prior: float | None) -> None:
    """On the conversations of the fit, and on others, some of whose histories the fit has never seen."""
    seen, all_ = random_logs(0)
    keys = turn_keys(seen, all_.acts, turns)
    learnt, asked = np.arange(25), np.arange(25, 40)
    weights = np.random.default_rng(1).integers(0, 3, 25).astype(float)
    some = all_.some(learnt)
    tables = fit_tables([k[learnt] for k in keys], some, 0.9, prior=prior, weights=weights)
    q = twin(seen[learnt], some, turns, 0.9, prior, weights)
    others = all_.some(asked)
    found = tables.values([k[asked] for k in keys], others)
    for b in range(len(asked)):
        n = int(others.mask[b].sum())
        for k in range(n):
            at = [q(seen[asked], others.acts, b, k, a) for a in range(3)]
            assert found.q[b, k] == pytest.approx(at[others.acts[b, k]], abs=1e-12)
            assert found.v[b, k] == pytest.approx(others.target[b, k] @ at, abs=1e-12)
        if others.terminated[b]:
            assert found.final[b] == 0
        elif others.known[b]:
            at = [q(seen[asked], others.acts, b, n, a) for a in range(3)]
            assert found.final[b] == pytest.approx(others.target[b, n] @ at, abs=1e-12)
        else:
            assert others.rewards[b, n - 1] + 0.9 * found.final[b] == pytest.approx(found.q[b, n - 1])


def test_the_prior_is_what_the_noise_asks_for() -> None:
    """3,000 cells of 5 conversations, noise with variance 4 and true means with variance .5: a mean of five
    weighs 5 / (5 + 8). Without noise each cell is its mean; without differences all are about one mean."""
    rng = np.random.default_rng(0)
    cell = np.repeat(np.arange(3000), 5)
    keys = [np.stack([cell, cell], axis=1)]
    means = rng.normal(size=3000)

    def fitted(noise: float, signal: float) -> tuple[np.ndarray, np.ndarray]:
        paid = np.sqrt(signal) * means[cell] + np.sqrt(noise) * rng.normal(size=15000)
        one = np.ones((15000, 2, 1))
        some = Played(np.zeros((15000, 1), int), paid[:, None], one[:, :1, 0] > 0, one, np.ones(15000, bool))
        return fit_tables(keys, some, 1.0).q(keys)[::5, 0, 0], paid.reshape(-1, 5).mean(1)

    q, paid = fitted(4.0, 0.5)
    assert np.polyfit(paid, q, 1)[0] == pytest.approx(5 / 13, rel=0.1)
    np.testing.assert_allclose(*fitted(0.0, 0.5), atol=1e-12)
    q, paid = fitted(4.0, 0.0)
    assert q.std() < 0.1 * paid.std()


def test_weights_are_copies() -> None:
    """A conversation that weighs 2 is there twice."""
    seen, all_ = random_logs(3)
    keys = turn_keys(seen, all_.acts, 2)
    weights = np.random.default_rng(0).integers(0, 3, len(seen))
    again = np.repeat(np.arange(len(seen)), weights)
    a = fit_tables(keys, all_, 1.0, weights=weights)
    b = fit_tables([k[again] for k in keys], all_.some(again), 1.0)
    np.testing.assert_allclose(a.q(keys), b.q(keys), atol=1e-12)


def test_keys_of_turns() -> None:
    """Two conversations with the same last turn and other ones before; what lies before the opening too."""
    seen = np.array([[5, 1, 2], [5, 0, 2], [5, 1, 3]])
    acts = np.array([[0, 1], [0, 1], [0, 1]])
    two, one = turn_keys(seen, acts, 2)
    assert one[0, 2] == one[1, 2] != one[2, 2] and two[0, 2] != two[1, 2]
    assert len(set(one[:, 0])) == len(set(two[:, 0])) == 1 and two[0, 1] == two[2, 1] != two[1, 1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": np.full((2, 3, 2), 0.4)}, r"target\[0, 0\] sums to 0.8"),
        ({"target": np.full((2, 2, 2), 0.5)}, "target begins with the shape"),
        ({"acts": np.array([[0, 2], [1, 0]])}, "acts go from 0 to 2; expected 0 to K - 1"),
        ({"rewards": np.full((2, 2), np.nan)}, "a reward is not finite"),
        ({"mask": np.array([[False, True], [True, True]])}, "with a decision each"),
        ({"terminated": np.array([True])}, "terminated begins with the shape"),
    ],
)
def test_what_is_no_log_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        played(**changes)


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(ValueError, match="no keys"):
        fit_tables([], played(), 1.0)
    with pytest.raises(ValueError, match="expected integers"):
        fit_tables([np.zeros((2, 3))], played(), 1.0)
    with pytest.raises(ValueError, match="keys that nest"):
        fit_tables([np.zeros((2, 3), int), np.array([[0, 0, 0], [1, 0, 0]])], played(), 1.0)
    with pytest.raises(ValueError, match="prior is -1"):
        fit_tables(ONE, played(), 1.0, prior=-1)
    with pytest.raises(ValueError, match="weights have the shape"):
        fit_tables(ONE, played(), 1.0, weights=np.ones(3))
    with pytest.raises(ValueError, match="expected a prior"):
        fit_tables(ONE, played(), 1.0, weights=np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match="turns is 0"):
        turn_keys(np.zeros((2, 3), int), np.zeros((2, 2), int), 0)
