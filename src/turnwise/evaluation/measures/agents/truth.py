"""What is known about an environment, to stand beside an agent's mean: the optimum, the best without memory.

    V*_obs         value of the best policy of the history of actions and observations (exact.sarsop): two
                   bounds
    deterministic  value of the best function from the last observation to an action (enumeration: exact)
    stochastic     value of the best policy that draws its action given the last observation (ascent: a lower
                   bound of it)
    maximum        return of perfect play, for tasks that are no tables, if it is known

An agent with memory may read rewards too. If rewards tell more about the state than observations do
(`rewards_inform`), V*_obs does not bound its value from above; the value if the state were seen does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from turnwise.data.steps import StepInputs
from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.hidden_velocity import CartPole
from turnwise.envs.problems.long_t_maze import LongTMaze
from turnwise.envs.problems.memory_tasks import MemoryTask
from turnwise.envs.protocol import LaneEnv
from turnwise.evaluation.measures.agents.episodes import Greedy
from turnwise.exact.bounds import matrix, mdp_q
from turnwise.exact.controller_search import best_deterministic_memoryless, best_stochastic_memoryless
from turnwise.exact.controllers import Controller, controller_value
from turnwise.models.agents.q_network import QNetwork
from turnwise.run.errors import InputError

WORK = 3e10
"""operations that enumeration may take, about ten seconds"""
MOST_UNKNOWNS = 1000
"""unknowns of the linear system that ascent solves at every step, at most"""
CHANCES = 1e-9
"""below this two probabilities are equal"""

Bounding = Callable[[float, float, float], None]
"""called with seconds, lower and upper bound"""


@dataclass(frozen=True)
class Limits:
    """How long to search."""

    seconds: float = 10.0
    """seconds for the bounds of V*_obs, and as many for the best stochastic memoryless policy"""
    gap: float = 1e-3
    """gap between the bounds at which the search stops, in units of the return"""


def truth_of_problem(
    problem: POMDP, seed: int, limits: Limits = Limits(), progress: Bounding | None = None
) -> dict[str, Any]:
    """Everything that is known of the problem. What is not known is None, and `notes` says why.

    Values are discounted returns from the start, in the units of the problem's rewards.
    """
    notes: list[str] = []
    found: dict[str, Any] = dict.fromkeys(("lower", "upper", "deterministic", "stochastic"))
    if importlib.util.find_spec("numba") is None:
        notes.append("V*_obs: numba is not installed (pip install 'turnwise[fast]')")
    else:
        from turnwise.exact.sarsop.solve import solve

        try:
            solved = solve(problem, gap=limits.gap, deadline=limits.seconds, progress=progress)
            found |= {"lower": solved.lower, "upper": solved.upper}
        except InputError as e:
            notes.append(f"V*_obs: {e}")
    n = problem.shape[0] * len(_classes(problem))
    if n > MOST_UNKNOWNS:
        notes.append(f"memoryless policies: a system of {n:,} unknowns is too large here")
    else:
        _memoryless(problem, n, seed, limits, found, notes)
    informed = rewards_inform(problem)
    found |= {"rewards_inform": informed, "state_seen": _state_seen(problem)}
    return {**found, "notes": notes}


def _memoryless(
    problem: POMDP, n: int, seed: int, limits: Limits, found: dict[str, Any], notes: list[str]
) -> None:
    rng = np.random.default_rng(seed)
    try:
        most = max(1, int(WORK / n**3))
        found["deterministic"] = _finite(best_deterministic_memoryless(problem, min(most, 200_000)).value)
    except InputError as e:
        notes.append(f"best deterministic memoryless policy: {e}")
    try:
        found["stochastic"] = _finite(best_stochastic_memoryless(problem, rng, seconds=limits.seconds).value)
    except InputError as e:
        notes.append(f"best stochastic memoryless policy: {e}")
    if found["deterministic"] is not None and found["stochastic"] is not None:
        found["stochastic"] = max(found["stochastic"], found["deterministic"])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _state_seen(problem: POMDP) -> float | None:
    """The optimal value at the start if the state were seen: no agent does better, whatever it reads."""
    try:
        return _finite(float(problem.start @ mdp_q(problem).max(0)))
    except InputError:  # discount 1
        return None


def truth_of_task(env: LaneEnv) -> dict[str, Any]:
    """The maximum of an environment that is no table, if it is known."""
    if isinstance(env, MemoryTask):
        return {"maximum": env.maximum, "random": env.random, "notes": []}
    if isinstance(env, LongTMaze | CartPole):
        return {"maximum": env.maximum, "notes": []}
    return {"notes": ["nothing is known of this environment's optimum"]}


def bound_above(truth: dict[str, Any], memoryless: bool) -> float | None:
    """A bound that the agent's true mean cannot exceed; None if none is known."""
    if "maximum" in truth:
        return truth["maximum"]
    if memoryless or not truth.get("rewards_inform"):
        return truth.get("upper") if truth.get("upper") is not None else truth.get("state_seen")
    return truth.get("state_seen")


def share_of(mean: float, truth: dict[str, Any]) -> float | None:
    """The share of what memory is worth that an agent's mean has; None if memory is worth nothing.

    (mean - best stochastic memoryless) / (lower bound of V*_obs - best stochastic memoryless)
    """
    low, high = truth.get("stochastic"), truth.get("lower")
    if low is None or high is None or high - low < 1e-6 * max(1.0, abs(high)):
        return None
    return (mean - low) / (high - low)


def exact_value(agent: Any, problem: POMDP, *, greedy: bool) -> float | None:
    """J of an actor that sees only the last observation, without sampling; None if it is not finite."""
    # Every observation once, as the first of an episode, is all that a memoryless agent can ever read.
    # Problems without an initial observation add the symbol "nothing yet".
    symbols = problem.shape[2] + (problem.initial is None)
    inputs = StepInputs(
        torch.arange(symbols),
        torch.zeros(symbols, dtype=torch.int64),
        torch.zeros(symbols),
        torch.ones(symbols, dtype=torch.bool),
    )
    with torch.inference_mode():
        if greedy or isinstance(agent, QNetwork):
            actions = Greedy(agent).act(inputs, agent.initial_state(symbols)).actions
            policy = np.eye(problem.shape[1])[actions.numpy()]
        else:
            features = agent.memory.step(inputs, agent.memory.initial_state(symbols))[0]
            policy = agent.head(features).double().softmax(-1).numpy()
    try:
        return _finite(controller_value(problem, Controller.memoryless(policy)))
    except InputError:  # too large, or undefined at discount 1
        return None


def rewards_inform(problem: POMDP) -> bool:
    """Whether seeing rewards can tell more about the state reached than action and observation do.

    They tell no more if, given (a, o), the reward is always the same, or the state reached has the same
    distribution with each reward and from each state. The condition is sufficient and not necessary: the
    answer may be "yes" without need.
    """
    S, A, _ = problem.shape
    t, emissions = problem.transitions, matrix(problem.emissions)
    row = t.of_entries()
    goes_on = ~problem.ends & (t.data > 0)
    for a in range(A):
        of_a = np.flatnonzero(goes_on & (row // S == a))
        if problem.seen_rewards is None and _alike(problem.rewards[of_a]):
            continue
        seen: Any = emissions[a * S : (a + 1) * S].tocsc()
        for o in range(seen.shape[1]):
            chance = seen[:, o].toarray().ravel()
            at = of_a[chance[t.indices[of_a]] > 0]
            r = problem.rewards[at] if problem.seen_rewards is None else _seen_rewards(problem, at, o)
            p = t.data[at] * chance[t.indices[at]]
            if not _alike(r) and not _same_directions(row[at] % S, t.indices[at], p, r, S):
                return True
    return False


def _alike(x: np.ndarray) -> bool:
    return len(x) == 0 or float(np.ptp(x)) == 0


def _seen_rewards(problem: POMDP, entries: np.ndarray, o: int) -> np.ndarray:
    assert problem.seen_rewards is not None
    rows: Any = matrix(problem.seen_rewards)
    return np.asarray(rows[entries, np.full(len(entries), o)]).ravel()


def _same_directions(left: np.ndarray, reached: np.ndarray, p: np.ndarray, r: np.ndarray, S: int) -> bool:
    """Whether the state reached has the same distribution for every reward and every state left.

    Arrays are over the possible transitions: state left, state reached, probability, reward.
    """
    of_pair, index = np.unique(np.stack([r, left]), axis=1, return_inverse=True)
    m = sparse.csr_matrix((p, (index.ravel(), reached)), shape=(of_pair.shape[1], S)).toarray()
    m /= m.sum(1, keepdims=True)
    return bool(np.abs(m - m[0]).max() < CHANCES)


def _classes(problem: POMDP) -> np.ndarray:
    """One action [C] of each class of actions whose observations are distributed alike."""
    S, A, _ = problem.shape
    e: Any = matrix(problem.emissions)
    kept: list[int] = []
    for a in range(A):
        mine = e[a * S : (a + 1) * S]
        if not any(abs(mine - e[c * S : (c + 1) * S]).max() < CHANCES for c in kept):
            kept.append(a)
    return np.array(kept)
