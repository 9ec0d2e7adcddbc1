"""Learning end to end: what is found, what is chosen, what goes on where it was stopped, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from turnwise.envs.problems.classics import CLASSICS, t_maze
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.learning.choose import Size, choose, moving, staying
from turnwise.exact.learning.climb import Notes
from turnwise.exact.learning.data import longest_of, paid_by_step, prepared
from turnwise.exact.learning.fit import Effort, fit
from turnwise.exact.learning.merging import losses, merged
from turnwise.exact.learning.rewards import edges_of, late_of
from turnwise.exact.learning.sequences import Sequences
from turnwise.exact.learning.truth import described, random_episodes
from turnwise.exact.sarsop.solve import solve
from turnwise.run.errors import InputError

QUICK = Effort(starts=2, early=40, iterations=60, sample=8000)
SAME = {"rtol": 1e-9, "atol": 1e-12}
"""compiled sums may be reordered (`exact/compiled.py`): stopped or not, last bits may be others"""


def tiger(episodes: int, seed: int) -> Sequences:
    return random_episodes(TabularEnv(CLASSICS["tiger"]()), episodes, 10, np.random.default_rng(seed))


def flat(lengths: list[int], ended: list[bool], rewards: list[float] | None = None) -> Sequences:
    m = sum(lengths)
    return Sequences(
        np.zeros(m), np.zeros(m), None if rewards is None else np.array(rewards),
        np.append(0, np.cumsum(lengths)), np.array(ended), np.zeros(len(lengths)), 1, 1,
    )  # fmt: skip


def test_tiger_is_learnt_and_its_plan_is_worth_what_the_true_one_is() -> None:
    model = fit(tiger(3000, 0), 2, np.random.default_rng(0), effort=QUICK)
    truth = described(CLASSICS["tiger"]())
    apart = tiger(1000, 1)
    assert truth.log_likelihood(apart) - model.log_likelihood(apart) < 20  # of 6,800 nats
    assert model.pay is not None
    heard = model.emissions[0].max(1)
    np.testing.assert_allclose(heard, 0.85, atol=0.02)
    np.testing.assert_allclose(np.sort(model.pay.means[0, 1]), [-100, 10], atol=3)
    found = solve(model.pomdp(0.95), gap=0.05, deadline=10)
    assert found.lower == pytest.approx(19.37, abs=2.5)


def test_two_states_are_chosen_for_tiger() -> None:
    found = choose(tiger(1500, 2), np.random.default_rng(0), moves=(1, 2, 3), effort=QUICK)
    assert found.size == moving(2)
    assert found.heldout[moving(1)][1] > 10 * found.errors[moving(1)]
    assert found.model.shape[0] == 2 and found.smoothing in found.by_smoothing


def coins(n: int, kinds: int, rng: np.random.Generator) -> Sequences:
    """Episodes of eight questions out of five about one of so many things; two more may be asked of a thing.

    Question q of thing k is answered yes where bit q of k is 1, and one answer in twenty is false.
    """
    thing = rng.integers(kinds, size=n)
    asked = rng.integers(5, size=(n, 8))
    yes = (thing[:, None] >> asked & 1) ^ (rng.random((n, 8)) < 0.05)
    return Sequences(
        asked.ravel(), yes.ravel(), None, 8 * np.arange(n + 1), np.zeros(n, bool), np.zeros(n), 5, 2
    )


def test_many_things_that_stay_are_told_apart_where_few_states_that_move_are_not() -> None:
    """Sixteen things of four bits (the fifth question is always answered no). The truth explains most: the
    entropy of a held-out answer given all before it. Four states that move are far from it."""
    rng = np.random.default_rng(0)
    found = choose(coins(1500, 16, rng), rng, moves=(2, 4), stays=(4, 8, 16, 24, 32), effort=QUICK)
    assert found.size == staying(16) and found.model.stays
    assert found.heldout[moving(4)][1] > 5 * found.errors[moving(4)]
    # Each thing is a state: its answers to the four questions, in any order.
    answers = found.model.emissions[:4, :, 1].T.round()  # [S, 4]
    assert len(np.unique(answers, axis=0)) == 16
    apart = coins(500, 16, rng)
    assert found.model.log_likelihood(apart) / len(apart.actions) == pytest.approx(_truth(apart), abs=0.01)


def _truth(apart: Sequences) -> float:
    """Nats per answer of the process that `coins` draws from, by all sixteen things."""
    yes, asked = apart.observations.reshape(-1, 8), apart.actions.reshape(-1, 8)
    fits = (np.arange(16)[:, None, None] >> asked & 1) == yes  # [16, n, 8]
    return float(np.log(np.where(fits, 0.95, 0.05).prod(2).mean(0)).mean() / 8)


def lamps(n: int, rng: np.random.Generator) -> Sequences:
    """Four kinds of episodes of ten steps, each a pair of lamps of which one is on: a push may switch.

    What is seen tells the kind (which pair) and the lamp, each rightly with .9. A push switches with .8, and
    waiting never does.
    """
    kind, lamp = rng.integers(4, size=n), rng.integers(2, size=n)
    pushed = rng.integers(2, size=(n, 10))
    seen = np.zeros((n, 10), int)
    for k in range(10):
        lamp = lamp ^ ((pushed[:, k] == 1) & (rng.random(n) < 0.8))
        pair = np.where(rng.random(n) < 0.9, kind, rng.integers(4, size=n))
        seen[:, k] = 2 * pair + np.where(rng.random(n) < 0.9, lamp, 1 - lamp)
    return Sequences(
        pushed.ravel(), seen.ravel(), None, 10 * np.arange(n + 1), np.zeros(n, bool), np.zeros(n), 2, 8
    )


def test_kinds_with_phases_are_told_from_states_that_all_move_and_from_those_that_all_stay() -> None:
    rng = np.random.default_rng(0)
    both = [Size(c, p) for p in (2, 3) for c in (2, 3, 4, 6)]
    found = choose(lamps(800, rng), rng, moves=(1, 2, 4, 8), stays=(2, 4, 8), both=both, effort=QUICK)
    assert found.size == Size(4, 2)
    for size in (moving(8), staying(8)):
        assert found.heldout[size][1] > 3 * found.errors[size]
    # Each state leads to itself and to the other lamp of its pair, and a push switches.
    moves = found.model.transitions
    assert moves[:, np.kron(np.eye(4), np.ones((2, 2))) == 0].max() == 0
    assert moves[1, [0, 2, 4, 6], [1, 3, 5, 7]] == pytest.approx(0.8, abs=0.1)
    assert moves[0, [0, 2, 4, 6], [1, 3, 5, 7]] == pytest.approx(0.0, abs=0.1)


def test_a_state_that_moves_is_not_taken_for_one_that_stays() -> None:
    """A door opens a new tiger: what was heard before tells nothing, so no class of episodes will do."""
    found = choose(tiger(1500, 2), np.random.default_rng(0), moves=(1, 2), stays=(2, 3), effort=QUICK)
    assert found.size == moving(2) and not found.model.stays
    assert found.heldout[staying(2)][1] > 3 * found.errors[staying(2)]


@pytest.mark.parametrize(("where", "look"), [("start 1", 3), ("start 2", 3), ("split 1", 3), ("fit2", 2)])
def test_a_stopped_search_goes_on_to_the_same_numbers(where: str, look: int) -> None:
    data = tiger(400, 3)
    whole = fit(data, 2, np.random.default_rng(5), effort=QUICK)
    kept: dict[str, np.ndarray] = {}
    looks = 0

    def watch(what: str, value: float) -> None:
        nonlocal looks
        looks += what == where
        if looks == look:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(data, 2, np.random.default_rng(5), effort=QUICK, notes=Notes(keep=kept.update), watch=watch)
    again = fit(data, 2, np.random.default_rng(5), effort=QUICK, notes=Notes(kept))
    for name, array in whole.arrays().items():
        np.testing.assert_allclose(array, again.arrays()[name], **SAME)


@pytest.mark.parametrize("where", ["many4x1-1", "own4x1", "many8x2-2", "own8x1"])
def test_a_stopped_choice_among_kinds_goes_on_to_the_same_numbers(where: str) -> None:
    """Stopped in a start and in a climb, of states that stay and of kinds with phases."""
    data = lamps(200, np.random.default_rng(1))
    sizes: dict[str, Any] = {"moves": (1, 2), "stays": (2, 4, 8), "both": [Size(4, 2)], "effort": QUICK}
    whole = choose(data, np.random.default_rng(5), **sizes)
    kept: dict[str, np.ndarray] = {}
    looks = 0

    def watch(what: str, value: float) -> None:
        nonlocal looks
        looks += what == where
        if looks == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose(data, np.random.default_rng(5), **sizes, notes=Notes(keep=kept.update), watch=watch)
    again = choose(data, np.random.default_rng(5), **sizes, notes=Notes(kept))
    assert again.size == whole.size and again.heldout.keys() == whole.heldout.keys()
    for size, figures in whole.heldout.items():
        np.testing.assert_allclose(again.heldout[size], figures, **SAME)
    for name, array in whole.model.arrays().items():
        np.testing.assert_allclose(array, again.model.arrays()[name], **SAME)


def test_twins_are_the_states_that_cost_nothing_to_merge() -> None:
    """State 2 is a copy of state 1: each is entered half as often as the one was."""
    from turnwise.exact.learning.expectation import expected, tables_of
    from turnwise.exact.learning.model import LearntModel

    base = described(CLASSICS["tiger"](), np.array([-50.0, 4.0]))
    assert base.pay is not None
    to = np.array([[1, 0, 0], [0, 0.5, 0.5]])
    twice = [0, 1, 1]
    pay = replace(base.pay, bins=base.pay.bins[:, :, twice], means=base.pay.means[:, :, twice])
    model = LearntModel(
        base.start @ to, base.firsts[twice], (base.transitions @ to)[:, twice], base.emissions[:, twice],
        base.ends[:, twice], base.lasts[:, :, twice], None, pay,
    )  # fmt: skip
    q = tiger(500, 4)
    data = prepared(q, 3, longest=None)
    counts, likelihoods = expected(data.steps, tables_of(model))
    np.testing.assert_allclose(likelihoods, base.log_likelihoods(q, rewards=True), atol=1e-9)
    lost = losses(counts)
    assert np.unravel_index(lost.argmin(), lost.shape) == (1, 2)
    assert lost[1, 2] < 1e-6 < 100 < lost[0, 1]
    alone, _ = expected(data.of(2).steps, tables_of(base))
    for found, truth in zip(merged(counts, 1, 2), alone, strict=True):
        np.testing.assert_allclose(found, truth, atol=1e-6)


def test_a_longest_length_is_found_if_chance_does_not_explain_it() -> None:
    ends = [1, 2, 1, 3, 2, 1] * 10
    assert longest_of(flat([*ends, *[4] * 12], [True] * 72)) == 4
    assert longest_of(flat([*ends, *[4] * 12], [*[True] * 71, False])) is None  # one went on
    assert longest_of(flat([*ends, 4], [True] * 61)) is None  # one long talk is chance
    assert longest_of(flat([5] * 3, [True] * 3)) == 5  # nothing ever ended before


def test_outcomes_that_shrink_with_the_length_fall_into_two_bins() -> None:
    """1 - 0.1 k or -1 - 0.1 k after k steps, told apart by the last answer: late is -0.1 k but for a
    constant, and what is left has two values."""
    rng = np.random.default_rng(0)
    lengths = np.append(rng.integers(1, 6, 400), [6] * 60)
    good = rng.random(460) < 1 / lengths  # early ends go well: late must not be blamed for it
    offsets = np.append(0, np.cumsum(lengths))
    rewards, seen = np.zeros(offsets[-1]), np.zeros(offsets[-1], int)
    rewards[offsets[1:] - 1] = np.where(good, 1.0, -1.0) - 0.1 * lengths
    seen[offsets[1:] - 1] = np.where(good, 1, 2)
    data = prepared(
        Sequences(np.zeros_like(seen), seen, rewards, offsets, np.ones(460, bool), np.zeros(460), 1, 3),
        1,
        longest=6,
    )
    np.testing.assert_allclose(np.diff(data.late), -0.1, atol=1e-6)
    assert data.edges is not None
    assert len(edges_of(np.array([-1.0, 1.0]))) == 1
    assert len(np.unique(data.steps.bins[offsets[1:] - 1])) == 2


def ended(at: np.ndarray, pay: np.ndarray) -> Sequences:
    """Episodes of one action that end at steps `at`, with `pay`; nothing tells good ends from bad."""
    offsets = np.append(0, np.cumsum(at + 1))
    rewards = np.zeros(offsets[-1])
    rewards[offsets[1:] - 1] = pay
    nothing = np.zeros(len(rewards), int)
    return Sequences(nothing, nothing, rewards, offsets, np.ones(len(at), bool), at * 0, 1, 1)


def test_luck_at_a_step_is_not_taken_for_what_the_step_costs() -> None:
    """After one step 3 of 4 ends are good (1 - .1), after two 1 of 4 is (1 - .2): their means differ by -1.1,
    but only with -.1 are all rewards of the one among the other's. A single end at the third step might owe
    -.2 and be as lucky as it is, or owe 2 more or less: the line through the others says -.2. Of continuous
    rewards the means are all that there is: .5 and -.4 a step."""
    at, luck = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([1, 1, 1, -1, 1, -1, -1, -1.0])
    found = late_of(ended(at, luck - 0.1 * (at + 1)), 2)
    np.testing.assert_allclose(found, [0.05, -0.05], atol=1e-12)
    for last in (1.0, -1.0):
        more, lucky = np.append(at, 2), np.append(luck, last)
        found = late_of(ended(more, lucky - 0.1 * (more + 1)), 3)
        np.testing.assert_allclose(np.diff(found), [-0.1, -0.1], atol=1e-12)
    at = np.repeat([0, 1], 20)
    pay = np.where(at, -0.4, 0.5) + np.tile(np.arange(20) ** 1.5, 2)
    pay -= pay[20:].mean() + 0.4
    np.testing.assert_allclose(late_of(ended(at, pay), 2), [0.45, -0.45], atol=1e-12)


def test_outcomes_that_a_step_lowers_are_known_from_others() -> None:
    """Eight episodes never end by a clock, and their outcomes fall by .1 a step, or do not."""
    at, luck = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([1, 1, 1, -1, 1, -1, -1, -1.0])
    falling = ended(at, luck - 0.1 * (at + 1))
    assert paid_by_step(falling) and not paid_by_step(ended(at, luck))
    assert not paid_by_step(ended(np.repeat([0, 1], 20), np.arange(40) ** 1.5))
    assert not paid_by_step(replace(falling, rewards=None))
    assert falling.rewards is not None
    assert not paid_by_step(replace(falling, rewards=falling.rewards + 0.5))  # other steps are paid too


def test_what_cannot_be_learnt_is_refused_or_fits_without_rewards() -> None:
    rng = np.random.default_rng(0)
    few = flat([2], [False])
    with pytest.raises(InputError, match="3 hidden states for 2 steps"):
        fit(few, 3, rng)
    with pytest.raises(InputError, match="an episode has 2 steps"):
        fit(few, 1, rng, longest=1)
    with pytest.raises(InputError, match="at least 2"):
        choose(few, rng)
    blind = fit(replace(tiger(200, 6), rewards=None), 2, rng, effort=QUICK)  # no rewards, no plan
    with pytest.raises(ValueError, match="nothing to plan for"):
        blind.pomdp(0.9)
    alone = fit(flat([3, 2, 3], [True] * 3, [0.0, 0, 1, 0, 1, 0, 0, 1]), 1, rng, effort=QUICK)  # one act
    assert alone.shape == (1, 1, 1)


@pytest.mark.parametrize("seed", [0, 2])
def test_what_one_start_misses_is_found_by_splitting_all_states(seed: int) -> None:
    """A T-maze of 2 cells, 8 states. The start alone forgets the sign, and is some 105 nats below the truth;
    what smoothing costs is some 40."""
    problem = t_maze(2)
    data = random_episodes(TabularEnv(problem), 400, 20, np.random.default_rng(seed))
    effort = Effort(starts=1, early=60, iterations=60, sample=8000)
    model = fit(data, 8, np.random.default_rng(seed), effort=effort)
    assert described(problem).log_likelihood(data) - model.log_likelihood(data) < 60


def test_two_copies_of_learnt_states_explain_as_much_until_they_are_told_apart() -> None:
    """Copies that favour the same observations are the model itself, whatever the steps between them."""
    from turnwise.exact.learning.expectation import expected, tables_of
    from turnwise.exact.learning.starts import twofold

    class Even:
        def normal(self, size: tuple[int, ...]) -> np.ndarray:
            return np.zeros(size)

    base = described(CLASSICS["tiger"](), np.array([-50.0, 4.0]))
    q = tiger(200, 7)
    data = prepared(q, 2, longest=None)
    one, both = tables_of(base), twofold(tables_of(base), Even())  # type: ignore[arg-type]
    assert both.transitions.shape == (3, 4, 4)
    np.testing.assert_allclose(expected(data.steps, both)[1], expected(data.steps, one)[1], atol=1e-9)
    drawn = twofold(one, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.emissions.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(drawn.transitions.sum(2), 1, atol=1e-12)
    assert np.abs(drawn.emissions[..., :2] - drawn.emissions[..., 2:]).max() > 0.1


def test_drawn_data_are_binned_as_the_model_that_they_begin_with() -> None:
    """16 different outcomes make 8 bins; ten of them drawn would make 10, and seven 7. Without edges of the
    model's own, its probabilities of bins would be those of other rewards, or of no bin at all."""
    outcomes = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    whole = flat([2] * 64, [True] * 64, [x for pay in np.repeat(outcomes, 4) for x in (0.0, float(pay))])
    few = Effort(starts=1, iterations=20)
    main = fit(whole, 2, np.random.default_rng(0), effort=few)
    assert main.pay is not None and len(main.pay.edges) == 7
    for different in (10, 7):
        drawn = whole.select(np.arange(4 * different))
        again = fit(drawn, 2, np.random.default_rng(1), longest=main.longest, begin=main, effort=few)
        assert again.pay is not None
        assert np.array_equal(again.pay.edges, main.pay.edges)
        assert np.isfinite(again.log_likelihoods(drawn, rewards=True)).all()


def test_what_was_never_seen_tells_nothing() -> None:
    """A symbol that no log has: the belief is what the action alone makes of it, and rows still sum to 1."""
    data = replace(tiger(300, 4), observation_symbols=3, first_symbols=2)
    model = fit(data, 2, np.random.default_rng(0), effort=QUICK)
    belief = np.array([[0.8, 0.2]])
    for action in range(3):
        after, chance = model.update(belief, np.array([action]), np.array([2]))
        blind = belief * (1 - model.ends[action]) @ model.transitions[action]
        np.testing.assert_allclose(after, blind / blind.sum(), atol=1e-12)
        assert 0 < chance[0] < 0.01
    np.testing.assert_allclose(model.first(np.array([1])), model.start[None], atol=1e-12)
