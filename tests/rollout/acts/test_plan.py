"""Planning in a right model of HelpDesk: the plan is worth the optimum there, and in the true task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from turnwise.envs.tasks.helpdesk.exact import optimal_value
from turnwise.envs.tasks.helpdesk.rules import RELIABILITY, TEST_COST
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.exact.learning.planner import Planner, allowed_only, mixture, simulated_returns
from turnwise.exact.sarsop.solve import solve
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Prefix
from turnwise.rollout.acts.conversations import converse_in_acts
from turnwise.rollout.acts.plan import PlanChooser, load_plan
from turnwise.run.errors import InputError

from .test_conversations import CODES, VOICE


def desk(reliability: float = RELIABILITY, longest: int = 8, extra: int = 1) -> LearntModel:
    """HelpDesk as a model: 4 faults, 4 tests, 4 fixes and `extra` acts that say nothing; answers 1 + 2 k + b
    (part k is fine, or broken), and one more for what nobody understood; 0 is silence."""
    S, A, O = 4, 8 + extra, 10
    emissions, ends = np.zeros((A, S, O)), np.zeros((A, S))
    for a in range(4):
        right = np.where(np.arange(4) == a, reliability, 1 - reliability)
        emissions[a, :, 2 + 2 * a], emissions[a, :, 1 + 2 * a] = right, 1 - right
    emissions[4:, :, 9] = 1
    ends[4:8] = 1
    means = np.full((3, A, S), -TEST_COST)
    means[:, 4:8] = 2 * np.eye(4) - 1
    lasts = np.zeros((2, A, S, O))
    lasts[..., 9] = 1
    pay = Pay(np.zeros(0), np.ones((3, A, S, 1)), means, np.zeros(longest))
    stay = np.tile(np.eye(S), (A, 1, 1))
    return LearntModel(np.full(S, 0.25), np.ones((S, 1)), stay, emissions, ends, lasts, longest, pay)


def planned(model: LearntModel, allowed: list[int] | None = None) -> tuple[Planner, float, float]:
    chosen = np.arange(model.shape[1]) if allowed is None else np.array(allowed)
    found = solve(allowed_only(model, chosen).pomdp(1.0), gap=2e-3, deadline=20.0)
    return Planner.of(model, chosen, found.policy, 1.0), found.lower, found.upper


PLANNER, LOWER, UPPER = planned(desk())


def test_the_plan_is_worth_the_optimum() -> None:
    """The model's bounds hold the optimum of the task, the look-ahead's value lies between them, and so does
    what simulated episodes earn."""
    best = optimal_value()
    assert best + 1e-9 >= LOWER and best <= UPPER + 1e-9 and UPPER - LOWER < 2e-3
    start, zero = PLANNER.model.first(np.zeros(1, np.int64)), np.zeros(1, np.int64)
    q = PLANNER.q(start, zero)[0]
    assert LOWER - 1e-9 <= q.max() <= best + 1e-9
    np.testing.assert_allclose(q[4:8], -0.5)  # fix one of four at once: 1/4 - 3/4
    earned = simulated_returns(PLANNER, PLANNER.model, 4000, np.random.default_rng(1))
    assert earned.mean() == pytest.approx(best, abs=4 * earned.std() / 4000**0.5)


def test_the_plan_speaks_in_the_true_task() -> None:
    """Through codebooks and a voice the same plan earns the optimum within 3.5 standard errors."""
    agent = ActAgent(CODES, PlanChooser(PLANNER, CODES.acts), VOICE)
    held = converse_in_acts(agent, HelpDesk(), episodes=range(600), seed=0, lanes=100)
    returns = np.array([c.dialogue.undiscounted_return() for c in held])
    assert returns.mean() == pytest.approx(optimal_value(), abs=3.5 * returns.std() / 600**0.5)
    turn = held[0].turns[-1]
    assert len(turn["belief"]) == 4 and sum(turn["belief"]) == pytest.approx(1, abs=1e-3)
    assert turn["act"] == next(iter(turn["values"])) and turn["v"] == pytest.approx(
        max(turn["values"].values()), abs=1e-4
    )


def test_one_look_at_the_end() -> None:
    """Two turns: a test, then a fix if the part is broken. "Broken" has the chance .25 * .85 + .75 * .15 =
    .325, and then the part is it with .2125/.325: a fix pays 2 * .2125 - .325 = .1 in all. After "fine" every
    fix would lose .25, and one more test .05. So V = -.05 + .1 - .05 * .675 = .01625."""
    planner, lower, _ = planned(desk(longest=2))
    assert lower == pytest.approx(0.01625, abs=1e-9)
    b = planner.model.first(np.zeros(1, np.int64))
    assert planner.best(b, np.zeros(1, np.int64))[0] < 4
    after, p = planner.model.update(b, np.array([0]), np.array([2]))
    assert p[0] == pytest.approx(0.325) and after[0, 0] == pytest.approx(0.2125 / 0.325)
    assert planner.best(after, np.ones(1, np.int64))[0] == 4
    assert planner.best(after, np.full(1, 99))[0] == 4  # a talk that is longer than any


def test_acts_that_are_not_allowed_are_never_taken() -> None:
    planner, lower, _ = planned(desk(), [0, 1, 4, 5])
    q = planner.q(planner.model.first(np.zeros(1, np.int64)), np.zeros(1, np.int64))[0]
    assert np.isfinite(q).nonzero()[0].tolist() == [0, 1, 4, 5]
    assert lower < LOWER


def test_a_mixture_learns_which_model_holds() -> None:
    """Half of the worlds have customers that are mostly wrong (.15), half are right (.85). Who plans in the
    mixture earns less than who knows the world, and far more than who believes in the wrong one."""
    right, wrong = desk(longest=5), desk(0.15, longest=5)
    both = mixture([right, wrong])
    planner, lower, upper = planned(both)
    assert both.shape[0] == 8 and both.start.sum() == pytest.approx(1)
    alone = planned(right)
    assert lower < alone[1] - 0.02
    rng = np.random.default_rng(0)
    earned = np.array([simulated_returns(planner, world, 1500, rng).mean() for world in (right, wrong)])
    assert earned.mean() == pytest.approx((lower + upper) / 2, abs=0.06)
    fooled = simulated_returns(alone[0], wrong, 1500, rng).mean()
    assert earned[1] > fooled + 0.3


def test_words_that_were_never_logged_are_weighed() -> None:
    """After a test of part 1, "broken" is 3 times as likely as "fine" by its words. The part is it with prior
    1/4: .25 (.85 * 3 + .15) : .75 (.15 * 3 + .85) = .675 : .975."""
    told = np.zeros(10)
    told[[1, 2]] = 1, 3
    guess = Prefix.of(0, [0], [1], [0, 0.5])
    doubtful = replace(guess, evidence=(told,))
    belief = PlanChooser(PLANNER, CODES.acts).beliefs([guess, doubtful])[0]
    assert belief[1, 0] == pytest.approx(0.675 / 1.65)
    # What was read as "fine", the likelier one of some other words, would have told against it.
    assert belief[0, 0] == pytest.approx(0.25 * 0.15 / (0.25 * 0.15 + 0.75 * 0.85))


def test_what_the_model_holds_impossible_is_survived_and_named() -> None:
    chooser = PlanChooser(PLANNER, CODES.acts)
    odd = Prefix.of(0, [0, 1], [2, 5])  # part 2 is said to be fine after a test of part 1
    plain = Prefix.of(0, [0], [2])
    found = chooser.choose([odd, plain, Prefix.of(0)], [np.random.default_rng(0)] * 3)
    assert [c.strange for c in found] == [(2,), (), ()]
    assert found[0].trace["belief"] == found[1].trace["belief"]
    ended = chooser.choose([Prefix.of(0, [4], [9])], [np.random.default_rng(0)])[0]
    assert ended.strange == (1,)  # it goes on although a fix ends it


def test_saved_and_loaded(tmp_path: Path) -> None:
    chooser = PlanChooser(PLANNER, CODES.acts)
    chooser.save(tmp_path)
    again = load_plan(tmp_path, CODES.acts, 1)
    beliefs, times = np.random.default_rng(0).dirichlet(np.ones(4), 20), np.arange(20) % 8
    np.testing.assert_array_equal(again.planner.q(beliefs, times), PLANNER.q(beliefs, times))
    (tmp_path / "plan.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"plan\.npz: expected a plan"):
        load_plan(tmp_path, CODES.acts, 1)
