"""What experiments on learnt models of small worlds share: worlds, models, plans, what they are worth."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from problems import in_gymnasium_timing

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import t_maze, tiger
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.controller_search import best_deterministic_memoryless, best_stochastic_memoryless
from turnwise.exact.learning.choose import choose
from turnwise.exact.learning.fit import DEFAULT, Effort
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.exact.learning.planner import Planner
from turnwise.exact.learning.sequences import Sequences
from turnwise.exact.learning.truth import described, random_episodes
from turnwise.exact.sarsop.solve import Solution, solve
from turnwise.exact.simulation import horizon_of
from turnwise.run.folder import write_text
from turnwise.run.rehearsal import at_most, rehearsing

SHORT = Effort(starts=1, early=10, iterations=10)
"""of rehearsals"""


def two_doors() -> POMDP:
    """A hall with two doors. Each is open or locked for the whole episode, half of the time each.

    A door that opens pays 1, leaving by the way one came in pays 0.3, and either ends the episode. Pushing a
    locked door costs 0.05 and shows the hall again. With discount .95 the best is to try one door, then the
    other, then to leave:

        .5 + .5 (-.05 + .95 (.5 + .5 (-.05 + .95 * .3))) = .7683

    Who cannot remember what was tried does best by leaving (.3) or by drawing lots.
    """
    opens = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool)  # [combination, door]
    S = len(opens) + 1
    moves, pays = np.tile(np.eye(S), (3, 1, 1)), np.zeros((3, S))
    for door in range(2):
        moves[door, :-1][opens[:, door]] = np.eye(S)[-1]
        pays[door, :-1] = np.where(opens[:, door], 1.0, -0.05)
    moves[2], pays[2, :-1] = np.eye(S)[-1], 0.3
    looks = np.tile(np.eye(2)[[0, 0, 0, 0, 1]], (3, 1, 1))
    return POMDP.from_arrays(
        moves,
        looks,
        pays,
        discount=0.95,
        start=[0.25, 0.25, 0.25, 0.25, 0],
        ends=np.arange(S) == S - 1,
        actions=["left", "right", "leave"],
        observations=["hall", "outside"],
        name="two-doors",
    )


@dataclass(frozen=True)
class World:
    """A problem, and how it is logged and learnt: `episodes` of at most `steps` random actions."""

    source: Any
    episodes: int
    steps: int
    states: tuple[int, ...]
    """numbers of hidden states to choose from"""
    effort: Effort = DEFAULT

    def problem(self) -> POMDP:
        """With the first observation shown, if it has one."""
        return in_gymnasium_timing(self.source())

    def logs(self, seed: int, episodes: int | None = None) -> Sequences:
        """Logged episodes of uniformly random actions."""
        n = at_most(200, self.episodes if episodes is None else episodes)
        return random_episodes(TabularEnv(self.problem()), n, self.steps, np.random.default_rng((seed, 0)))


WORLDS = {
    "two-doors": World(two_doors, 5000, 30, (1, 2, 3, 4, 6)),
    # With twice as many states to begin with, an iteration costs 784 products a step: fewer starts read less.
    "t-maze-5": World(partial(t_maze, 5), 5000, 60, (6, 10, 14), Effort(starts=4, sample=20_000)),
    "tiger": World(tiger, 5000, 30, (1, 2, 3, 4)),
}


def references(name: str) -> dict[str, float]:
    """Exact values: the optimum's bounds, and the best without memory, with and without drawing lots."""
    problem = WORLDS[name].problem()
    best = solve(problem, gap=1e-3, deadline=at_most(1, 20))
    drawn = best_stochastic_memoryless(problem, np.random.default_rng(0), at_most(4, 24), seconds=10)
    fixed = best_deterministic_memoryless(problem)
    return {"lower": best.lower, "upper": best.upper, "det": fixed.value, "stochastic": drawn.value}


# --- models ---


def last_seen(logs: Sequences) -> np.ndarray:
    """[M], what was seen last before each step; if nothing is shown first, the symbol O before the first."""
    before = np.empty(len(logs.actions), np.int64)
    before[1:] = logs.observations[:-1]
    before[logs.offsets[:-1]] = logs.firsts if logs.first_symbols > 1 else logs.observation_symbols
    return before


def one_step(logs: Sequences) -> LearntModel:
    """The model without a hidden state, by counting: p(o'|o,a), an end hazard and a mean reward by (o,a).

    Each row is pulled towards that of its action by one imagined step, so that it is defined where nothing
    was tried. As a `LearntModel` its state is what was seen last, which is certain once it is seen.
    """
    assert logs.rewards is not None
    A, O, shown = logs.action_symbols, logs.observation_symbols, logs.first_symbols > 1
    S, before = O + (not shown), last_seen(logs)
    over = np.zeros(len(before), bool)
    over[logs.offsets[1:] - 1] = logs.ended
    counts, paid = np.zeros((2, A, S, O)), np.zeros((2, A, S))
    np.add.at(counts, (over.astype(int), logs.actions, before, logs.observations), 1)
    np.add.at(paid, (over.astype(int), logs.actions, before), logs.rewards)
    n = counts.sum(3)  # [going on or ending, A, S]
    of_action = (counts.sum(2) + 1 / O) / (n.sum(2) + 1)[..., None]  # [2, A, O]
    seen = (counts + of_action[:, :, None]) / (n + 1)[..., None]
    hazard = n[1].sum(1) / n.sum((0, 2))
    mean = (paid.sum(2) / np.maximum(n.sum(2), 1))[:, :, None]
    means = (paid + mean) / (n + 1)
    transitions = np.zeros((A, S, S))
    transitions[:, :, :O] = seen[0]
    identity = np.eye(S)[:, :O] if shown else np.concatenate([np.eye(O), np.full((1, O), 1 / O)])
    first = np.bincount(logs.firsts, minlength=S) / len(logs) if shown else np.eye(S)[O]
    return LearntModel(
        start=first,
        firsts=np.eye(S) if shown else np.ones((S, 1)),
        transitions=transitions,
        emissions=np.tile(identity, (A, 1, 1)),
        ends=(n[1] + hazard[:, None]) / (n.sum(0) + 1),
        lasts=np.stack([seen[1], seen[1]]),
        pay=Pay(np.zeros(0), np.ones((3, A, S, 1)), np.stack([means[0], means[1], means[1]]), np.zeros(0)),
    )


def learnt(
    logs: Sequences, states: Sequence[int], rng: np.random.Generator, effort: Effort = DEFAULT
) -> tuple[LearntModel, list[dict[str, float]]]:
    """The model by EM, its number of states and smoothing chosen by held-out episodes; and that choice."""
    if rehearsing():
        states, effort = states[:2], SHORT
    found = choose(logs, rng, moves=states, effort=effort)
    rows = [
        {"states": size.states, "nats": nats, "worse": worse, "error": found.errors[size]}
        for size, (nats, worse) in found.heldout.items()
    ]
    return found.model, rows


def add_models(parser: argparse.ArgumentParser) -> None:
    """The option of experiments that share learnt models."""
    parser.add_argument(
        "--models", type=Path, default=Path("runs") / "worlds", help="folder of learnt models"
    )


def kept(folder: Path, name: str, seed: int) -> tuple[Sequences, LearntModel, Any]:
    """(the logs, the model learnt from them, how its number of states was chosen); learnt once for all."""
    world = WORLDS[name]
    logs, file = world.logs(seed), folder / f"{name}-{seed}.npz"
    if not file.exists():
        model, rows = learnt(logs, world.states, np.random.default_rng((seed, 1)), world.effort)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file.with_suffix(".json"), json.dumps(rows) + "\n")
        model.save(file)
    return logs, LearntModel.load(file), json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))


def true_model(problem: POMDP) -> LearntModel:
    """What a perfect learner would find."""
    return described(problem)


def plan(model: LearntModel, discount: float) -> tuple[Planner, Solution]:
    """The plan of SARSOP in a model, and its bounds there."""
    solution = solve(model.pomdp(discount), gap=1e-3, deadline=at_most(1, 30))
    actions = np.arange(model.shape[1])
    return Planner.of(model, actions, solution.policy, discount), solution


# --- what agents are worth in the world ---


class Agent(Protocol):
    """Chooses without lots; what it remembers is a row of an array."""

    def begin(self, firsts: np.ndarray) -> np.ndarray:
        """[U, ...], what is remembered of first observations [U]; zeros where nothing is shown."""
        ...

    def best(self, remembered: np.ndarray) -> np.ndarray:
        """[U], actions."""
        ...

    def after(self, remembered: np.ndarray, actions: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """[U, ...], what is remembered a step later."""
        ...


@dataclass(frozen=True)
class PlanAgent:
    """Follows a plan in a model, remembering the belief."""

    planner: Planner

    def begin(self, firsts: np.ndarray) -> np.ndarray:
        """Beliefs."""
        return self.planner.model.first(firsts)

    def best(self, remembered: np.ndarray) -> np.ndarray:
        """One step of look-ahead over the plan's values."""
        return self.planner.best(remembered, np.zeros(len(remembered), np.int64))

    def after(self, remembered: np.ndarray, actions: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Bayes' filter."""
        return self.planner.model.update(remembered, actions, seen)[0]


def returns_of(problem: POMDP, agent: Agent, episodes: int, rng: np.random.Generator) -> np.ndarray:
    """[episodes], discounted, cut where what follows weighs 1e-4.

    Episodes that have seen the same so far share one memory and one choice: it is computed once.
    """
    env, steps = TabularEnv(problem), horizon_of(problem)[0]
    seen, O = env.reset(rng, episodes), len(problem.observations)
    if problem.initial is None:
        seen = np.zeros(episodes, np.int64)
    kinds, kind = np.unique(seen, return_inverse=True)
    memory, running, total, weight = agent.begin(kinds), np.arange(episodes), np.zeros(episodes), 1.0
    for _ in range(steps):
        chosen = agent.best(memory)
        actions = np.zeros(episodes, np.int64)
        actions[running] = chosen[kind]
        step = env.step(actions)
        total[running] += weight * step.rewards[running]
        weight *= problem.discount
        going = ~step.terminated[running]
        if step.terminated.any():
            env.reset_lanes(step.terminated)
        running, kind = running[going], kind[going]
        if not len(running):
            break
        keys, kind = np.unique(kind * O + step.observations[running], return_inverse=True)
        memory = agent.after(memory[keys // O], chosen[keys // O], keys % O)
    return total


def summary(returns: np.ndarray) -> dict[str, float]:
    """The mean, and the half width of its 95% interval."""
    return {"mean": float(returns.mean()), "half": float(1.96 * returns.std(ddof=1) / len(returns) ** 0.5)}


def logged_beliefs(model: LearntModel, logs: Sequences) -> np.ndarray:
    """[M, S], the belief before each logged step."""
    found = np.empty((len(logs.actions), model.shape[0]))
    now, here, at = model.first(logs.firsts), np.arange(len(logs)), logs.offsets[:-1]
    while True:
        found[at] = now
        going = at + 1 < logs.offsets[1:][here]
        if not going.any():
            return found
        now = model.update(now[going], logs.actions[at[going]], logs.observations[at[going]])[0]
        here, at = here[going], at[going] + 1
