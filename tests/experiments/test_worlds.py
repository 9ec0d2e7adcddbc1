"""What the experiments on learnt models share, by hand arithmetic and slow twins; and rehearsals of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from turnwise.exact.controllers import Controller, controller_value
from turnwise.exact.learning.sequences import Sequences
from turnwise.exact.sarsop.solve import solve

ROOT = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def worlds(load_script):
    return load_script(ROOT / "worlds.py")


def by_hand() -> Sequences:
    """Two actions and observations, the first one shown: 0 -a-> 1 (pays 1) -b-> 0, end (2); 0 -a-> 0, cut."""
    return Sequences(
        actions=[0, 1, 0],
        observations=[1, 0, 0],
        rewards=[1.0, 2.0, 3.0],
        offsets=[0, 2, 3],
        ended=[True, False],
        firsts=[0, 0],
        action_symbols=2,
        observation_symbols=2,
        first_symbols=2,
    )


def test_two_doors(worlds):
    """The closed form of the docstring; pushing one door for ever is worth .5 - .5 * .05 / .05 = 0."""
    problem = worlds.two_doors().showing_initial()
    best = 0.5 + 0.5 * (-0.05 + 0.95 * (0.5 + 0.5 * (-0.05 + 0.95 * 0.3)))
    assert solve(problem, gap=1e-6).lower == pytest.approx(best, abs=1e-6)
    stubborn = Controller.memoryless(np.array([[1.0, 0, 0], [1, 0, 0]]))
    assert controller_value(problem, stubborn) == pytest.approx(0.0, abs=1e-9)


def test_one_step_counts(worlds):
    """After (0, a): once 1, once 0, and half an imagined step each way that a went; never an end."""
    model = worlds.one_step(by_hand())
    # of a: (1 + 1/2) / (2 + 1) for each observation; the row has 2 steps and one imagined one
    assert model.transitions[0, 0] == pytest.approx([1.5 / 3, 1.5 / 3])
    assert model.ends[0, 0] == pytest.approx(0.0)
    # (1, b) ended, and so did all that is imagined of b
    assert model.ends[1, 1] == pytest.approx(1.0)
    assert model.lasts[0, 1, 1] == pytest.approx([1 - 0.125, 0.125])  # of b: 1.5/2; (1 + .75)/2
    # rewards of (0, a): 1 and 3 and an imagined one of their mean
    assert model.pay.means[0, 0, 0] == pytest.approx(2.0)
    assert model.start == pytest.approx([1.0, 0.0])
    after, chance = model.update(model.first([0]), [0], [1])
    assert after[0] == pytest.approx([0.0, 1.0]) and chance[0] == pytest.approx(0.5)


def test_one_step_where_nothing_is_shown_first(worlds):
    """The state before the first step is a symbol of its own, which no step leads to."""
    model = worlds.one_step(worlds.WORLDS["tiger"].logs(0, 50))
    assert model.shape == (3, 3, 2) and model.start == pytest.approx([0, 0, 1])
    assert not model.transitions[:, :, 2].any()


def test_beliefs_before_logged_steps(worlds):
    """Those of the filter, episode by episode."""
    world = worlds.WORLDS["tiger"]
    model, logs = worlds.true_model(world.problem()), world.logs(0, 5)
    found = worlds.logged_beliefs(model, logs)
    for i in range(len(logs)):
        belief = model.first(logs.firsts[i : i + 1])
        for at in range(logs.offsets[i], logs.offsets[i + 1]):
            assert found[at] == pytest.approx(belief[0])
            belief, _ = model.update(belief, logs.actions[at : at + 1], logs.observations[at : at + 1])


def test_returns_of_a_plan(worlds):
    """The plan in the true model earns the exact optimum; seeds and standard errors as stated."""
    problem = worlds.two_doors().showing_initial()
    planner, solution = worlds.plan(worlds.true_model(problem), problem.discount)
    found = worlds.summary(
        worlds.returns_of(problem, worlds.PlanAgent(planner), 20_000, np.random.default_rng(0))
    )
    assert abs(found["mean"] - solution.lower) < 1.5 * found["half"]  # 3 standard errors


def test_one_step_model_plans_into_luck(worlds):
    """From 2,000 random episodes: it promises more than the optimum, and earns what one door earns."""
    world = worlds.WORLDS["two-doors"]
    problem = world.problem()
    planner, solution = worlds.plan(worlds.one_step(world.logs(0, 2000)), problem.discount)
    assert solution.lower > 0.7683125
    returns = worlds.returns_of(problem, worlds.PlanAgent(planner), 5000, np.random.default_rng(0))
    assert abs(returns.mean()) < 0.05


def test_replayed_q_learning(load_script):
    """By hand: Q(1,b) = 2, Q(0,a) = (1 + .5 * 2) of one step; the cut step says nothing. The rest untried."""
    script = load_script(ROOT / "learnt_state.py")
    logs = by_hand()
    q = script.q_learning(logs, np.array([0, 1, 0]), 2, 0.5)
    assert q == pytest.approx(np.array([[2.0, -np.inf], [-np.inf, 2.0]]))


def test_windows(load_script):
    """What is remembered after two steps; a strange window is read as the longest known one in it."""
    script = load_script(ROOT / "learnt_state.py")
    window = script.Window(2, by_hand())
    rows = window.logged(by_hand())
    assert rows.tolist() == [[-1, -1, 0], [0, 0, 1], [-1, -1, 0]]
    strange = window.symbols(np.array([[1, 1, 1]], np.int32))
    assert strange.tolist() == [window.known[np.array([1], np.int32).tobytes()]]


@pytest.mark.parametrize(
    ("script", "name", "title"),
    [
        ("world_models", "two-doors", "# One-step models plan into luck"),
        ("open_loop", "tiger", "# Open loop: the next five observations"),
        ("learnt_state", "two-doors", "# Q-learning and planning on a learnt state"),
    ],
)
def test_rehearsals(script, name, title, load_script, tmp_path, monkeypatch, capsys):
    """Made from parts to page."""
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    module = load_script(ROOT / f"{script}.py")
    words = [script, "--runs", str(tmp_path / "runs"), "--models", str(tmp_path / "models")]
    monkeypatch.setattr("sys.argv", [*words, "--worlds", name, "--seeds", "0"])
    module.main()
    page = (tmp_path / "runs" / "results" / f"{script}.md").read_text()
    assert page.startswith(title) and page.count(f"| {name} |") >= 2
    assert (tmp_path / "runs" / "results" / f"{script}.svg").exists()
    capsys.readouterr()


def test_rehearsal_of_the_number_of_logs(load_script, tmp_path, monkeypatch, capsys):
    """A plan from a few logs of given acts talks to customers."""
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    module = load_script(ROOT / "number_of_logs.py")
    words = ["x", "--runs", str(tmp_path), "--methods", "pomdp-acts", "--sizes", "50", "--seeds", "0"]
    monkeypatch.setattr("sys.argv", words)
    module.main()
    page = (tmp_path / "results" / "number_of_logs.md").read_text()
    assert "| learnt POMDP, acts given | 50 | 0 |" in page and "ILQL" in page
    capsys.readouterr()
