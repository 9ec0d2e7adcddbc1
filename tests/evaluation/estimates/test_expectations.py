"""Over all logs there can be: the unbiased estimates expect the exact value, the weighted ones tend to it.

Both policies depend on the whole history, and the models' values are wrong unless a test says otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP
from turnwise.evaluation.estimates import doubly_robust, importance
from turnwise.evaluation.estimates.logged import Logged, bootstrapped
from turnwise.evaluation.estimates.magic import blend, magic
from turnwise.exact.histories import History, histories, history_value

Past = tuple[int, ...]
"""what was heard and done so far, in turn: something heard, then an action, ..."""
Policy = Callable[[Past], np.ndarray]


def together(heard: tuple[int, ...], actions: tuple[int, ...]) -> Past:
    """One thing heard more than there are actions."""
    return (*(x for pair in zip(heard, actions, strict=False) for x in pair), heard[-1])


UNBIASED = [importance.importance_sampling, importance.per_decision, doubly_robust.doubly_robust]
WEIGHTED = [importance.weighted, importance.weighted_per_decision, doubly_robust.weighted]


def anything(seed: int, actions: int, sharpness: float) -> Policy:
    """A policy that draws its probabilities anew for each history."""

    def policy(past: Past) -> np.ndarray:
        x = np.random.default_rng([seed, *(p + 1 for p in past)]).normal(size=actions) * sharpness
        return np.exp(x) / np.exp(x).sum()

    return policy


@dataclass(frozen=True)
class Told:
    """One way that an episode can go."""

    heard: tuple[int, ...]
    actions: tuple[int, ...]
    rewards: tuple[float, ...]
    world: float
    """probability of all that the world did"""
    ended: bool = True
    """whether it ended by itself, else it was cut"""

    def past(self, k: int) -> Past:
        """What is known at decision k, from 0."""
        return together(self.heard[: k + 1], self.actions[:k])

    def chance(self, policy: Policy) -> float:
        return float(np.prod([policy(self.past(k))[a] for k, a in enumerate(self.actions)]))


@dataclass(frozen=True)
class World:
    """All ways that an episode can go, with a behaviour, a target, and the discount."""

    told: list[Told]
    behavior: Policy
    target: Policy
    discount: float

    @property
    def chances(self) -> np.ndarray:
        """[B], probability of each under the behaviour."""
        return np.array([t.world * t.chance(self.behavior) for t in self.told])

    @property
    def value(self) -> float:
        """The target's, summed over all that can happen to it."""
        return sum(t.world * t.chance(self.target) * self.paid(t, 0) for t in self.told)

    def paid(self, t: Told, k: int) -> float:
        return sum(self.discount**i * r for i, r in enumerate(t.rewards[k:]))

    def true_values(self) -> Callable[[Past, int], float]:
        """The target's own q: mean of what is paid from here over all that can follow."""
        mass, paid = defaultdict(float), defaultdict(float)
        for t in self.told:
            chance = t.world * t.chance(self.target)
            for k, a in enumerate(t.actions):
                mass[t.past(k), a] += chance
                paid[t.past(k), a] += chance * self.paid(t, k)
        return lambda past, a: paid[past, a] / mass[past, a]

    def logs(self, q: Callable[[Past, int], float], *, wrong: Policy | None = None) -> Logged:
        """Every way once; v is the expectation of q. `wrong`: what the behaviour is taken for."""
        n, width = len(self.told), max(len(t.actions) for t in self.told)
        x = {name: np.zeros((n, width)) for name in ("rewards", "logp", "behavior_logp", "q", "v")}
        mask = np.zeros((n, width), bool)
        for b, t in enumerate(self.told):
            for k, a in enumerate(t.actions):
                past = t.past(k)
                pi = self.target(past)
                mask[b, k], x["rewards"][b, k] = True, t.rewards[k]
                x["logp"][b, k] = np.log(pi[a])
                x["behavior_logp"][b, k] = np.log((wrong or self.behavior)(past)[a])
                x["q"][b, k] = q(past, a)
                x["v"][b, k] = sum(p * q(past, i) for i, p in enumerate(pi))
        return Logged(mask=mask, discount=self.discount, **x)


def nonsense(past: Past, action: int) -> float:
    """A model's q that is right about nothing."""
    return float(np.random.default_rng([7, action, *(p + 1 for p in past)]).normal())


def problem() -> POMDP:
    """2 states, 2 actions, 2 observations, rewards of states and actions, ends."""
    rng = np.random.default_rng(3)
    return POMDP.from_arrays(
        rng.dirichlet(np.ones(2), (2, 2)),
        rng.dirichlet(np.ones(2), (2, 2)),
        np.array([[1.0, -2.0], [-1.0, 3.0]]),
        discount=0.8,
        start=np.array([0.4, 0.6]),
        ends=rng.random((2, 2, 2)) < 0.3,
    )


def pomdp(horizon: int = 3) -> World:
    behavior, target = anything(0, 2, 0.7), anything(1, 2, 1.5)
    told = []
    for x in histories(problem(), lambda h: behavior(seen(h)), horizon):
        t = Told(x.history.inputs, x.history.actions, x.history.rewards, 1.0, x.history.ended)
        told.append(replace(t, world=x.probability / t.chance(behavior)))
    return World(told, behavior, target, 0.8)


def seen(h: History) -> Past:
    return together(h.inputs, h.actions)


def dialogue() -> World:
    """At most two turns with a customer who is calm (.7) or cross, which nobody says.

    The agent asks (0), offers (1) or gives up (2), which ends it. An offer is taken by the calm with .8, by
    the cross with .3, by the cross who was asked before with .6: it pays 1 and ends. A question costs .1 and
    is answered kindly (1) by the calm with .9, by the cross with .4, else curtly (0), as a refused offer is.
    """
    told = []
    for cross, mood in ((False, 0.7), (True, 0.3)):
        for first in range(3):
            for heard, chance, paid, ended in answers(cross, first, asked=False):
                if ended:
                    told.append(Told((2,), (first,), (paid,), mood * chance))
                    continue
                for second in range(3):
                    for _, more, then, _ in answers(cross, second, asked=first == 0):
                        told.append(Told((2, heard), (first, second), (paid, then), mood * chance * more))
    return World(told, anything(2, 3, 0.8), anything(3, 3, 1.5), 0.9)


def answers(cross: bool, act: int, *, asked: bool) -> list[tuple[int, float, float, bool]]:
    """(heard, probability, reward, whether it ends)"""
    if act == 0:
        kind = 0.4 if cross else 0.9
        return [(1, kind, -0.1, False), (0, 1 - kind, -0.1, False)]
    if act == 1:
        taken = (0.6 if asked else 0.3) if cross else 0.8
        return [(0, taken, 1.0, True), (0, 1 - taken, 0.0, False)]
    return [(0, 1.0, 0.0, True)]


WORLDS = pytest.mark.parametrize("world", [pomdp(), dialogue()], ids=["pomdp", "dialogue"])


def test_worlds_are_what_they_say() -> None:
    """The POMDP's value is that of `exact`; episodes end at different lengths; probabilities sum to one."""
    for world in (pomdp(), dialogue()):
        assert world.chances.sum() == pytest.approx(1, abs=1e-12)
        assert len({len(t.actions) for t in world.told}) > 1
        assert abs(world.chances @ [world.paid(t, 0) for t in world.told] - world.value) > 0.01
    found = pomdp()
    exact = history_value(problem(), lambda h: found.target(seen(h)), 3)
    assert found.value == pytest.approx(exact, abs=1e-12)


@WORLDS
@pytest.mark.parametrize("estimate", UNBIASED)
def test_expectation_over_all_logs_is_the_exact_value(world, estimate) -> None:
    """An estimate that is a mean of parts has the expectation of one part."""
    parts = estimate(world.logs(nonsense)).parts
    assert world.chances @ parts == pytest.approx(world.value, abs=1e-9)


@pytest.mark.parametrize("estimate", UNBIASED)
def test_expectation_over_all_logs_of_two_conversations(estimate) -> None:
    """Every pair of conversations, with the product of their probabilities."""
    world = dialogue()
    p, n = world.chances, len(world.told)
    pairs = np.eye(n)[:, None] + np.eye(n)  # [n, n, n], counts of each pair
    values, _ = estimate(world.logs(nonsense)).resampled(pairs.reshape(n * n, n))
    assert np.outer(p, p).ravel() @ values == pytest.approx(world.value, abs=1e-9)


@pytest.mark.parametrize("estimate", WEIGHTED[:2])
def test_weighted_sampling_of_one_conversation_is_what_it_paid(estimate) -> None:
    """Its weight is one, whatever the target: the expectation is the behaviour's value."""
    world = dialogue()
    values, _ = estimate(world.logs(nonsense)).resampled(np.eye(len(world.told)))
    paid = np.array([world.paid(t, 0) for t in world.told])
    np.testing.assert_allclose(values, paid, atol=1e-12)


@pytest.mark.parametrize("estimate", [*UNBIASED, *WEIGHTED])
def test_errors_go_as_one_over_the_root_of_the_number_of_logs(estimate) -> None:
    """Sixteen times as many conversations, over 500 sets: a quarter of the error, with a standard error that
    says so (seed 0; both within a fifth, where the sets leave 5% of noise)."""
    world, rng = dialogue(), np.random.default_rng(0)
    found, root = estimate(world.logs(nonsense)), []
    for n in (100, 1600):
        values, errors = found.resampled(rng.multinomial(n, world.chances, 500))
        root.append(float(np.sqrt(np.mean((values - world.value) ** 2))))
    assert root[0] / root[1] == pytest.approx(4, rel=0.2)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(root[1], rel=0.2)


@WORLDS
@pytest.mark.parametrize("estimate", WEIGHTED)
def test_weighted_estimates_tend_to_the_exact_value(world, estimate) -> None:
    """Endless logs hold every history in proportion to its probability, and have no error left."""
    values, _ = estimate(world.logs(nonsense)).resampled(world.chances[None])
    assert values[0] == pytest.approx(world.value, abs=1e-9)


@WORLDS
def test_weights_of_running_episodes_alone_would_not_do(world) -> None:
    """Normalised over the episodes that still run, endless logs give something else (see the docstring)."""
    logged = world.logs(nonsense)
    value = 0.0
    for k in range(logged.mask.shape[1]):
        weights = world.chances * logged.ratios[:, k] * logged.mask[:, k]
        value += logged.discount**k * weights @ logged.rewards[:, k] / weights.sum()
    assert abs(value - world.value) > 0.02


@WORLDS
def test_the_blend_finds_out_that_the_model_is_wrong(world) -> None:
    """With 1e14 logs the interval around weighted doubly robust leaves no room for the model."""
    values, _ = magic(world.logs(nonsense)).resampled(1e14 * world.chances[None])
    assert values[0] == pytest.approx(world.value, abs=1e-6)


@WORLDS
@pytest.mark.parametrize("estimate", [doubly_robust.direct, doubly_robust.doubly_robust])
def test_a_right_model_needs_no_right_propensities(world, estimate) -> None:
    """The other half of doubly robust: q is the truth, the behaviour is taken for another policy."""
    actions = len(world.target((0,)))
    logged = world.logs(world.true_values(), wrong=anything(9, actions, 1.0))
    assert world.chances @ estimate(logged).parts == pytest.approx(world.value, abs=1e-9)
    wrong = importance.per_decision(logged)
    assert abs(world.chances @ wrong.parts - world.value) > 0.01


@WORLDS
def test_a_right_model_makes_doubly_robust_narrow(world) -> None:
    """What remains is the noise of the world: the parts vary less than those of importance sampling."""
    p, logged = world.chances, world.logs(world.true_values())

    def spread(estimate) -> float:
        return float(np.sqrt(p @ (estimate(logged).parts - world.value) ** 2))

    assert spread(doubly_robust.doubly_robust) < 0.8 * spread(importance.per_decision)
    assert spread(importance.per_decision) < spread(importance.importance_sampling)


def test_a_right_model_is_believed(make_logs) -> None:
    """Of 300 conversations with a right model, more than half of the blend is the model's word."""
    world = dialogue()
    draws = np.random.default_rng(0).choice(len(world.told), 300, p=world.chances)
    drawn = replace(world, told=[world.told[i] for i in draws])
    found = blend(drawn.logs(world.true_values()))
    assert found.steps[0] == 0 and found.weights[0] > 0.5
    assert found.weights @ found.values == pytest.approx(world.value, abs=0.05)


@pytest.mark.parametrize("estimate", UNBIASED)
def test_cut_episodes_with_the_value_of_what_was_cut(estimate) -> None:
    """Logs cut after two decisions: with the target's value of the state there, the expectation is the value
    of four decisions; without it, that of two."""
    world, long = pomdp(2), pomdp(4)
    mass, paid = defaultdict(float), defaultdict(float)
    for t in long.told:
        if len(t.actions) > 2:
            chance = t.world * t.chance(long.target)
            mass[t.past(2)] += chance
            paid[t.past(2)] += chance * long.paid(t, 2)
    final = np.array([0.0 if t.ended else paid[t.past(2)] / mass[t.past(2)] for t in world.told])
    logged = world.logs(nonsense)
    assert world.chances @ estimate(logged).parts == pytest.approx(world.value, abs=1e-9)
    assert world.chances @ estimate(bootstrapped(logged, final)).parts == pytest.approx(long.value, abs=1e-9)
    assert abs(long.value - world.value) > 0.01
