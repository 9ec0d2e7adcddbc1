"""Over all logs there can be: the unbiased estimates expect the exact value, the weighted ones tend to it.

The models' values are wrong unless a test says otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from told_worlds import Past, anything, dialogue, pomdp, problem, seen

from turnwise.evaluation.estimates import doubly_robust, importance
from turnwise.evaluation.estimates.logged import bootstrapped
from turnwise.evaluation.estimates.magic import blend, magic
from turnwise.exact.histories import history_value

UNBIASED = [importance.importance_sampling, importance.per_decision, doubly_robust.doubly_robust]
WEIGHTED = [importance.weighted, importance.weighted_per_decision, doubly_robust.weighted]


def nonsense(past: Past, action: int) -> float:
    """A model's q that is right about nothing."""
    return float(np.random.default_rng([7, action, *(p + 1 for p in past)]).normal())


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
